//! Driving a session of the broker from a transport that is not MQTT. The session does not know
//! the difference: it may be gone on with over MQTT, and the other way round.
//!
//! A session writes MQTT packets into its outbox; here they are taken apart again, and the client's
//! acknowledgements become MQTT's: of single messages, or of all up to a [`SessionCursor`].

use std::fmt;
use std::io::IoSlice;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Context;

use tidings_protocol::mqtt::{
    Packet, PacketId, Publish, QoS, ReasonCode, RetainHandling, SubscriptionOptions, Version,
    decode, fixed_header,
};

use crate::access::Principal;
use crate::broker::outbox::Outbox;
use crate::broker::outgoing::Acknowledgement;
use crate::broker::session::{Closing, Session};
use crate::broker::{Broker, Ending, Open, OpenError, Opened, Request, SubscribeError};
use crate::store::Ticket;

/// A message's place in a session, as clients see it: `<log epoch>.<session>.<sequence>`, all decimal.
/// A client that gives it back has every message up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionCursor {
    pub epoch: u64,
    pub session: u64,
    pub sequence: u64,
}

impl fmt::Display for SessionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.session, self.sequence)
    }
}

impl FromStr for SessionCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<SessionCursor, ()> {
        let mut parts = text.split('.').map(|part| match part.as_bytes() {
            [b'0'..=b'9', ..] => part.parse().map_err(|_| ()),
            _ => Err(()),
        });
        let mut number = || parts.next().ok_or(())?;
        let cursor = SessionCursor {
            epoch: number()?,
            session: number()?,
            sequence: number()?,
        };
        match parts.next() {
            None => Ok(cursor),
            Some(_) => Err(()),
        }
    }
}

/// What session packets are written in: the version that leaves nothing out.
const VERSION: Version = Version::V5;

/// A session that this transport has. When it is dropped the session goes on without a connection.
pub(super) struct NamedSession {
    broker: Arc<Broker>,
    session: Arc<Session>,
    epoch: u64,
    /// Whether it was there before.
    pub(super) present: bool,
    /// What has to be durable before the client is told that it has it.
    pub(super) ticket: Ticket,
}

impl Drop for NamedSession {
    fn drop(&mut self) {
        self.broker.close(&self.session, self.epoch, Ending::Lost);
    }
}

impl NamedSession {
    /// Opens a session, or goes on with it. Its messages are kept for `expiry_secs` without a
    /// connection, and at most `window` of them are sent and not acknowledged at a time.
    ///
    /// # Errors
    /// As [`Broker::open`].
    pub(super) fn open(
        broker: &Arc<Broker>,
        name: &str,
        principal: &Principal,
        expiry_secs: u32,
        window: u16,
    ) -> Result<NamedSession, OpenError> {
        let Opened {
            session,
            epoch,
            present,
            ticket,
        } = broker.open(&Open {
            client_id: name,
            principal: principal.clone(),
            clean_start: false,
            expiry_secs,
            will: None,
            version: VERSION,
            receive_maximum: window,
            packet_size_max: usize::MAX,
            topic_alias_maximum: 0,
            silence_max: 0,
        })?;
        Ok(NamedSession {
            broker: Arc::clone(broker),
            session,
            epoch,
            present,
            ticket,
        })
    }

