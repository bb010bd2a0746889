//! One stream of Server-Sent Events (WHATWG HTML §9.2): what it says and when, whatever carries it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidings_protocol::sse::{self, EventName};
use tokio::time::{Instant, Sleep, sleep_until};

use super::pull::{Pull, Pulled, Rights};
use super::render::{Format, cursor, write_message, write_sse, write_sse_gap};
use crate::access::{Access, Principal};
use crate::broker::feed::{Event, OpenReader};
use crate::broker::{Broker, Message};
use crate::store::Offset;

/// Bytes of payloads taken from a feed at a time.
const PULL_BYTES: usize = 64 * 1024;

/// A client is told a cursor without an event when so many messages were not for it.
const SILENT_OFFSETS: u64 = 10_000;

/// How a stream is to look.
pub(super) struct StreamOptions {
    pub format: Format,
    /// Events have the name of their topic.
    pub named: bool,
    /// Silence after which a comment is sent.
    pub heartbeat: Duration,
    /// When the credentials expire, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// When a client that lost the stream comes back.
    pub retry: Duration,
}

/// A stream.
pub(super) struct EventStream {
    broker: Arc<Broker>,
    access: Access,
    pull: Pull,
    options: StreamOptions,
    principal: Principal,
    rights: Rights,
    epoch: u64,
    /// The last cursor that the client was told.
    told: Offset,
    /// Retained Messages that come first, the next at the end.
    retained: Vec<Arc<Message>>,
    timer: Pin<Box<Sleep>>,
    events: Vec<Arc<Event>>,
    /// What the client is told before anything else.
    opening: Vec<u8>,
    /// The cursor that the client is told first.
    start: Option<Offset>,
}

impl EventStream {
    /// A stream of what `opened` reads, after these Retained Messages.
    pub(super) fn new(
        broker: Arc<Broker>,
        access: Access,
        opened: OpenReader,
        principal: Principal,
        mut retained: Vec<Arc<Message>>,
        options: StreamOptions,
    ) -> EventStream {
        let OpenReader { reader, gap, .. } = opened;
        let epoch = broker.log_epoch();
        let mut opening = Vec::new();
        sse::write_retry(options.retry, &mut opening);
        if let Some(gap) = &gap {
            write_sse_gap(epoch, gap, &mut opening);
        }
        retained.reverse();
        let cursor = reader.cursor();
        EventStream {
            rights: Rights::default(),
            epoch,
            told: cursor,
            pull: Pull::new(Arc::clone(&broker), reader),
            timer: Box::pin(sleep_until(Instant::now() + options.heartbeat)),
            broker,
            access,
            options,
            principal,
            retained,
            events: Vec::new(),
            opening,
            start: Some(cursor),
        }
    }

    /// Adds what is to be sent to `out`, and answers whether the stream goes on; pending while there is
    /// nothing.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<bool> {
        let before = out.len();
        out.append(&mut std::mem::take(&mut self.opening));
        if let Some(reason) = self.ended() {
            goodbye(reason, out);
            return Poll::Ready(false);
        }
        self.write_retained(out);
        if let Some(cursor) = self.start.take_if(|_| self.retained.is_empty()) {
            // From here on the client resumes; before, it would miss Retained Messages.
            self.tell(cursor, out);
        }
        while self.retained.is_empty() && out.len() - before < PULL_BYTES {
            match self.pull.poll(cx, PULL_BYTES, &mut self.events) {
                Poll::Ready(Pulled::Events) => self.write_events(out),
                Poll::Ready(Pulled::Gap(gap)) => write_sse_gap(self.epoch, &gap, out),
                Poll::Ready(Pulled::Unauthorized) => {
                    goodbye("unauthorized", out);
                    return Poll::Ready(false);
                }
                Poll::Ready(Pulled::Failed) => {
                    goodbye("store-failed", out);
                    return Poll::Ready(false);
                }
                Poll::Pending => break,
            }
        }
        if out.len() > before {
            self.rest();
        }
        // Registers the timer as well.
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Some(reason) = self.ended() {
                goodbye(reason, out);
                return Poll::Ready(false);
            }
            self.beat(out);
            self.rest();
        }
        match out.len() > before {
            true => Poll::Ready(true),
            false => Poll::Pending,
        }
    }

    /// Why the stream may not go on, if so.
    fn ended(&mut self) -> Option<&'static str> {
        if self.broker.is_stopping() {
            return Some("stopping");
        }
        let now = self.broker.clock.now().0;
        if self.options.expires_at.is_some_and(|at| at <= now) {
            return Some("expired");
        }
        let (principal, pulls) = (&mut self.principal, std::iter::once(&mut self.pull));
        let allowed = self
            .rights
            .renew(&self.broker, &self.access, principal, pulls);
        (!allowed).then_some("unauthorized")
    }

    fn write_retained(&mut self, out: &mut Vec<u8>) {
        let before = out.len();
        while out.len() - before < PULL_BYTES
            && let Some(message) = self.retained.pop()
        {
            if self.principal.may_receive(message.topic()) {
                let format = self.options.format;
                let name = match self.options.named {
                    true => EventName::new(message.topic()).ok(),
                    false => None,
                };
                write_message(&message, format, name, None, true, out);
            }
        }
    }

    fn write_events(&mut self, out: &mut Vec<u8>) {
        for event in self.events.drain(..) {
            if let Some(gap) = event.gap() {
                write_sse_gap(self.epoch, &gap, out);
            }
            write_sse(
                self.epoch,
                &event,
                self.options.format,
                self.options.named,
                out,
            );
            self.told = event.offset;
        }
        if self.events.capacity() > 64 {
            self.events = Vec::new();
        }
        if let Some(reader) = self.pull.reader()
            && reader.cursor().0 > self.told.0 + SILENT_OFFSETS
        {
            let cursor = reader.cursor();
            self.tell(cursor, out);
        }
    }

    fn tell(&mut self, offset: Offset, out: &mut Vec<u8>) {
        sse::write_id_only(cursor(self.epoch, offset).to_text().as_id(), out);
        self.told = offset;
    }

    /// A sign of life, with the cursor if that moved silently.
    fn beat(&mut self, out: &mut Vec<u8>) {
        let moved = self.pull.reader().map(|reader| reader.cursor());
        match moved.filter(|cursor| *cursor > self.told) {
            Some(cursor) => self.tell(cursor, out),
            None => sse::write_comment("", out),
        }
    }

    /// Sets the timer: the next heartbeat, or the end of the credentials.
    fn rest(&mut self) {
        let mut wait = self.options.heartbeat;
        if let Some(expires_at) = self.options.expires_at {
            let left = expires_at.saturating_sub(self.broker.clock.now().0);
            wait = wait.min(Duration::from_millis(left.max(100)));
        }
        self.timer.as_mut().reset(Instant::now() + wait);
    }
}

/// Errors travel in the stream once it has begun.
pub(super) fn goodbye(reason: &str, out: &mut Vec<u8>) {
    let name = EventName::new("goodbye").ok();
    sse::write_event_with(name, None, out, |out| {
        out.extend_from_slice(format!("{{\"reason\":\"{reason}\"}}").as_bytes());
    });
}
