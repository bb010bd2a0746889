//! The subscription table against a plain list and the matcher of the protocol crate.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidings_protocol::mqtt::QoS;
use tidings_protocol::topic::{self, Filter, TopicLimits};

use super::matched::Target;
use super::set::SubscriberSet;
use super::*;
use crate::broker::outgoing::{GroupRef, Through};
use crate::broker::session::Session;
use crate::broker::tests::kit;
use std::sync::Arc;

/// One subscription as the model keeps it.
#[derive(Clone, Debug)]
struct Entry {
    session: u64,
    share: Option<&'static str>,
    filter: String,
    qos: QoS,
    retain_as_published: bool,
    no_local: bool,
    identifier: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Add(Entry),
    /// Takes away one that is there.
    Remove(Index),
    /// Takes away one that may or may not be there.
    RemoveAny(u64, Option<&'static str>, String),
    Look(String),
}

fn filter() -> impl Strategy<Value = String> {
    let levels = proptest::collection::vec(select(vec!["", "a", "b", "$s", "+", "+"]), 0..4);
    (levels, any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(select(vec!["", "a", "b", "$s", "c"]), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn share() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, None, None, Some("g"), Some("h")])
}

fn entry() -> impl Strategy<Value = Entry> {
    let options = (0u8..3, any::<bool>(), any::<bool>(), 0u32..3);
    (1u64..6, share(), filter(), options).prop_map(|(session, share, filter, options)| {
        let (qos, retain_as_published, no_local, identifier) = options;
        Entry {
            session,
            share,
            filter,
            qos: QoS::from_u8(qos).expect("0 to 2"),
            retain_as_published,
            no_local: no_local && share.is_none(),
            identifier,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => entry().prop_map(Step::Add),
        3 => any::<Index>().prop_map(Step::Remove),
        1 => (1u64..6, share(), filter()).prop_map(|(s, g, f)| Step::RemoveAny(s, g, f)),
        3 => name().prop_map(Step::Look),
    ]
}

/// Every Topic Name of up to three levels over the alphabet.
fn all_names() -> Vec<String> {
    let alphabet = ["", "a", "b", "$s"];
    let mut names: Vec<String> = alphabet.iter().map(|level| level.to_string()).collect();
    let mut last = names.clone();
    for _ in 0..2 {
        last = last
            .iter()
            .flat_map(|name| alphabet.iter().map(move |level| format!("{name}/{level}")))
            .collect();
        names.extend_from_slice(&last);
    }
    names.retain(|name| !name.is_empty());
    names
}

struct Both {
    table: SubscriptionTable,
    model: Vec<Entry>,
    sessions: Vec<Arc<Session>>,
}

impl Both {
    fn new() -> Both {
        Both {
            table: SubscriptionTable::default(),
            model: Vec::new(),
            sessions: (1..6).map(session).collect(),
        }
    }

    fn find(&self, session: u64, share: Option<&str>, filter: &str) -> Option<usize> {
        self.model
            .iter()
            .position(|e| e.session == session && e.share == share && e.filter == filter)
    }

    fn add(&mut self, entry: &Entry) {
        let known = self.find(entry.session, entry.share, &entry.filter);
        let anything = TopicLimits {
            bytes_max: usize::MAX,
            levels_max: usize::MAX,
        };
        Filter::parse(&entry.filter, &anything).expect("a valid filter");
        let filter: Arc<str> = entry.filter.as_str().into();
        let identifiers: Option<Arc<[u32]>> =
            (entry.identifier > 0).then(|| [entry.identifier].into());
        let subscriber = |group| Subscriber {
            session: Arc::clone(&self.sessions[entry.session as usize - 1]),
            terms: Terms {
                qos: entry.qos,
                retain_as_published: entry.retain_as_published,
                through: Some(Arc::new(Through {
                    identifiers,
                    group: Option::map(group, GroupRef),
                    shared_as: 0,
                })),
            },
            no_local: entry.no_local,
        };
        match entry.share {
            None => self
                .table
                .subscribe(&filter, subscriber(None), known.is_some()),
            Some(share) => {
                let joined = self
                    .table
                    .join(share, &filter, |group| subscriber(Some(group)));
                let replaced = joined == Subscribed::Replaced;
                assert_eq!(replaced, known.is_some(), "{entry:?}");
            }
        }
        match known {
            Some(at) => self.model[at] = entry.clone(),
            None => self.model.push(entry.clone()),
        }
    }

    fn remove(&mut self, session: u64, share: Option<&str>, filter: &str) {
        let known = self.find(session, share, filter);
        let before = self.table.generation();
        let key: Arc<str> = filter.into();
        let removed = match share {
            None => self.table.unsubscribe(&key, session),
            Some(share) => self.table.leave(share, &key, session),
        };
        assert_eq!(removed, known.is_some(), "{filter}");
        assert_eq!(self.table.generation() != before, removed);
        if let Some(at) = known {
            self.model.remove(at);
        }
    }

    /// What the table answers for `topic` is what the plain list says.
    fn look(&self, topic: &str) {
        let matched = self.table.matches(topic);
        assert_eq!(matched.generation, self.table.generation());
        let matching = || {
            self.model
                .iter()
                .filter(|entry| topic::matches(&entry.filter, topic))
        };
        let mut plain: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
        let mut groups: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for entry in matching() {
            match entry.share {
                None => plain.entry(entry.session).or_default().push(entry),
                Some(share) => groups
                    .entry((share, &entry.filter))
                    .or_default()
                    .push(entry.session),
            }
        }
        let mut found: Vec<&Target> = matched.targets.iter().collect();
        found.sort_by_key(|target| target.session.number());
        let numbers: Vec<u64> = found.iter().map(|t| t.session.number()).collect();
        let expected: Vec<u64> = plain.keys().copied().collect();
        assert_eq!(numbers, expected, "sessions for {topic:?}");
        for (target, entries) in found.iter().zip(plain.values()) {
            agrees(&target.terms, entries);
            let local: Vec<&Entry> = entries.iter().copied().filter(|e| !e.no_local).collect();
            match &target.own {
                Own::Delivered => assert_eq!(local.len(), entries.len()),
                Own::Withheld => assert!(local.is_empty()),
                Own::As(terms) => {
                    assert!(local.len() < entries.len());
                    agrees(terms, &local);
                }
            }
        }
        let mut found: Vec<_> = matched
            .groups
            .iter()
            .map(|group| {
                let members = group.members();
                for member in &members {
                    let its = member.terms.group().expect("a member knows its group");
                    assert!(Arc::ptr_eq(its, group));
                }
                let numbers: Vec<u64> = members.iter().map(|m| m.session.number()).collect();
                ((group.share_name(), group.filter()), numbers)
            })
            .collect();
        found.sort();
        let expected: Vec<_> = groups.into_iter().collect();
        assert_eq!(found, expected, "groups for {topic:?}");
    }
}

fn agrees(terms: &Terms, entries: &[&Entry]) {
    assert_eq!(Some(terms.qos), entries.iter().map(|e| e.qos).max());
    let retain_as_published = entries.iter().any(|e| e.retain_as_published);
    assert_eq!(terms.retain_as_published, retain_as_published);
    let mut identifiers = terms.identifiers().map_or(Vec::new(), |ids| ids.to_vec());
    identifiers.sort_unstable();
    let mut expected: Vec<u32> = entries.iter().map(|e| e.identifier).collect();
    expected.retain(|&identifier| identifier > 0);
    expected.sort_unstable();
    assert_eq!(identifiers, expected);
}

fn session(number: u64) -> Arc<Session> {
    let id = format!("s{number}");
    let principal = kit::principal(&id);
    Arc::new(Session::new(number, id.as_str().into(), principal, 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Under any history of subscribing, joining, leaving and looking up.
    #[test]
    fn the_table_agrees_with_a_plain_list(
        steps in proptest::collection::vec(step(), 1..120),
        order in proptest::collection::vec(any::<Index>(), 120),
    ) {
        let mut both = Both::new();
        for step in &steps {
            match step {
                Step::Add(entry) => both.add(entry),
                Step::Remove(which) if !both.model.is_empty() => {
                    let entry = which.get(&both.model).clone();
                    both.remove(entry.session, entry.share, &entry.filter);
                }
                Step::Remove(_) => {}
                Step::RemoveAny(session, share, filter) => both.remove(*session, *share, filter),
                Step::Look(topic) => both.look(topic),
            }
            prop_assert_eq!(both.table.count(), both.model.len());
        }
        let names = all_names();
        for name in &names {
            both.look(name);
        }
        for which in order {
            if both.model.is_empty() {
                break;
            }
            let entry = which.get(&both.model).clone();
            both.remove(entry.session, entry.share, &entry.filter);
        }
        prop_assert_eq!(both.table.count(), 0);
        prop_assert_eq!(both.table.node_count(), 1);
        for name in &names {
            let matched = both.table.matches(name);
            prop_assert!(matched.targets.is_empty() && matched.groups.is_empty());
        }
    }
}

/// Nodes are used again: a table that changes for ever does not grow for ever.
#[test]
fn nodes_that_were_freed_are_used_again() {
    let mut both = Both::new();
    let entry = |filter: String| Entry {
        session: 1,
        share: None,
        filter,
        qos: QoS::AtMostOnce,
        retain_as_published: false,
        no_local: false,
        identifier: 0,
    };
    both.add(&entry("a/b/+".into()));
    let few = both.table.node_count();
    for round in 0..1000 {
        let filter = format!("a/{round}/+/c/#");
        both.add(&entry(filter.clone()));
        assert_eq!(both.table.node_count(), few + 3);
        both.look(&format!("a/{round}/x/c"));
        both.look(&format!("a/{round}/x/c/d"));
        both.remove(1, None, &filter);
        assert_eq!(both.table.node_count(), few);
    }
    both.remove(1, None, "a/b/+");
    assert_eq!(both.table.node_count(), 1);
}

/// 65,000 levels cost time in proportion, and no stack.
#[test]
fn very_deep_filters_and_topics() {
    let mut both = Both::new();
    let deep = "a/".repeat(65_000);
    for filter in [format!("{deep}+"), format!("{deep}#")] {
        both.add(&Entry {
            session: 1,
            share: None,
            filter,
            qos: QoS::AtLeastOnce,
            retain_as_published: false,
            no_local: false,
            identifier: 0,
        });
    }
    both.look(&format!("{deep}x"));
    both.look(&deep);
    both.look("a/a");
    both.remove(1, None, &format!("{deep}+"));
    both.remove(1, None, &format!("{deep}#"));
    assert_eq!(both.table.node_count(), 1);
}

/// A filter with many subscribers: each is found, replaced and taken out by its session.
#[test]
fn a_set_of_many_subscribers() {
    let sessions: Vec<Arc<Session>> = (1..=100).map(session).collect();
    let subscriber = |at: usize, qos| Subscriber {
        session: Arc::clone(&sessions[at]),
        terms: Terms {
            qos,
            retain_as_published: false,
            through: None,
        },
        no_local: false,
    };
    let mut set = SubscriberSet::default();
    for at in 0..sessions.len() {
        assert!(!set.replace(&subscriber(at, QoS::AtMostOnce)));
        set.add(subscriber(at, QoS::AtMostOnce));
        assert!(set.replace(&subscriber(at, QoS::ExactlyOnce)));
        assert_eq!(set.plain().len(), at + 1);
    }
    assert!(set.plain().iter().all(|s| s.terms.qos == QoS::ExactlyOnce));
    // From the middle outwards.
    for step in 0..sessions.len() {
        let at = (50 + step * 37) % sessions.len();
        assert!(set.remove(sessions[at].number()));
        assert!(!set.remove(sessions[at].number()));
        assert_eq!(set.plain().len(), sessions.len() - step - 1);
    }
    assert!(set.is_empty());
}
