//! Deadlines of sessions: silence, expiry, delayed wills.
//!
//! One heap for all of them, looked at by one task: a connection has no timer of its own. A
//! deadline that is no longer true when it comes (the client was heard, the session was resumed)
//! is recognised by its epoch or set again; nothing is ever cancelled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use super::Broker;
use super::clock::Millis;
use super::session::{Closing, Session};
use crate::store::Record;

/// Retained Messages looked at in one tick for those that have expired.
const RETAINED_LOOKED_AT: usize = 1000;

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection must have been heard.
    Silence,
    /// The session ends if it has no connection.
    Expiry,
    /// The will is published if the session has no connection.
    Will,
    /// What the session acknowledged is kept; it was too early for that when its connection ended.
    Progress,
}

struct Timer {
    due: Millis,
    session: Weak<Session>,
    epoch: u64,
    kind: Kind,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.due == other.due
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Timer) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

/// All deadlines, the earliest first.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        if self.heap.peek()?.0.due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }
}

impl Broker {
    /// Sets a deadline for a session while it is in this epoch.
    pub(super) fn arm(&self, due: Millis, session: &Arc<Session>, epoch: u64, kind: Kind) {
        self.timers.lock().heap.push(Reverse(Timer {
            due,
            session: Arc::downgrade(session),
            epoch,
            kind,
        }));
    }

    /// Advances the clock and does what has become due. Called a few times a second.
    pub fn tick(&self) {
        let now = self.clock.advance();
        let mut early = Vec::new();
        loop {
            let Some(timer) = self.timers.lock().pop_due(now) else {
                break;
            };
            let Some(session) = timer.session.upgrade() else {
                continue;
            };
            match timer.kind {
                Kind::Silence => self.silence(&session, timer.epoch, now),
                Kind::Expiry => self.expire(&session, timer.epoch),
                Kind::Will => self.will_due(&session, timer.epoch),
                Kind::Progress => early.push(session),
            }
        }
        // Not in the loop: what is still too early now is due again at once.
        for session in early {
            self.keep_rest(&session);
        }
        self.expire_retained(now);
    }

    /// Forgets some of the Retained Messages whose Message Expiry Interval has run out.
    fn expire_retained(&self, now: Millis) {
        let mut after = self.retained_looked_at.lock();
        let mut expired = Vec::new();
        *after =
            self.retained
                .find_expired(after.as_deref(), RETAINED_LOOKED_AT, now, &mut expired);
        drop(after);
        for topic in &expired {
            // Another one may be set meanwhile: forgetting it here and in the store is one step.
            let _together = self.stripe(&self.topics, topic);
            let message = self.retained.get(topic);
            if message.is_some_and(|message| message.is_expired(now)) {
                self.retained.clear(topic);
                self.keep(&[Record::RetainedClear { topic }]);
            }
        }
    }

    /// Ends a connection that was silent for too long [MQTT-3.1.2-22], or sets the deadline anew.
    fn silence(&self, session: &Arc<Session>, epoch: u64, now: Millis) {
        let mut state = session.lock();
        let Some(link) = state.link_of(epoch) else {
            return;
        };
        let due = session.heard_at().plus_millis(link.silence_max);
        if due > now {
            self.arm(due, session, epoch, Kind::Silence);
        } else if let Some(waker) = link.close(Closing::KeepAliveTimeout) {
            waker.wake();
        }
    }
}
