//! Closing: a connection that ends, a session that ends, and the whole broker that stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use tidings_protocol::mqtt::QoS;

use super::Broker;
use super::outgoing::Slot;
use super::publish::Batch;
use super::session::{Closing, NEVER, Session, State};
use super::shared::Group;
use super::stats::Drop as Reason;
use super::subscribe::parse_held;
use super::timers::Kind;
use super::will::Will;
use crate::access::Principal;
use crate::store::Record;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client said goodbye with DISCONNECT.
    Goodbye {
        /// It asked for its will to be published (Reason Code 0x04) [MQTT-3.14.4-3].
        with_will: bool,
        /// The Session Expiry Interval it changed to, within the server's maximum.
        expiry_secs: Option<u32>,
    },
    /// Anything else: the network, the Keep Alive, an error of either side. The will is published.
    Lost,
}

/// A will that is to be published now, and on whose behalf.
pub struct DueWill {
    pub(super) principal: Principal,
    pub(super) will: Box<Will>,
}

impl State {
    /// Takes the will out.
    pub(super) fn take_will(&mut self) -> Option<DueWill> {
        self.will.take().map(|will| DueWill {
            principal: self.principal.clone(),
            will,
        })
    }
}

impl Broker {
    /// Ends a connection. Does nothing if another one has taken the session over.
    pub fn close(&self, session: &Arc<Session>, epoch: u64, ending: Ending) {
        // Expiry and delays count from here, and must not end early because the clock is behind.
        let now = self.clock.advance();
        let mut batch = self.batch();
        let mut state = session.lock();
        if state.epoch != epoch || !self.disconnect(session, &mut state) {
            return;
        }
        state.link = None;
        session.refresh_readiness(&state);
        if let Ending::Goodbye {
            with_will,
            expiry_secs,
        } = ending
        {
            if !with_will {
                // [MQTT-3.1.2-10]: a normal DISCONNECT discards the will.
                state.will = None;
            }
            if let Some(expiry_secs) = expiry_secs {
                state.expiry_secs = expiry_secs;
            }
        }
        if !state.is_persistent() {
            let will = state.take_will();
            self.end(session, state, will, &mut batch);
            return;
        }
        if state.expiry_secs != NEVER {
            let due = now.plus_secs(u64::from(state.expiry_secs));
            self.arm(due, session, state.epoch, Kind::Expiry);
        }
        let delay = state.will.as_ref().map_or(0, |will| will.delay_secs);
        if delay > 0 && self.delayed_wills.load(Ordering::Relaxed) < self.limits.wills_max as u64 {
            // A session that ends earlier has its will published then [MQTT-3.1.3-9].
            let due = now.plus_secs(u64::from(delay));
            state.will_due = Some(due);
            self.delayed_wills.fetch_add(1, Ordering::Relaxed);
            self.arm(due, session, state.epoch, Kind::Will);
            self.keep_session(session, &mut state);
            drop(state);
        } else {
            let will = state.take_will();
            self.publish_will_of(session, state, will, &mut batch);
        }
        self.keep_rest(session);
    }

    /// Publishes a will, and then keeps that its session has none any more: a crash between the
    /// two has it published again rather than not at all.
    fn publish_will_of(
        &self,
        session: &Session,
        state: MutexGuard<'_, State>,
        will: Option<DueWill>,
        batch: &mut Batch<'_>,
    ) {
        let epoch = state.epoch;
        drop(state);
        batch.publish_will(will);
        let mut state = session.lock();
        // Whoever connected meanwhile has kept the session as it is now.
        if state.epoch == epoch && !state.ended {
            self.keep_session(session, &mut state);
        }
    }

    /// Keeps what a session without a connection has acknowledged, now or as soon as the messages
    /// are in the log.
    pub(super) fn keep_rest(&self, session: &Arc<Session>) {
        let mut state = session.lock();
        self.keep_progress(session, &mut state);
        if state.link.is_none() && state.outgoing.finished().is_some() {
            self.arm(self.clock.now(), session, state.epoch, Kind::Progress);
        }
    }

