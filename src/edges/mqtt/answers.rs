//! Answers that may have to wait: what they promise has to be in the store first.
//!
//! They leave in the order in which they were given [MQTT-4.6.0-2] [MQTT-4.6.0-3]
//! [MQTT-4.6.0-4], so one that waits holds up those behind it. Deliveries do not wait with them.

use std::collections::VecDeque;
use std::task::Waker;

use tidings_protocol::mqtt::{Ack, AckKind, PacketId, ReasonCode, Version};

use crate::broker::Broker;
use crate::broker::outbox::Outbox;
use crate::broker::session::Closing;
use crate::store::{Ticket, Waiting};

/// Answers waiting at which nothing more is read from the client.
pub(super) const WAITING_MAX: usize = 16 * 1024;

/// The answers of one connection that wait.
#[derive(Default)]
pub(super) struct Answers {
    waiting: VecDeque<(Ticket, Answer)>,
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
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives an answer, at once if what it promises is durable and none waits before it.
    pub(super) fn give(
        &mut self,
        answer: Answer,
        ticket: Ticket,
        broker: &Broker,
        version: Version,
        out: &mut Outbox,
    ) {
        if self.waiting.is_empty() && ticket <= broker.durable() {
            answer.encode(version, out);
        } else {
            self.waiting.push_back((ticket, answer));
        }
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
        while let Some((ticket, answer)) = self.waiting.front() {
            if *ticket > durable {
                match broker.store().register(*ticket, waker) {
                    Waiting::Durable => durable = broker.durable(),
                    Waiting::Registered => return Ok(()),
                    Waiting::Failed(_) => return Err(Closing::StoreFailed),
                }
                continue;
            }
            answer.encode(version, out);
            self.waiting.pop_front();
        }
        if self.waiting.capacity() > 64 {
            self.waiting = VecDeque::new();
        }
        Ok(())
    }
}
