//! What a connection does with its session, a few times per turn of its task: take what waits to
//! be written, hand in acknowledgements, remember and release the QoS 2 messages it received.

use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::mqtt::PacketId;

use super::Broker;
use super::deliver::{Stop, pump};
use super::message::Message;
use super::outbox::Outbox;
use super::outgoing::Acknowledgement;
use super::session::{Closing, Link, Session, State};
use crate::access::Principal;
use crate::store::{self, List, Record, Ticket};

/// What became of a QoS 2 PUBLISH before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is new: route it.
    New,
    /// Its Packet Identifier is not released: it was routed before [MQTT-4.3.3-10].
    Duplicate,
    /// More than Receive Maximum are not released [MQTT-3.3.4-8].
    TooMany,
}

/// What is left to send once what was collected is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// More messages than fit in an outbox: collect again.
    pub messages: bool,
    /// Retained Messages: see [`Broker::replay`].
    pub replays: bool,
    /// Subscriptions that read a stream: see [`Broker::pull`].
    pub readings: bool,
    /// Messages have to be read back first: see [`Broker::load_page`], which has to be called for
    /// each time that this is true, from where waiting for the disk is allowed.
    pub page: bool,
}

impl Broker {
    /// Moves what waits for this connection to `out`, and remembers whom to wake for more.
    ///
    /// # Errors
    /// Why the connection must end; what waits was moved all the same.
    pub fn collect(
        &self,
        session: &Session,
        epoch: u64,
        out: &mut Outbox,
        waker: &Waker,
    ) -> Result<Waiting, Closing> {
        let mut state = session.lock();
        if state.link_of(epoch).is_none() {
            return Err(Closing::TakenOver);
        }
        let mut stop = Stop::Empty;
        if state.outgoing.has_waiting() {
            stop = pump(&mut state, &mut self.batch().context());
            session.refresh_readiness(&state);
        }
        self.keep_progress(session, &mut state);
        let more = match stop {
            Stop::Empty | Stop::Receiver | Stop::Page => false,
            Stop::Outbox => true,
            Stop::Hold(ticket) => self.watch_store(ticket, waker),
        };
        let State {
            link,
            outgoing,
            replays,
            readings,
            loading,
            ..
        } = &mut *state;
        let Some(link) = link else {
            return Err(Closing::TakenOver);
        };
        if outgoing.finished().is_some() {
            // Its receiver was faster than its publisher's batch, which is over in a moment.
            waker.wake_by_ref();
        }
        let wants_page =
            outgoing.wants_page() || readings.iter().any(|reading| reading.wants_page());
        let page = !*loading && link.closing.is_none() && wants_page;
        *loading |= page;
        let waiting = Waiting {
            messages: more,
            replays: !replays.is_empty(),
            readings: !readings.is_empty(),
            page,
        };
        if !link.outbox.is_empty() {
            out.append(&mut link.outbox);
            link.outbox_messages = 0;
        }
        link.blocked = false;
        match link.closing {
            Some(why) => Err(why),
            None => {
                link.watch(waker);
                Ok(waiting)
            }
        }
    }

    /// Has a task woken once the store has this ticket; true if it has it already.
    fn watch_store(&self, ticket: Ticket, waker: &Waker) -> bool {
        if ticket == Message::NOT_KEPT {
            // Its batch will be over in a moment, and then there is a ticket. Nobody else would
            // say so to a task that was awake when the message came.
            if !self.store.failed() {
                waker.wake_by_ref();
            }
            return false;
        }
        matches!(self.store.register(ticket, waker), store::Waiting::Durable)
    }

    /// Remembers whom to wake when this connection must end, and for nothing else: its client does
    /// not take what it has already.
    ///
    /// # Errors
    /// Why the connection must end.
    pub fn watch(&self, session: &Session, epoch: u64, waker: &Waker) -> Result<(), Closing> {
        let mut state = session.lock();
        let link = state.link_of(epoch).ok_or(Closing::TakenOver)?;
        link.blocked = true;
        match link.closing {
            Some(why) => Err(why),
            None => {
                link.watch(waker);
                Ok(())
            }
        }
    }

