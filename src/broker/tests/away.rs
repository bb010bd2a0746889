//! Sessions whose receivers are away while much is published for them: behind the first messages
//! of such a queue nothing is in memory once the store has it.

use std::sync::Arc;

use tidings_protocol::mqtt::{QoS, Version};

use super::kit::{Client, GOODBYE, Received, Setup, crashed, drops, options, slow_broker};
use crate::broker::Broker;
use crate::broker::close::Ending;
use crate::broker::stats::Drop;
use crate::store::SlowStore;

const MANY: usize = 3_000;

fn receiver(broker: &'static Broker, id: &str) -> Client<'static> {
    Client::connect(broker, id, Setup::persistent(Version::V5))
}

/// One that is away, with these subscriptions; the Subscription Identifier is 7.
fn absent(broker: &'static Broker, id: &str, filters: &[&str], qos: QoS) -> Client<'static> {
    let client = receiver(broker, id);
    for filter in filters {
        client.subscribe_with(filter, options(qos), 7);
    }
    client.close(GOODBYE);
    client
}

fn publisher(broker: &'static Broker) -> Client<'static> {
    Client::connect(broker, "publisher", Setup::new(Version::V5))
}

/// QoS 1 and 2, some with RETAIN, one after the other: `from` to `to`.
fn publish(client: &mut Client<'_>, topic: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let qos = match number % 3 {
            0 => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        };
        client.publish(topic, qos, &number.to_string());
    }
}

fn numbers(received: &[Received]) -> Vec<usize> {
    let parsed = received.iter().map(|it| it.text().parse());
    parsed.map(|it| it.expect("a number")).collect()
}

/// The bytes of messages that the session has in memory.
fn held(client: &Client<'_>) -> usize {
    client.session.lock().outgoing.held()
}

#[test]
fn what_comes_in_absence_is_in_the_store_alone_and_comes_back_in_order() {
    let (broker, store) = slow_broker();
    let mut publisher = publisher(broker);
    let client = absent(broker, "r", &["t/#"], QoS::ExactlyOnce);
    publish(&mut publisher, "t/a", 0..MANY);
    assert!(held(&client) > 0, "the store has none of it");
    store.commit();
    publish(&mut publisher, "t/a", MANY..MANY + 10);
    assert!(held(&client) < 2_000, "{}", held(&client));
    assert_eq!(client.session.lock().outgoing.len(), MANY + 10);

    // More comes while it reads, some of it before the store has the rest.
    let mut client = receiver(broker, "r");
    let mut all = Vec::new();
    for step in 1..=20 {
        publish(
            &mut publisher,
            "t/a",
            MANY + 10 * step..MANY + 10 * (step + 1),
        );
        let got = client.messages();
        got.iter().for_each(|it| client.complete(it));
        all.extend(got);
        if step % 3 == 0 {
            store.commit();
        }
    }
    store.commit();
    all.extend(client.drain());
    assert_eq!(numbers(&all), (0..MANY + 210).collect::<Vec<_>>());
    assert!(all.iter().all(|it| it.identifiers == [7]));
    assert!(all.iter().all(|it| !it.dup));
    assert!(client.session.lock().outgoing.is_empty());
    assert_eq!(broker.stats.queued_bytes.get(), 0);
    assert_eq!(broker.stats.held_bytes.get(), 0);
    assert_eq!(drops(broker), []);
}

/// Another absence finds a queue with messages in flight, a tail, and messages on their way.
#[test]
fn absences_follow_each_other() {
    let (broker, store) = slow_broker();
    let mut publisher = publisher(broker);
    absent(broker, "r", &["t"], QoS::ExactlyOnce);
    let mut seen = Vec::new();
    let mut next = 0;
    for absence in 0..30 {
        publish(&mut publisher, "t", next..next + 40);
        next += 40;
        if absence % 2 == 0 {
            store.commit();
        }
        let mut client = receiver(broker, "r");
        let got = client.messages();
        for (index, message) in got.iter().enumerate() {
            // Every fourth stays unacknowledged, and is sent again.
            if index % 4 != 3 || absence % 5 == 4 {
                client.complete(message);
                seen.push(message.text().parse::<usize>().expect("a number"));
            }
        }
        client.close(Ending::Lost);
    }
    store.commit();
    let mut client = receiver(broker, "r");
    seen.extend(numbers(&client.drain()));
    seen.sort_unstable();
    assert_eq!(
        seen,
        (0..next).collect::<Vec<_>>(),
        "each was completed once"
    );
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn a_restart_goes_on_with_it() {
    let (broker, store) = slow_broker();
    let mut before = publisher(broker);
    absent(broker, "r", &["t"], QoS::ExactlyOnce);
    publish(&mut before, "t", 0..MANY);
    store.commit();
    let (_, durable) = store.appends();
    let (broker, store) = crashed(&store, durable);
    let mut publisher = publisher(broker);
    publish(&mut publisher, "t", MANY..MANY + 100);
    store.commit();
    let mut client = receiver(broker, "r");
    assert!(
        held(&client) < 20_000,
        "{} before the first page",
        held(&client)
    );
    let all = client.drain();
    assert_eq!(numbers(&all), (0..MANY + 100).collect::<Vec<_>>());
    assert!(all.iter().all(|it| it.identifiers == [7] && !it.dup));
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// A Shared Subscription's messages go to the other members when the session ends, also those that it
/// did not remember.
#[test]
fn what_a_session_that_ends_did_not_remember_is_passed_on() {
    let (broker, store) = slow_broker();
    let mut publisher = publisher(broker);
    absent(broker, "absent", &["$share/g/t", "own"], QoS::AtLeastOnce);
    publish(&mut publisher, "t", 0..100);
    publish(&mut publisher, "own", 0..50);
    store.commit();
    publish(&mut publisher, "t", 100..110);
    let mut heir = receiver(broker, "heir");
    heir.subscribe("$share/g/t", QoS::AtLeastOnce);
    let clean = Setup::new(Version::V5);
    Client::connect(broker, "absent", clean).close(GOODBYE);
    store.commit();
    assert_eq!(numbers(&heir.drain()), (0..110).collect::<Vec<_>>());
    assert_eq!(drops(broker), [(Drop::SessionEnded, 50)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// Messages that are not there any more when their turn comes are counted, and those behind them sent.
#[test]
fn a_lost_entry_holds_up_nothing() {
    let (broker, store) = slow_broker();
    let mut publisher = publisher(broker);
    let client = absent(broker, "r", &["t"], QoS::AtLeastOnce);
    publish(&mut publisher, "t", 0..100);
    store.commit();
    publish(&mut publisher, "t", 100..101);
    let sequence = 50;
    forget(&store, client.session.number(), sequence);
    let mut client = receiver(broker, "r");
    let mut expected: Vec<usize> = (0..101).collect();
    expected.remove(sequence as usize);
    assert_eq!(numbers(&client.drain()), expected);
    assert_eq!(drops(broker), [(Drop::Damaged, 1)]);
    assert!(client.session.lock().outgoing.is_empty());
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// Takes an entry away that the broker counts on.
fn forget(store: &Arc<SlowStore>, session: u64, sequence: u64) {
    use crate::store::{List, Record, SeqRange, Store};
    let ranges = [SeqRange::one(sequence)];
    let done = Record::Done {
        session,
        ranges: List::from(&ranges[..]),
    };
    store.append(&[done]).expect("taken");
    store.commit();
}
