//! The subscribers of one Topic Filter.

use std::sync::Arc;

use tidings_protocol::mqtt::QoS;

use crate::broker::outgoing::Through;
use crate::broker::session::Session;
use crate::broker::shared::Group;

/// One session's subscription to one filter, as matching needs it.
#[derive(Clone)]
pub struct Subscriber {
    /// Who subscribed.
    pub session: Arc<Session>,
    /// How it receives what matches.
    pub terms: Terms,
    /// No Local [MQTT-3.8.3-3].
    pub no_local: bool,
}

/// How a session receives what matches: what its subscriptions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The QoS granted.
    pub qos: QoS,
    /// Retain As Published [MQTT-3.3.1-12].
    pub retain_as_published: bool,
    /// What has to be known of the subscription as long as a message is on its way.
    pub through: Option<Arc<Through>>,
}

impl Terms {
    /// The Subscription Identifiers to send along.
    pub fn identifiers(&self) -> Option<&Arc<[u32]>> {
        self.through.as_ref()?.identifiers.as_ref()
    }

    /// The Shared Subscription it came through.
    pub fn group(&self) -> Option<&Arc<Group>> {
        Some(&self.through.as_ref()?.group.as_ref()?.0)
    }
}

/// Subscribers of one filter: plain ones, and Shared Subscriptions by their group.
///
/// Most filters have one subscriber, so that case needs no allocation of its own.
#[derive(Default)]
pub struct SubscriberSet {
    plain: Plain,
    groups: Vec<Arc<Group>>,
}

#[derive(Default)]
enum Plain {
    #[default]
    None,
    One(Subscriber),
    Many(Vec<Subscriber>),
}

impl SubscriberSet {
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        matches!(self.plain, Plain::None) && self.groups.is_empty()
    }

    /// The plain subscribers.
    pub fn plain(&self) -> &[Subscriber] {
        match &self.plain {
            Plain::None => &[],
            Plain::One(one) => std::slice::from_ref(one),
            Plain::Many(many) => many,
        }
    }

    /// The Shared Subscriptions of this filter.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The group with this ShareName, made if it is not there.
    pub fn group(&mut self, share: &str, filter: &str) -> Arc<Group> {
        if let Some(group) = self.groups.iter().find(|group| group.share_name() == share) {
            return Arc::clone(group);
        }
        let group = Arc::new(Group::new(share, filter));
        self.groups.push(Arc::clone(&group));
        group
    }

    /// Takes out the group with this ShareName if it has no member left.
    pub fn remove_group_if_empty(&mut self, share: &str) {
        self.groups
            .retain(|group| group.share_name() != share || !group.is_empty());
        if self.groups.is_empty() {
            self.groups.shrink_to_fit();
        }
    }

    /// The group with this ShareName.
    pub fn find_group(&self, share: &str) -> Option<&Arc<Group>> {
        self.groups.iter().find(|group| group.share_name() == share)
    }

    /// Adds a subscriber that is known not to be in the set.
    pub fn add(&mut self, subscriber: Subscriber) {
        self.plain = match std::mem::take(&mut self.plain) {
            Plain::None => Plain::One(subscriber),
            Plain::One(first) => Plain::Many(vec![first, subscriber]),
            Plain::Many(mut many) => {
                many.push(subscriber);
                Plain::Many(many)
            }
        };
    }

    /// Replaces the subscription of the same session [MQTT-3.8.4-3]; false if it has none.
    pub fn replace(&mut self, subscriber: &Subscriber) -> bool {
        let present = match &mut self.plain {
            Plain::None => &mut [],
            Plain::One(one) => std::slice::from_mut(one),
            Plain::Many(many) => many.as_mut_slice(),
        };
        let same = present
            .iter_mut()
            .find(|present| present.session.number() == subscriber.session.number());
        match same {
            Some(same) => {
                *same = subscriber.clone();
                true
            }
            None => false,
        }
    }

    /// Takes a session's subscription out; false if it has none.
    pub fn remove(&mut self, session: u64) -> bool {
        match &mut self.plain {
            Plain::None => false,
            Plain::One(one) => {
                let found = one.session.number() == session;
                if found {
                    self.plain = Plain::None;
                }
                found
            }
            Plain::Many(many) => {
                let Some(at) = many.iter().position(|s| s.session.number() == session) else {
                    return false;
                };
                many.swap_remove(at);
                if let [last] = many.as_slice() {
                    self.plain = Plain::One(last.clone());
                } else if many.len() * 4 < many.capacity() {
                    many.shrink_to(many.len() * 2);
                }
                true
            }
        }
    }
}
