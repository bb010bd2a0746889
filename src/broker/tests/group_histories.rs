//! Random histories of a Shared Subscription whose members come and go: what was published to it is
//! completed once, or counted as dropped.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidings_protocol::mqtt::{ReasonCode, Version};

use super::kit::{Client, FAREWELL, Setup, broker_with, publication, qos};
use crate::broker::Ending;
use crate::broker::stats::Drop;

const MEMBERS: usize = 3;

#[derive(Clone, Debug)]
enum Shared {
    Join(usize, u8),
    Leave(usize),
    Connect(usize, u16),
    Close(usize),
    End(usize),
    Publish(u8, usize),
    Drain(usize),
    Collect(usize),
}

fn shared() -> impl Strategy<Value = Shared> {
    let who = 0..MEMBERS;
    prop_oneof![
        2 => (who.clone(), 0u8..3).prop_map(|(who, qos)| Shared::Join(who, qos)),
        1 => who.clone().prop_map(Shared::Leave),
        2 => (who.clone(), 1u16..4).prop_map(|(who, window)| Shared::Connect(who, window)),
        2 => who.clone().prop_map(Shared::Close),
        1 => who.clone().prop_map(Shared::End),
        5 => (0u8..3, 1usize..5).prop_map(|(qos, count)| Shared::Publish(qos, count)),
        2 => who.clone().prop_map(Shared::Drain),
        2 => who.prop_map(Shared::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every message of a group is completed by one member, or is counted as dropped, or is still
    /// with a session: none vanishes, and none is completed twice.
    #[test]
    fn a_group_loses_nothing(steps in proptest::collection::vec(shared(), 1..150)) {
        let broker = broker_with(|_| ());
        let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
        let id = |who: usize| format!("member{who}");
        let setup = |window| Setup::persistent(Version::V5).window(window);
        let mut clients: Vec<Option<Client<'_>>> = (0..MEMBERS).map(|_| None).collect();
        let mut published = 0u64;
        let mut completed: Vec<String> = Vec::new();
        // QoS 0 that was sent, and whatever a client had when it went: completed for the broker.
        let mut members = BTreeSet::new();
        for step in steps {
            match step {
                Shared::Connect(who, window) => {
                    if clients[who].is_none() {
                        clients[who] = Some(Client::connect(&broker, &id(who), setup(window)));
                    }
                }
                Shared::Join(who, granted) => if let Some(client) = &clients[who] {
                    // Those that are at least QoS 1, so that nothing is lost with a connection.
                    client.subscribe("$share/g/t", qos(granted.max(1)));
                    members.insert(who);
                },
                Shared::Leave(who) => if let Some(client) = &clients[who] {
                    let left = client.unsubscribe("$share/g/t") == ReasonCode::Success;
                    prop_assert_eq!(left, members.remove(&who));
                },
                Shared::Close(who) => if let Some(client) = clients[who].take() {
                    client.close(Ending::Lost);
                },
                Shared::End(who) => {
                    // What was received with QoS 2 and is not complete must not be passed on; here
                    // nothing is ever half complete.
                    clients[who] = None;
                    let client = Client::connect(&broker, &id(who), setup(1));
                    client.close(FAREWELL);
                    members.remove(&who);
                }
                Shared::Publish(value, count) => {
                    let texts: Vec<String> =
                        (published..published + count as u64).map(|n| n.to_string()).collect();
                    let run: Vec<_> = texts
                        .iter()
                        .map(|text| publication(qos(value.max(1)), text.as_bytes()))
                        .collect();
                    let matched = publisher.publish_run("t", &run);
                    prop_assert_eq!(matched, Ok(usize::from(!members.is_empty())));
                    if !members.is_empty() {
                        published += count as u64;
                    }
                }
                Shared::Drain(who) => if let Some(client) = &mut clients[who] {
                    // What was collected before and not acknowledged comes again after a new
                    // connection.
                    client.close(Ending::Lost);
                    let mut client = Client::connect(&broker, &id(who), setup(2));
                    completed.extend(client.drain().iter().map(|m| m.text().to_owned()));
                    clients[who] = Some(client);
                },
                Shared::Collect(who) => if let Some(client) = &mut clients[who] {
                    client.collect();
                },
            }
        }
        for (who, client) in clients.iter_mut().enumerate() {
            if let Some(client) = client {
                client.close(Ending::Lost);
            }
            let mut client = Client::connect(&broker, &id(who), setup(2));
            completed.extend(client.drain().iter().map(|m| m.text().to_owned()));
        }
        let dropped = broker.stats.dropped_for(Drop::SessionEnded);
        prop_assert_eq!(broker.stats.dropped_total(), dropped);
        let count = completed.len() as u64;
        completed.sort_unstable();
        completed.dedup();
        prop_assert_eq!(completed.len() as u64, count, "completed twice");
        prop_assert_eq!(count + dropped, published);
        prop_assert_eq!(broker.stats.queued_bytes.get(), 0);
    }
}