    /// Subscribes it. A replay that it has already goes on: there is no other way to come back to it.
    ///
    /// # Errors
    /// As [`Broker::subscribe`].
    pub(super) fn subscribe(
        &self,
        filter: &str,
        qos: QoS,
        retained: bool,
    ) -> Result<(QoS, Ticket), SubscribeError> {
        let request = Request {
            filter,
            options: SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: true,
                retain_handling: match retained {
                    true => RetainHandling::SendIfNew,
                    false => RetainHandling::DoNotSend,
                },
            },
            identifier: 0,
        };
        self.broker.subscribe(&self.session, self.epoch, request)
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, filter: &str) -> (ReasonCode, Ticket) {
        self.broker.unsubscribe(&self.session, self.epoch, filter)
    }

    /// Gives what has arrived to `each`, and has the task woken for more. Messages of QoS 1 and 2
    /// have a Packet Identifier, by which they are acknowledged.
    ///
    /// # Errors
    /// Why the session is not this transport's any more.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(&Publish<'_>),
    ) -> Result<(), Closing> {
        loop {
            let mut out = Outbox::default();
            let waiting = self
                .broker
                .collect(&self.session, self.epoch, &mut out, cx.waker())?;
            if waiting.page {
                // Wakes this task when it is done.
                let (broker, session) = (Arc::clone(&self.broker), Arc::clone(&self.session));
                let epoch = self.epoch;
                tokio::task::spawn_blocking(move || broker.load_page(&session, epoch));
            }
            self.take_apart(&flatten(&out), &mut each);
            let replayed = waiting.replays && self.broker.replay(&self.session, self.epoch);
            let pulled =
                waiting.readings && self.broker.pull(&self.session, self.epoch, cx.waker());
            if !replayed && !pulled && !waiting.messages {
                return Ok(());
            }
        }
    }

    fn take_apart(&self, mut bytes: &[u8], each: &mut impl FnMut(&Publish<'_>)) {
        let mut released = Vec::new();
        while let Ok(Some(header)) = fixed_header(bytes, usize::MAX) {
            let Some((packet, rest)) = bytes.split_at_checked(header.total_len()) else {
                break;
            };
            bytes = rest;
            match decode(VERSION, header, packet) {
                Ok(Packet::Publish(publish)) => each(&publish),
                // The client has said already that it has the message: QoS 2 ends here.
                Ok(Packet::PubRel(ack)) => {
                    released.push((Acknowledgement::Complete, ack.packet_id))
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a session wrote what is not MQTT"),
            }
        }
        if !released.is_empty() {
            let (session, epoch) = (&self.session, self.epoch);
            self.broker
                .acknowledge(session, epoch, &released, &mut Vec::new());
        }
    }

    /// The place of a message of this connection that has to be acknowledged; none of one of QoS 0.
    pub(super) fn cursor_of(&self, publish: &Publish<'_>) -> Option<SessionCursor> {
        let id = publish.packet_id?;
        let sequence = self.broker.sequence_of(&self.session, self.epoch, id)?;
        Some(SessionCursor {
            epoch: self.broker.log_epoch(),
            session: self.session.number(),
            sequence,
        })
    }

    /// Acknowledges every message up to this place, whichever connection it came over. Nothing happens
    /// if it is a place in another session.
    pub(super) fn acknowledge_to(&self, cursor: SessionCursor) -> Ticket {
        if (cursor.epoch, cursor.session) != (self.broker.log_epoch(), self.session.number()) {
            return Ticket::default();
        }
        let (session, sequence) = (&self.session, cursor.sequence);
        self.broker.acknowledge_to(session, self.epoch, sequence).1
    }

    /// Whether messages wait until the client has acknowledged some of those before them.
    pub(super) fn is_held_up(&self) -> bool {
        self.broker.is_held_up(&self.session, self.epoch)
    }

    /// Whether messages are being read back from the disk, or wait until it has their place in the
    /// queue, and will be there in a moment.
    pub(super) fn is_loading(&self) -> bool {
        let state = self.session.lock();
        let stalled = state.link.as_ref().is_some_and(|link| link.stalled);
        let waits = state.loading || stalled && state.outgoing.has_waiting();
        waits && !self.broker.store().failed()
    }

    /// Ends it, with all that is queued for it.
    pub(super) fn end(self) {
        let ending = Ending::Goodbye {
            with_will: false,
            expiry_secs: Some(0),
        };
        self.broker.close(&self.session, self.epoch, ending);
    }

    /// Acknowledges messages; answers those that were not in flight.
    pub(super) fn acknowledge(&self, ids: &[(PacketId, QoS)]) -> Vec<PacketId> {
        let acknowledgements: Vec<_> = ids
            .iter()
            .map(|&(id, qos)| match qos {
                QoS::ExactlyOnce => (Acknowledgement::Received, id),
                _ => (Acknowledgement::Ack, id),
            })
            .collect();
        let mut unknown = Vec::new();
        let (session, epoch) = (&self.session, self.epoch);
        self.broker
            .acknowledge(session, epoch, &acknowledgements, &mut unknown);
        unknown.into_iter().map(|at| ids[at].0).collect()
    }
}

fn flatten(out: &Outbox) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(out.len());
    // As many as there can be: the segments, and the tail.
    let mut slices = vec![IoSlice::new(&[]); out.segments() + 1];
    let filled = out.slices(&mut slices);
    for slice in &slices[..filled] {
        bytes.extend_from_slice(slice);
    }
    bytes
}