    /// Takes in acknowledgements, in the order in which they came, and sends what they make room
    /// for. `unknown` receives the positions of those that fit nothing in flight. The ticket is
    /// for answers, which have to wait until the store has it.
    pub fn acknowledge(
        &self,
        session: &Session,
        epoch: u64,
        acknowledgements: &[(Acknowledgement, PacketId)],
        unknown: &mut Vec<usize>,
    ) -> Ticket {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Ticket::default();
        }
        state.change_queue(&self.stats, |queue| {
            for (index, &(what, id)) in acknowledgements.iter().enumerate() {
                if queue.acknowledge(what, id).is_err() {
                    unknown.push(index);
                }
            }
        });
        if state.outgoing.has_waiting() {
            pump(&mut state, &mut self.batch().context());
        }
        session.refresh_readiness(&state);
        self.keep_progress(session, &mut state)
    }

    /// The place of a message that is in flight to this connection, for [`Broker::acknowledge_to`].
    pub fn sequence_of(&self, session: &Session, epoch: u64, id: PacketId) -> Option<u64> {
        let state = session.lock();
        let sequence = state.outgoing.sequence_of(id)?;
        (state.epoch == epoch).then_some(sequence)
    }

    /// Whether messages wait for the client's acknowledgements.
    pub fn is_held_up(&self, session: &Session, epoch: u64) -> bool {
        let state = session.lock();
        let link = state.link.as_deref().filter(|_| state.epoch == epoch);
        link.is_some_and(|link| state.outgoing.is_held_up(link.receive_maximum))
    }

    /// Takes in that the client has every message up to this one, of this connection or of one before
    /// it. Answers how many were not acknowledged before, and the ticket that an answer has to wait
    /// for.
    pub fn acknowledge_to(&self, session: &Session, epoch: u64, sequence: u64) -> (usize, Ticket) {
        let mut state = session.lock();
        if state.epoch != epoch {
            return (0, Ticket::default());
        }
        self.acknowledge_locked(session, &mut state, sequence)
    }

    fn acknowledge_locked(
        &self,
        session: &Session,
        state: &mut State,
        sequence: u64,
    ) -> (usize, Ticket) {
        let acknowledged = state.change_queue(&self.stats, |queue| queue.acknowledge_to(sequence));
        let mut batch = self.batch();
        let mut cx = batch.context();
        if state.outgoing.has_waiting() {
            pump(state, &mut cx);
        }
        let ticket = self.keep_progress(session, state);
        // Perhaps not its own connection's task that says so.
        session.after_delivery(state, &mut cx);
        (acknowledged, ticket)
    }

    /// The same from outside of the connection that has the session: by its Client Identifier and its
    /// number, for its owner. None if there is no such session.
    pub fn acknowledge_for(
        &self,
        principal: &Principal,
        client_id: &str,
        number: u64,
        sequence: u64,
    ) -> Option<(usize, Ticket)> {
        let session = self.session_of(principal, client_id)?;
        let mut state = session.lock();
        let is_same = !state.ended && session.number() == number;
        is_same.then(|| self.acknowledge_locked(&session, &mut state, sequence))
    }

    /// The session with this Client Identifier, if this principal may have it.
    pub fn session_of(&self, principal: &Principal, client_id: &str) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.sessions.get(client_id)?);
        let state = session.lock();
        let is_there = !state.ended && state.may_be_opened_by(principal);
        drop(state);
        is_there.then_some(session)
    }

    /// Notes a QoS 2 PUBLISH of which at most `maximum` may be unreleased at a time.
    pub fn receive(
        &self,
        session: &Session,
        epoch: u64,
        id: PacketId,
        maximum: u16,
    ) -> Result<Received, Closing> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(Closing::TakenOver);
        }
        if state.received.contains(&id.get()) {
            return Ok(Received::Duplicate);
        }
        if state.received.len() >= usize::from(maximum) {
            return Ok(Received::TooMany);
        }
        state.received.insert(id.get());
        Ok(Received::New)
    }

    /// Releases a QoS 2 message with PUBREL, or because its PUBLISH was refused: none if its
    /// Packet Identifier is unknown, otherwise the ticket that PUBCOMP has to wait for.
    pub fn release(&self, session: &Arc<Session>, epoch: u64, id: PacketId) -> Option<Ticket> {
        let mut state = session.lock();
        let known = state.epoch == epoch && state.received.remove(&id.get());
        if known && state.received.is_empty() {
            state.received.shrink_to_fit();
        }
        if !known {
            return None;
        }
        if !state.kept {
            return Some(Ticket::default());
        }
        let packet_ids = [id.get()];
        Some(self.keep(&[Record::InboundReleased {
            session: session.number(),
            packet_ids: List::from(&packet_ids[..]),
        }]))
    }
}

impl Link {
    fn watch(&mut self, waker: &Waker) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            self.waker = Some(waker.clone());
        }
    }
}
