//! A named session as an event stream: the client has acknowledged what is before its last event id.
//!
//! The ids of such a stream are places in the session. Who comes back with `Last-Event-ID` says by it
//! that everything up to there has arrived, and nobody has to say so while the stream goes on: when as
//! much as may be is not acknowledged, the stream ends, and an EventSource that comes back makes room.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidings_protocol::json::Envelope;
use tidings_protocol::mqtt::Publish;
use tidings_protocol::sse::{self, EventId, EventName};
use tokio::time::{Instant, Sleep, sleep_until};

use super::event_stream::{StreamOptions, goodbye};
use super::named::NamedSession;
use super::render::write_event;
use crate::broker::Broker;
use crate::broker::session::Closing;

/// Messages that a stream sends without an acknowledgement.
pub(super) const WINDOW: u16 = 1000;

/// How long a client has to acknowledge something before it has to come back for more.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(1);

/// When a client comes back that made no room otherwise.
const RETRY: Duration = Duration::from_millis(50);

/// A session's stream.
pub(super) struct SessionStream {
    broker: Arc<Broker>,
    session: NamedSession,
    options: StreamOptions,
    /// What the client is told before anything else.
    opening: Vec<u8>,
    timer: Pin<Box<Sleep>>,
    /// When a sign of life is due.
    beat_at: Instant,
    /// Since when nothing can be sent before something is acknowledged.
    held_up_since: Option<Instant>,
}

impl SessionStream {
    /// A stream of this session, which has the subscriptions that it is to have.
    pub(super) fn new(
        broker: Arc<Broker>,
        session: NamedSession,
        name: &str,
        options: StreamOptions,
    ) -> SessionStream {
        let mut opening = Vec::new();
        sse::write_retry(options.retry, &mut opening);
        sse::write_event_with(EventName::new("session").ok(), None, &mut opening, |out| {
            let about = serde_json::json!({"session": name, "present": session.present});
            out.extend_from_slice(about.to_string().as_bytes());
        });
        let beat_at = Instant::now() + options.heartbeat;
        SessionStream {
            broker,
            session,
            opening,
            timer: Box::pin(sleep_until(beat_at)),
            beat_at,
            held_up_since: None,
            options,
        }
    }

    /// As [`EventStream::poll`](super::event_stream::EventStream::poll).
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<bool> {
        let before = out.len();
        out.append(&mut std::mem::take(&mut self.opening));
        loop {
            if let Some(reason) = self.ended() {
                goodbye(reason, out);
                return Poll::Ready(false);
            }
            let (session, options) = (&self.session, &self.options);
            let each = |publish: &Publish<'_>| write(session, options, publish, out);
            if let Err(why) = session.poll(cx, each) {
                goodbye(reason(why), out);
                return Poll::Ready(false);
            }
            let now = Instant::now();
            let due = match self.is_late(now) {
                Some(due) => due,
                None => {
                    sse::write_retry(RETRY, out);
                    goodbye("acknowledge", out);
                    return Poll::Ready(false);
                }
            };
            if out.len() > before {
                self.beat_at = now + self.options.heartbeat;
            } else if now >= self.beat_at {
                sse::write_comment("", out);
                self.beat_at = now + self.options.heartbeat;
            }
            self.timer.as_mut().reset(self.beat_at.min(due));
            // Registers the timer as well.
            if self.timer.as_mut().poll(cx).is_pending() {
                return match out.len() > before {
                    true => Poll::Ready(true),
                    false => Poll::Pending,
                };
            }
        }
    }

    /// When it has to be looked at again; none if the client did not acknowledge anything in time.
    fn is_late(&mut self, now: Instant) -> Option<Instant> {
        let expires = self.options.expires_at.map(|at| {
            let left = at.saturating_sub(self.broker.clock.now().0);
            now + Duration::from_millis(left.max(100))
        });
        let far = now + self.options.heartbeat;
        let due = expires.unwrap_or(far);
        if !self.session.is_held_up() {
            self.held_up_since = None;
            return Some(due);
        }
        let until = *self.held_up_since.get_or_insert(now) + ACKNOWLEDGE_WITHIN;
        (now < until).then(|| due.min(until))
    }

    /// Why the stream may not go on, if so. Changed rights end the session's connection by themselves.
    fn ended(&self) -> Option<&'static str> {
        if self.broker.is_stopping() {
            return Some("stopping");
        }
        let now = self.broker.clock.now().0;
        self.options
            .expires_at
            .is_some_and(|at| at <= now)
            .then_some("expired")
    }
}

fn write(
    session: &NamedSession,
    options: &StreamOptions,
    publish: &Publish<'_>,
    out: &mut Vec<u8>,
) {
    let cursor = session.cursor_of(publish).map(|it| it.to_string());
    let id = cursor.as_deref().and_then(|it| EventId::new(it).ok());
    let name = match options.named {
        true => EventName::new(publish.topic).ok(),
        false => None,
    };
    let envelope = envelope(publish, cursor.as_deref());
    write_event(&envelope, options.format, name, id, out);
}

/// What a session sends, as clients see it.
pub(super) fn envelope<'a>(publish: &Publish<'a>, id: Option<&'a str>) -> Envelope<'a> {
    Envelope {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos,
        retain: publish.retain,
        properties: publish.properties,
        id,
        time: None,
    }
}

/// What a client is told when its session is not this stream's any more.
pub(super) fn reason(why: Closing) -> &'static str {
    match why {
        Closing::TakenOver => "taken-over",
        Closing::NotAuthorized => "unauthorized",
        Closing::ShuttingDown => "stopping",
        Closing::QueueFull => "queue-full",
        Closing::StoreFailed => "store-failed",
        Closing::KeepAliveTimeout => "session-closed",
    }
}
