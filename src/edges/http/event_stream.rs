//! One stream of Server-Sent Events (WHATWG HTML §9.2): what it says and when, whatever carries it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidings_protocol::sse::{self, EventName};
use tokio::time::{Instant, Sleep, sleep_until};

use super::pull::{Pull, Pulled};
use super::render::{Format, cursor, write_gap, write_message, write_sse};
use crate::access::{Access, Principal};
use crate::broker::feed::{Event, Gap, OpenReader};
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

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The server stops; the client is to come back.
    Stopping,
    /// The credentials expired or were withdrawn.
    Unauthorized,
    /// The store has failed.
    Failed,
}

/// A stream.
pub(super) struct EventStream {
    broker: Arc<Broker>,
    access: Access,
    pull: Pull,
    options: StreamOptions,
    principal: Principal,
    rights: u64,
    epoch: u64,
    /// The last cursor that the client was told.
    told: Offset,
    /// Retained Messages that come first, the next at the end.
    retained: Vec<Arc<Message>>,
    timer: Pin<Box<Sleep>>,
    events: Vec<Arc<Event>>,
    opening: Option<Opening>,
    /// The cursor that the client is told first.
    start: Option<Offset>,
}

/// What the stream begins with.
struct Opening {
    gap: Option<Gap>,
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
        retained.reverse();
        let cursor = reader.cursor();
        EventStream {
            rights: broker.rights_generation(),
            epoch: broker.log_epoch(),
            told: cursor,
            pull: Pull::new(Arc::clone(&broker), reader),
            timer: Box::pin(sleep_until(Instant::now() + options.heartbeat)),
            broker,
            access,
            options,
            principal,
            retained,
            events: Vec::new(),
            opening: Some(Opening { gap }),
            start: Some(cursor),
        }
    }

    /// Adds what is to be sent to `out`; pending while there is nothing.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Option<StreamEnd>> {
        let before = out.len();
        let opening = self.opening.take();
        if let Some(opening) = &opening {
            self.open(opening, out);
        }
        if let Some(end) = self.check(out) {
            return Poll::Ready(Some(end));
        }
        self.write_retained(out);
        if let Some(cursor) = self.start.take_if(|_| self.retained.is_empty()) {
            // From here on the client resumes; before, it would miss Retained Messages.
            self.tell(cursor, out);
        }
        while self.retained.is_empty() && out.len() - before < PULL_BYTES {
            match self.pull.poll(cx, PULL_BYTES, &mut self.events) {
                Poll::Ready(Pulled::Events) => self.write_events(out),
                Poll::Ready(Pulled::Gap(gap)) => self.write_gap(&gap, out),
                Poll::Ready(Pulled::Failed) => {
                    self.goodbye("store-failed", out);
                    return Poll::Ready(Some(StreamEnd::Failed));
                }
                Poll::Pending => break,
            }
        }
        if out.len() > before {
            self.rest();
        }
        // Registers the timer as well.
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Some(end) = self.check(out) {
                return Poll::Ready(Some(end));
            }
            self.beat(out);
            self.rest();
        }
        match out.len() > before {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// What the client is told before anything else.
    fn open(&mut self, opening: &Opening, out: &mut Vec<u8>) {
        sse::write_retry(self.options.retry, out);
        if let Some(gap) = &opening.gap {
            self.write_gap(gap, out);
        }
    }

    /// Whether the stream may go on.
    fn check(&mut self, out: &mut Vec<u8>) -> Option<StreamEnd> {
        if self.broker.is_stopping() {
            self.goodbye("stopping", out);
            return Some(StreamEnd::Stopping);
        }
        let now = self.broker.clock.now().0;
        if self.options.expires_at.is_some_and(|at| at <= now) {
            self.goodbye("expired", out);
            return Some(StreamEnd::Unauthorized);
        }
        let rights = self.broker.rights_generation();
        if rights == self.rights {
            return None;
        }
        // A page that is being read ends first.
        let reader = self.pull.reader()?;
        let renewed = self.access.renew(&self.principal);
        let allowed = renewed.is_ok_and(|principal| {
            let allowed = reader.read_as(&principal);
            self.principal = principal;
            allowed
        });
        if !allowed {
            self.goodbye("unauthorized", out);
            return Some(StreamEnd::Unauthorized);
        }
        self.rights = rights;
        None
    }

    /// Errors travel in the stream once it has begun.
    fn goodbye(&self, reason: &str, out: &mut Vec<u8>) {
        let name = EventName::new("goodbye").ok();
        sse::write_event_with(name, None, out, |out| {
            out.extend_from_slice(format!("{{\"reason\":\"{reason}\"}}").as_bytes());
        });
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
            if event.lost_before > 0 {
                let gap = Gap {
                    oldest: Some(event.offset),
                    lost: Some(event.lost_before),
                };
                let name = EventName::new("gap").ok();
                sse::write_event_with(name, None, out, |out| write_gap(self.epoch, &gap, out));
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

    fn write_gap(&mut self, gap: &Gap, out: &mut Vec<u8>) {
        let name = EventName::new("gap").ok();
        sse::write_event_with(name, None, out, |out| write_gap(self.epoch, gap, out));
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
