//! Shared Subscriptions: groups of which one member receives each message.

use std::sync::Arc;

use parking_lot::Mutex;
use tidings_protocol::mqtt::QoS;

use super::session::Readiness;
use super::topics::{Subscribed, Subscriber};

/// The members of one ShareName on one Topic Filter [MQTT-4.8.2-1].
pub struct Group {
    share_name: Box<str>,
    filter: Box<str>,
    tag: u8,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    list: Vec<Subscriber>,
    /// Whose turn it is.
    next: usize,
}

impl Group {
    /// A group without members.
    pub fn new(share_name: &str, filter: &str) -> Group {
        Group {
            share_name: share_name.into(),
            filter: filter.into(),
            tag: tag(share_name, filter),
            members: Mutex::default(),
        }
    }

    /// The ShareName.
    pub fn share_name(&self) -> &str {
        &self.share_name
    }

    /// The Topic Filter, without `$share/` and the ShareName.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// A number from 1 to [`TAG_MAX`] by which a queue entry in the store remembers it: different
    /// for most groups that a session is in, and the same after a restart.
    pub fn tag(&self) -> u8 {
        self.tag
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.lock().list.is_empty()
    }

    /// Adds a member, or changes its subscription.
    pub fn join(&self, subscriber: Subscriber) -> Subscribed {
        let mut members = self.members.lock();
        let number = subscriber.session.number();
        match members
            .list
            .iter_mut()
            .find(|member| member.session.number() == number)
        {
            Some(member) => {
                *member = subscriber;
                Subscribed::Replaced
            }
            None => {
                members.list.push(subscriber);
                Subscribed::New
            }
        }
    }

    /// Takes a member out; false if it was none.
    pub fn leave(&self, session: u64) -> bool {
        let mut members = self.members.lock();
        let Some(at) = members
            .list
            .iter()
            .position(|member| member.session.number() == session)
        else {
            return false;
        };
        members.list.remove(at);
        if members.next > at {
            members.next -= 1;
        }
        true
    }

    /// Chooses who receives the next message, in turn among those who can take it best: first
    /// those who are connected and have room, then those who are connected, then, for what can be
    /// queued, those who are absent. `allowed` says who may receive it at all.
    pub fn choose(
        &self,
        qos: QoS,
        queue_qos0: bool,
        allowed: impl Fn(&Subscriber) -> bool,
    ) -> Option<Subscriber> {
        let mut members = self.members.lock();
        let count = members.list.len();
        let mut best: Option<(Readiness, usize)> = None;
        for step in 0..count {
            let at = (members.next + step) % count;
            let member = &members.list[at];
            let readiness = member.session.readiness();
            let takes = match readiness {
                Readiness::Ready | Readiness::Busy => true,
                Readiness::Absent => queue_qos0 || qos.min(member.terms.qos) != QoS::AtMostOnce,
                Readiness::Ended => false,
            };
            if !takes || best.is_some_and(|(best, _)| best <= readiness) || !allowed(member) {
                continue;
            }
            best = Some((readiness, at));
            if readiness == Readiness::Ready {
                break;
            }
        }
        let (_, at) = best?;
        members.next = (at + 1) % count;
        Some(members.list[at].clone())
    }

    /// The members, for those who look from outside.
    pub fn members(&self) -> Vec<Subscriber> {
        self.members.lock().list.clone()
    }
}

/// The highest [`Group::tag`].
pub const TAG_MAX: u8 = 31;

/// FNV-1a, which must not change: the store has its results.
fn tag(share_name: &str, filter: &str) -> u8 {
    let bytes = share_name.bytes().chain([b'/']).chain(filter.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash % u32::from(TAG_MAX)) as u8 + 1
}

/// A queue entry's reference to the group it came through, so that another member can have the
/// message when the session ends before it acknowledged it.
pub type Origin = Arc<Group>;
