//! The subscription table: filters without wildcards by hash, the others in the trie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::RwLock;
use tidings_protocol::topic;

use super::matched::{Collector, Matched};
use super::set::{Subscriber, SubscriberSet};
use super::trie::Trie;
use crate::broker::shared::Group;

/// What a subscription was before it was made.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Subscribed {
    /// The session had none for this filter.
    New,
    /// It replaced the session's subscription to the same filter [MQTT-3.8.4-3].
    Replaced,
}

/// All subscriptions of all sessions.
#[derive(Default)]
pub struct SubscriptionTable {
    filters: RwLock<Filters>,
    generation: AtomicU64,
}

#[derive(Default)]
struct Filters {
    exact: HashMap<Arc<str>, SubscriberSet, RandomState>,
    wildcard: Trie,
    /// How many plain subscriptions and memberships of groups there are.
    count: usize,
}

impl Filters {
    fn entry(&mut self, filter: &Arc<str>) -> &mut SubscriberSet {
        if topic::has_wildcard(filter) {
            self.wildcard.entry(filter)
        } else {
            self.exact.entry(Arc::clone(filter)).or_default()
        }
    }

    /// Calls `change` with the subscribers of `filter`, then tidies up if nobody is left.
    fn change<T>(
        &mut self,
        filter: &Arc<str>,
        change: impl FnOnce(&mut SubscriberSet) -> T,
    ) -> Option<T> {
        if topic::has_wildcard(filter) {
            let set = self.wildcard.get_mut(filter)?;
            let result = change(set);
            if set.is_empty() {
                self.wildcard.prune(filter);
            }
            Some(result)
        } else {
            let Entry::Occupied(mut entry) = self.exact.entry(Arc::clone(filter)) else {
                return None;
            };
            let result = change(entry.get_mut());
            if entry.get().is_empty() {
                entry.remove();
            }
            Some(result)
        }
    }
}

impl SubscriptionTable {
    /// The number that changes with every subscription made or taken away.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes everything that was looked up before stale: rights have changed.
    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How many subscriptions there are.
    pub fn count(&self) -> usize {
        self.filters.read().count
    }

    /// Subscribes a session to `filter`, or changes its subscription.
    ///
    /// `replaces` says whether the session has a subscription to this filter already, which it
    /// knows itself; so a filter with many subscribers need not be searched.
    pub fn subscribe(&self, filter: &Arc<str>, subscriber: Subscriber, replaces: bool) {
        let mut filters = self.filters.write();
        let set = filters.entry(filter);
        if !(replaces && set.replace(&subscriber)) {
            set.add(subscriber);
            filters.count += 1;
        }
        self.invalidate();
    }

    /// Makes a session a member of a Shared Subscription, or changes its membership.
    /// The subscriber is made knowing its group.
    pub fn join(
        &self,
        share: &str,
        filter: &Arc<str>,
        subscriber: impl FnOnce(Arc<Group>) -> Subscriber,
    ) -> Subscribed {
        let mut filters = self.filters.write();
        let group = filters.entry(filter).group(share, filter);
        let joined = group.join(subscriber(Arc::clone(&group)));
        if joined == Subscribed::New {
            filters.count += 1;
        }
        self.invalidate();
        joined
    }

    /// Ends a session's subscription to `filter`; false if there was none.
    pub fn unsubscribe(&self, filter: &Arc<str>, session: u64) -> bool {
        let mut filters = self.filters.write();
        let removed = filters
            .change(filter, |set| set.remove(session))
            .unwrap_or(false);
        if removed {
            filters.count -= 1;
            self.invalidate();
        }
        removed
    }

    /// Ends a session's membership of a Shared Subscription; false if there was none.
    pub fn leave(&self, share: &str, filter: &Arc<str>, session: u64) -> bool {
        let mut filters = self.filters.write();
        let left = filters
            .change(filter, |set| {
                let left = set
                    .find_group(share)
                    .is_some_and(|group| group.leave(session));
                set.remove_group_if_empty(share);
                left
            })
            .unwrap_or(false);
        if left {
            filters.count -= 1;
            self.invalidate();
        }
        left
    }

    /// The group of a Shared Subscription.
    pub fn group(&self, share: &str, filter: &str) -> Option<Arc<Group>> {
        let mut filters = self.filters.write();
        let set = if topic::has_wildcard(filter) {
            filters.wildcard.get_mut(filter).map(|set| &*set)
        } else {
            filters.exact.get(filter)
        };
        set?.find_group(share).map(Arc::clone)
    }

    /// Everybody who is subscribed to `topic`, each session once.
    pub fn matches(&self, topic: &str) -> Matched {
        let filters = self.filters.read();
        let generation = self.generation();
        let mut collector = Collector::default();
        if let Some(set) = filters.exact.get(topic) {
            collector.add(set);
        }
        filters.wildcard.matches(topic, |set| collector.add(set));
        drop(filters);
        collector.finish(topic, generation)
    }

    /// Nodes of the trie in use.
    #[cfg(test)]
    pub fn node_count(&self) -> usize {
        self.filters.read().wildcard.node_count()
    }
}
