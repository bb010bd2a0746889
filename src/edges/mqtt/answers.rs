//! Answers that may have to wait: what they promise has to be in the store first.
//!
//! They leave in the order in which they were given [MQTT-4.6.0-2] [MQTT-4.6.0-3]
//! [MQTT-4.6.0-4], so one that waits holds up those behind it. Deliveries do not wait with them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::mqtt::{Ack, AckKind, PacketId, ReasonCode, Version};

use crate::broker::outbox::Outbox;
use crate::broker::session::Closing;
use crate::broker::{Bell, Broker, Message};
use crate::store::{Ticket, Waiting};

/// Answers waiting at which nothing more is read from the client.
pub(super) const WAITING_MAX: usize = 16 * 1024;

/// The answers of one connection that wait.
#[derive(Default)]
pub(super) struct Answers {
    waiting: VecDeque<Promise>,
    /// Rung by those who make a promise void by having the message already; made for the first.
    bell: Option<Arc<Bell>>,
    /// The ticket whose arrival in the store wakes this connection.
    watched: Ticket,
}

/// An answer, and what it promises.
struct Promise {
    /// The store has this.
    ticket: Ticket,
    /// Or nobody needs the message any more.
    message: Option<Arc<Message>>,
    answer: Answer,
}

impl Promise {
    fn is_kept(&self, durable: Ticket) -> bool {
        let settled = |message: &Arc<Message>| message.is_settled();
        self.ticket <= durable || self.message.as_ref().is_some_and(settled)
    }
}

/// An answer.
pub(super) enum Answer {
    /// An acknowledgement.
    Ack(AckKind, PacketId, ReasonCode),
    /// Another packet, encoded.
    Packet(Box<[u8]>),
}

impl Answer {
    fn encode(&self, version: Version, out: &mut Outbox) {
        match self {
            Answer::Ack(kind, id, reason) => {
                let mut ack = Ack::new(*id);
                ack.reason = *reason;
                ack.encode(*kind, version, out.tail());
            }
            Answer::Packet(packet) => out.tail().extend_from_slice(packet),
        }
    }
}

impl Answers {
    /// What is to be rung when an answer need not wait any more.
    pub(super) fn bell(&mut self) -> Arc<Bell> {
        Arc::clone(self.bell.get_or_insert_default())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives an answer, at once if what it promises is true and none waits before it: `ticket` is
    /// durable, or `message` needs not be kept any more.
    pub(super) fn give(
        &mut self,
        answer: Answer,
        ticket: Ticket,
        message: Option<&Arc<Message>>,
        broker: &Broker,
        version: Version,
        out: &mut Outbox,
    ) {
        if self.waiting.is_empty() && ticket <= broker.durable() {
            return answer.encode(version, out);
        }
        let promise = Promise {
            ticket,
            message: message.cloned(),
            answer,
        };
        if self.waiting.is_empty() && promise.is_kept(Ticket::default()) {
            return promise.answer.encode(version, out);
        }
        self.waiting.push_back(promise);
    }

    /// Moves what need not wait any more to `out`, and has `waker` woken for the next.
    ///
    /// # Errors
    /// When the store has failed: what waits will never be true.
    pub(super) fn release(
        &mut self,
        broker: &Broker,
        version: Version,
        out: &mut Outbox,
        waker: &Waker,
    ) -> Result<(), Closing> {
        let mut durable = broker.durable();
        let mut watching = false;
        while let Some(promise) = self.waiting.front() {
            if promise.is_kept(durable) {
                promise.answer.encode(version, out);
                self.waiting.pop_front();
                continue;
            }
            if promise.message.is_some() && !watching {
                self.bell().watch(waker);
                watching = true;
                // It may have rung before.
                continue;
            }
            if self.watched > durable && !broker.store().failed() {
                // What was asked for earlier comes first.
                return Ok(());
            }
            match broker.store().register(promise.ticket, waker) {
                Waiting::Durable => durable = broker.durable(),
                Waiting::Registered => {
                    self.watched = promise.ticket;
                    return Ok(());
                }
                Waiting::Failed(_) => return Err(Closing::StoreFailed),
            }
        }
        if self.waiting.capacity() > 64 {
            self.waiting = VecDeque::new();
        }
        Ok(())
    }
}