    /// What every end of a connection has in common; false if there was none.
    pub(super) fn disconnect(&self, session: &Session, state: &mut State) -> bool {
        let Some(link) = &mut state.link else {
            return false;
        };
        // They find it gone once the lock is released.
        for successor in link.successors.drain(..) {
            successor.wake();
        }
        state.epoch += 1;
        let durable = self.store.durable();
        state.change_queue(&self.stats, |queue| {
            queue.restart();
            queue.spill(durable);
        });
        for reading in &state.readings {
            reading.rest();
        }
        state.disconnected_at = Some(self.clock.now());
        self.stats.clients_connected.sub(1);
        tracing::debug!(client = %session.client_id(), "disconnected");
        true
    }

    /// Ends a session: its subscriptions, its queue and its name are gone.
    ///
    /// Messages that it had from Shared Subscriptions go to other members, unless they are of
    /// QoS 2 and their delivery had begun. `will` is published. The answer is the ticket with which
    /// the store has it that the session is gone.
    pub(super) fn end(
        &self,
        session: &Arc<Session>,
        mut state: MutexGuard<'_, State>,
        will: Option<DueWill>,
        batch: &mut Batch<'_>,
    ) {
        if state.ended {
            return;
        }
        state.ended = true;
        self.take_all_places(session, &mut state);
        let subscriptions = std::mem::take(&mut state.subscriptions);
        let groups = self.groups_of(subscriptions.keys().map(|filter| &**filter));
        for filter in subscriptions.keys() {
            self.let_go(session.number(), &parse_held(filter));
        }
        state.replays.clear();
        state.readings.clear();
        state.received.clear();
        if state.will_due.take().is_some() {
            self.delayed_wills.fetch_sub(1, Ordering::Relaxed);
        }
        let left: Vec<Slot> = state.change_queue(&self.stats, |queue| queue.take_all().collect());
        session.refresh_readiness(&state);
        let (recorded, kept) = (state.recorded, state.kept);
        drop(state);
        self.sessions
            .remove_if(session.client_id(), |_, known| Arc::ptr_eq(known, session));
        leave_behind(left, &groups, kept, batch);
        batch.publish_will(will);
        if !recorded {
            return;
        }
        // Last: until then the messages that went to others are needed by this session, and the
        // will would be lost with it.
        let gone = self.keep(&[Record::SessionRemove {
            session: session.number(),
        }]);
        if gone != Broker::NEVER_KEPT {
            self.ended[self.stripe_of(session.client_id())].fetch_max(gone.0, Ordering::Relaxed);
        }
    }

    /// Publishes a will whose delay has passed.
    pub(super) fn will_due(&self, session: &Arc<Session>, epoch: u64) {
        let mut batch = self.batch();
        let mut state = session.lock();
        if state.epoch == epoch && state.will_due.take().is_some() {
            self.delayed_wills.fetch_sub(1, Ordering::Relaxed);
            let will = state.take_will();
            self.publish_will_of(session, state, will, &mut batch);
        }
    }

    /// Ends a session whose expiry interval has passed without a connection.
    pub(super) fn expire(&self, session: &Arc<Session>, epoch: u64) {
        let mut batch = self.batch();
        let mut state = session.lock();
        if state.epoch == epoch && state.link.is_none() {
            let will = state.take_will();
            self.end(session, state, will, &mut batch);
        }
    }

    /// Has every connection end, each with the word its protocol has for it.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Whoever was opening a session when the flag was set is done once its stripe is free.
        for stripe in &self.connecting {
            drop(stripe.lock());
        }
        let sessions: Vec<Arc<Session>> = self
            .sessions
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect();
        for session in sessions {
            let waker = session
                .lock()
                .link
                .as_mut()
                .and_then(|link| link.close(Closing::ShuttingDown));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// What becomes of the messages that a session has when it ends: they go to other members of the
/// Shared Subscriptions that they came through, or are counted. `groups` are those that the session
/// was in; `kept` says whether the store has its queue still.
pub(super) fn leave_behind(
    left: Vec<Slot>,
    groups: &[Arc<Group>],
    kept: bool,
    batch: &mut Batch<'_>,
) {
    // One of QoS 2 that was sent may have been received: nobody else may get it [MQTT-4.8.2-5].
    let is_shared = |slot: &Slot| {
        let in_delivery = slot.qos == QoS::ExactlyOnce && slot.dup();
        slot.through.as_ref().is_some_and(|t| t.is_shared()) && !in_delivery
    };
    let (shared, own): (Vec<Slot>, Vec<Slot>) = left.into_iter().partition(is_shared);
    batch.refused(Reason::SessionEnded, own.len() as u64);
    batch.pass_on(shared, groups, kept);
}
