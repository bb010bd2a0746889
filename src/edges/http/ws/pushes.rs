//! What the subscriptions of a WebSocket have for its client.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidings_protocol::mqtt::{PacketId, Publish, QoS};

use super::super::named::NamedSession;
use super::super::pull::{Pull, Pulled};
use super::super::render;
use super::super::session_stream::envelope as session_envelope;
use super::outlet::write_text_frame;
use super::protocol::{self, CloseCode, End, end};
use crate::broker::feed::{Event, Reader};
use crate::broker::session::Closing;

const PULL_BYTES: usize = 64 * 1024;

/// A subscription of the connection alone.
pub(super) struct Subscription {
    /// What its messages are said to be of: its filters, with spaces between.
    pub(super) filter: String,
    pub(super) pull: Pull,
    /// How many replies the connection has to have sent before its first message.
    after: u64,
    /// Whether other readers get the same frames.
    shared: bool,
    events: Vec<Arc<Event>>,
}

impl Subscription {
    /// One that is told of under this name, once so many replies of the connection are sent.
    pub(super) fn new(filter: String, mut pull: Pull, after: u64) -> Subscription {
        let is_whole = |it: &mut Reader| it.is_whole() && it.filters().join(" ") == filter;
        Subscription {
            shared: pull.reader().is_some_and(is_whole),
            filter,
            pull,
            after,
            events: Vec::new(),
        }
    }

    /// Adds frames to `out`; ready as long as there may be more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u64,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), End>> {
        let Subscription { filter, events, .. } = self;
        match self.pull.poll(cx, PULL_BYTES, events) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Pulled::Unauthorized) => {
                return Poll::Ready(Err(end(CloseCode::Forbidden, "unauthorized")));
            }
            Poll::Ready(Pulled::Failed) => {
                return Poll::Ready(Err(end(CloseCode::Failed, "store-failed")));
            }
            Poll::Ready(Pulled::Gap(gap)) => {
                write_text_frame(&protocol::gap(filter, epoch, &gap), out);
            }
            Poll::Ready(Pulled::Events) => {}
        }
        for event in events.drain(..) {
            if let Some(gap) = event.gap() {
                write_text_frame(&protocol::gap(filter, epoch, &gap), out);
            }
            let frame = |envelope: &[u8]| {
                let mut frame = Vec::new();
                write_text_frame(&protocol::message(filter, envelope), &mut frame);
                Bytes::from(frame)
            };
            match self.shared {
                true => out.extend_from_slice(render::push(epoch, &event, frame)),
                false => out.extend_from_slice(&frame(&render::envelope(epoch, &event))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The named session of a connection.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) session: NamedSession,
    /// As [`Subscription::after`].
    pub(super) after: u64,
    /// By what the client acknowledges them.
    pub(super) in_flight: HashMap<u16, (PacketId, QoS)>,
}

impl Named {
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        let Named {
            name,
            session,
            in_flight,
            ..
        } = self;
        let each = |publish: &Publish<'_>| {
            let ack = publish.packet_id.map(|id| {
                in_flight.insert(id.get(), (id, publish.qos));
                id.get()
            });
            let mut envelope = Vec::new();
            session_envelope(publish, None).write(&mut envelope);
            let push = protocol::session_message(name, ack, publish.dup, &envelope);
            write_text_frame(&push, out);
        };
        session.poll(cx, each).map_err(|closing| match closing {
            Closing::TakenOver => end(CloseCode::TakenOver, "taken-over"),
            Closing::NotAuthorized => end(CloseCode::Forbidden, "unauthorized"),
            Closing::ShuttingDown => end(CloseCode::Stopping, "stopping"),
            _ => end(CloseCode::Failed, "session-closed"),
        })
    }
}

/// What the client listens to.
#[derive(Default)]
pub(super) struct Pushes {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) named: Option<Named>,
}

impl Pushes {
    /// Adds frames to `out`: something of every subscription that has something and whose request was
    /// answered. Pending while none has.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u64,
        replies_sent: u64,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), End>> {
        let mut more = false;
        for subscription in &mut self.subscriptions {
            if subscription.after <= replies_sent {
                more |= match subscription.poll(cx, epoch, out) {
                    Poll::Ready(polled) => polled.map(|()| true),
                    Poll::Pending => Ok(false),
                }?;
            }
        }
        if let Some(named) = &mut self.named
            && named.after <= replies_sent
        {
            let before = out.len();
            named.poll(cx, out)?;
            more |= out.len() > before;
        }
        match more {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}
