//! Changed rights: what happens to sessions when users and rules are read again, or a client proves
//! anew who it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use super::session::{Closing, Session, State};
use super::stats::Drop as Reason;
use super::subscribe::parse_held;
use crate::access::{Access, Principal};
use crate::store::Record;

impl Broker {
    /// Changes whenever rights of sessions may have changed.
    pub fn rights_generation(&self) -> u64 {
        self.rights.load(Ordering::Acquire)
    }

    /// Whom a session belongs to, as its connection of this epoch sees it.
    pub fn principal(&self, session: &Session, epoch: u64) -> Option<Principal> {
        let state = session.lock();
        (state.epoch == epoch).then(|| state.principal.clone())
    }

    /// Gives a session's connection other rights of the same user.
    pub fn change_principal(&self, session: &Arc<Session>, epoch: u64, principal: &Principal) {
        let mut state = session.lock();
        if state.epoch == epoch {
            self.restrict(session, &mut state, principal.clone());
        }
    }

    /// Brings all sessions up to date after users and rules were read again: subscriptions and
    /// queued messages that are no longer allowed are taken away, connections of users who are
    /// gone are ended.
    pub fn renew_rights(&self, access: &Access) {
        let sessions: Vec<Arc<Session>> = self
            .sessions
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect();
        for session in sessions {
            let mut state = session.lock();
            if state.ended {
                continue;
            }
            match access.renew(&state.principal) {
                Ok(principal) => self.restrict(&session, &mut state, principal),
                Err(_) => match &mut state.link {
                    Some(link) => {
                        if let Some(waker) = link.close(Closing::NotAuthorized) {
                            waker.wake();
                        }
                    }
                    None => {
                        let mut batch = self.batch();
                        self.end(&session, state, None, &mut batch);
                    }
                },
            }
        }
        self.rights.fetch_add(1, Ordering::Release);
        self.table.invalidate();
    }

    fn restrict(&self, session: &Arc<Session>, state: &mut State, principal: Principal) {
        let kept = state.kept;
        state.subscriptions.retain(|filter, _| {
            let allowed = principal.may_subscribe(filter);
            if !allowed {
                let parsed = parse_held(filter);
                self.let_go(session.number(), &parsed);
                if kept {
                    let session = session.number();
                    self.keep(&[Record::Unsubscribe { session, filter }]);
                }
            }
            allowed
        });
        state
            .replays
            .retain(|replay| principal.may_subscribe(replay.filter()));
        state
            .readings
            .retain(|reading| principal.may_subscribe(reading.written()));
        let dropped = state.change_queue(&self.stats, |queue| {
            queue.drop_waiting(|message| !principal.may_receive(message.topic()))
        });
        self.stats.dropped(Reason::ReceiveDenied, dropped);
        self.keep_progress(session, state);
        if session.receive_as(&principal) {
            self.table.invalidate();
        }
        state.principal = principal;
    }
}
