//! The answer of a lookup: whom a message goes to, each session once.

use std::sync::Arc;

use super::set::{Subscriber, SubscriberSet, Terms};
use crate::broker::endpoint::EndpointQueue;
use crate::broker::outgoing::Through;
use crate::broker::session::Session;
use crate::broker::shared::Group;

/// One session that receives a message, whatever number of its filters matched.
///
/// A message is delivered once per session, with the highest QoS of its matching subscriptions
/// and the Subscription Identifiers of all of them [MQTT-3.3.4-2] [MQTT-3.3.4-4].
pub struct Target {
    /// Who receives it.
    pub session: Arc<Session>,
    /// How.
    pub terms: Terms,
    /// How it receives what it published itself.
    pub own: Own,
}

/// What No Local [MQTT-3.8.3-3] means for a message that the session itself published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Own {
    /// No matching subscription asked for it: delivered like any other.
    Delivered,
    /// All of them did: not delivered.
    Withheld,
    /// Some did: delivered as the others ask.
    As(Terms),
}

/// Everybody who is subscribed to a Topic Name.
pub struct Matched {
    /// Of the subscription table when this was looked up.
    pub generation: u64,
    /// The sessions that receive it, but those that stand for endpoints.
    pub targets: Vec<Target>,
    /// The endpoints that receive it. They have terms of their own, and publish nothing; there may be
    /// very many, and what they are reached through is read for each message.
    pub endpoints: Vec<Arc<EndpointQueue>>,
    /// The Shared Subscriptions of which one member each receives it.
    pub groups: Vec<Arc<Group>>,
}

/// Gathers subscribers under the table's lock; sorting and rights come after it.
#[derive(Default)]
pub(super) struct Collector {
    subscribers: Vec<Subscriber>,
    groups: Vec<Arc<Group>>,
    sets: usize,
}

impl Collector {
    pub(super) fn add(&mut self, set: &SubscriberSet) {
        if !set.plain().is_empty() {
            self.sets += 1;
        }
        self.subscribers.extend_from_slice(set.plain());
        self.groups.extend_from_slice(set.groups());
    }

    pub(super) fn finish(mut self, topic: &str, generation: u64) -> Matched {
        self.subscribers.retain(|s| s.session.may_receive(topic));
        let mut targets: Vec<Target> = if self.sets <= 1 {
            self.subscribers
                .into_iter()
                .map(|subscriber| target(&[subscriber]))
                .collect()
        } else {
            self.subscribers.sort_by_key(|s| s.session.number());
            self.subscribers
                .chunk_by(|a, b| a.session.number() == b.session.number())
                .map(target)
                .collect()
        };
        let mut endpoints = Vec::new();
        targets.retain(|target| {
            let endpoint = target.session.endpoint();
            endpoints.extend(endpoint.cloned());
            endpoint.is_none()
        });
        Matched {
            generation,
            targets,
            endpoints,
            groups: self.groups,
        }
    }
}

/// One session's matching subscriptions as one target.
fn target(subscriptions: &[Subscriber]) -> Target {
    let local = || subscriptions.iter().filter(|s| !s.no_local);
    Target {
        session: Arc::clone(&subscriptions[0].session),
        terms: combine(subscriptions.iter()),
        own: match local().count() {
            0 => Own::Withheld,
            all if all == subscriptions.len() => Own::Delivered,
            _ => Own::As(combine(local())),
        },
    }
}

/// The highest QoS, all identifiers, and RETAIN as published if anyone asked for that.
fn combine<'a>(mut subscriptions: impl Iterator<Item = &'a Subscriber>) -> Terms {
    let mut terms = subscriptions
        .next()
        .expect("a target has a subscription")
        .terms
        .clone();
    for subscription in subscriptions {
        terms.qos = terms.qos.max(subscription.terms.qos);
        terms.retain_as_published |= subscription.terms.retain_as_published;
        if let Some(more) = subscription.terms.identifiers() {
            let both = terms.identifiers().into_iter().chain([more]);
            let identifiers = both.flat_map(|some| some.iter().copied()).collect();
            terms.through = Some(Arc::new(Through {
                identifiers: Some(identifiers),
                group: None,
                shared_as: 0,
            }));
        }
    }
    terms
}
