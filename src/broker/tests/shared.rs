//! Shared Subscriptions: whose turn it is, and what becomes of messages when members go.

use tidings_protocol::mqtt::{QoS, ReasonCode, Version};

use super::kit::{Client, FAREWELL, GOODBYE, Setup, broker, broker_with, drops, publication};
use crate::broker::outgoing::Acknowledgement;
use crate::broker::stats::Drop;
use crate::broker::{Broker, Ending};

const SHARED: &str = "$share/group/t/+";

fn member<'b>(broker: &'b Broker, id: &str, setup: Setup) -> Client<'b> {
    let client = Client::connect(broker, id, setup);
    client.subscribe(SHARED, QoS::ExactlyOnce);
    client
}

fn members<'b>(broker: &'b Broker, ids: &[&str], setup: Setup) -> Vec<Client<'b>> {
    ids.iter().map(|id| member(broker, id, setup)).collect()
}

fn publisher(broker: &Broker) -> Client<'_> {
    Client::connect(broker, "publisher", Setup::new(Version::V5))
}

/// Publishes "from" up to and without "to", each on its own.
fn publish(publisher: &mut Client<'_>, qos: QoS, range: std::ops::Range<u32>) {
    for number in range {
        publisher.publish("t/x", qos, &number.to_string());
    }
}

#[test]
fn members_take_turns_whether_messages_come_alone_or_in_runs() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut all = members(&broker, &["a", "b", "c"], Setup::new(Version::V5));
        let mut publisher = publisher(&broker);
        publish(&mut publisher, qos, 0..4);
        let texts: Vec<String> = (4..9).map(|number| number.to_string()).collect();
        let run: Vec<_> = texts
            .iter()
            .map(|t| publication(qos, t.as_bytes()))
            .collect();
        assert_eq!(publisher.publish_run("t/y", &run), Ok(1));
        assert_eq!(all[0].payloads(), ["0", "3", "6"]);
        assert_eq!(all[1].payloads(), ["1", "4", "7"]);
        assert_eq!(all[2].payloads(), ["2", "5", "8"]);
    }
}

#[test]
fn every_group_and_every_plain_subscriber_has_its_own_copy() {
    let broker = broker();
    let mut a = member(&broker, "a", Setup::new(Version::V5));
    a.subscribe("$share/other/t/#", QoS::AtLeastOnce);
    a.subscribe("t/#", QoS::AtLeastOnce);
    a.subscribe("t/x", QoS::AtLeastOnce);
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..1);
    assert_eq!(a.payloads(), ["0", "0", "0"]);
    assert_eq!(a.unsubscribe("$share/other/t/#"), ReasonCode::Success);
    assert_eq!(
        a.unsubscribe("$share/other/t/#"),
        ReasonCode::NoSubscriptionExisted
    );
    assert_eq!(
        a.unsubscribe("$share/group/t/#"),
        ReasonCode::NoSubscriptionExisted
    );
    publish(&mut publisher, QoS::AtLeastOnce, 1..2);
    assert_eq!(a.payloads(), ["1", "1"]);
}

#[test]
fn who_has_room_goes_before_who_is_busy_and_who_is_busy_before_who_is_away() {
    let broker = broker();
    let mut away = member(&broker, "away", Setup::persistent(Version::V5));
    let mut busy = member(&broker, "busy", Setup::new(Version::V5).window(1));
    let mut ready = member(&broker, "ready", Setup::new(Version::V5).window(3));
    away.close(GOODBYE);
    let mut publisher = publisher(&broker);
    // The first finds both with room, and whose turn it is takes it; then one of them is full.
    publish(&mut publisher, QoS::AtLeastOnce, 0..4);
    let got = busy.messages();
    let (first, three) = (got[0].clone(), ready.messages());
    assert_eq!((got.len(), three.len()), (1, 3));
    // Both are full: what comes now waits with them, in turn.
    publish(&mut publisher, QoS::AtLeastOnce, 4..8);
    assert!(busy.collect().is_empty() && ready.collect().is_empty());
    busy.complete(&first);
    assert_eq!(busy.messages().len(), 1);
    for message in &three {
        ready.complete(message);
    }
    assert_eq!(ready.messages().len(), 2);
    // Nobody else is left: now the one who is away gets them.
    busy.close(FAREWELL);
    ready.close(FAREWELL);
    publish(&mut publisher, QoS::AtLeastOnce, 8..9);
    publish(&mut publisher, QoS::AtMostOnce, 9..10);
    away = Client::connect(&broker, "away", Setup::persistent(Version::V5));
    assert!(away.present);
    let all = away.drain();
    let mut numbers: Vec<&str> = all.iter().map(|m| m.text()).collect();
    assert!(!numbers.contains(&"9"), "QoS 0 does not wait");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all.len());
    assert!(numbers.contains(&"8"));
    // All that is not complete with the others came here: 8 published with QoS 1, 1 completed by
    // `busy` and 3 by `ready`.
    assert_eq!(numbers.len(), 9 - 4);
    assert_eq!(drops(&broker), [(Drop::Absent, 1)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn what_a_session_leaves_behind_goes_to_the_others() {
    let broker = broker();
    let mut a = member(&broker, "a", Setup::new(Version::V5).window(2));
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::ExactlyOnce, 0..6);
    let got = a.messages();
    assert_eq!(got.len(), 2);
    // 0 is received: it must not reach anybody else. 1 is in flight, 2 to 5 wait.
    assert!(a.acknowledge(Acknowledgement::Received, got[0].id.expect("QoS 2")));
    let mut b = member(&broker, "b", Setup::new(Version::V311));
    let mut c = member(&broker, "c", Setup::new(Version::V5));
    assert!(b.collect().is_empty() && c.collect().is_empty());
    a.close(Ending::Lost);
    let (b, c) = (b.drain(), c.drain());
    let mut numbers: Vec<&str> = b.iter().chain(&c).map(|m| m.text()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
    assert!(b.len().abs_diff(c.len()) == 1, "in turn");
    assert!(b.iter().chain(&c).all(|m| !m.dup), "new to these receivers");
    for own in [&b, &c] {
        assert!(own.is_sorted_by_key(|m| m.text().to_owned()), "in order");
    }
    assert_eq!(broker.stats.queued_bytes.get(), 0);
    assert!(drops(&broker).is_empty());
}

#[test]
fn what_the_last_member_leaves_behind_is_counted() {
    let broker = broker();
    let mut a = member(&broker, "a", Setup::persistent(Version::V5).window(1));
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..3);
    assert_eq!(a.messages().len(), 1);
    assert!(broker.stats.queued_bytes.get() > 0);
    a.close(FAREWELL);
    assert_eq!(drops(&broker), [(Drop::SessionEnded, 3)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
    assert_eq!(
        publisher.publish_run("t/x", &[publication(QoS::AtLeastOnce, b"")]),
        Ok(0)
    );
}

#[test]
fn clean_start_and_takeover_pass_on_as_well() {
    let broker = broker();
    let a = member(&broker, "a", Setup::persistent(Version::V5).window(1));
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..3);
    let mut b = member(&broker, "b", Setup::new(Version::V5));
    // A takeover keeps the session, so b gets nothing.
    let a2 = Client::connect(&broker, "a", Setup::persistent(Version::V5).window(1));
    assert!(a2.present && b.collect().is_empty());
    a.close(FAREWELL);
    assert!(b.collect().is_empty(), "the old connection has no say");
    // A clean start ends it.
    let mut a3 = Client::connect(&broker, "a", Setup::new(Version::V5));
    assert!(!a3.present && a3.collect().is_empty());
    assert_eq!(b.payloads(), ["0", "1", "2"]);
}

#[test]
fn a_session_that_expires_passes_on() {
    let broker = broker();
    let setup = Setup {
        expiry_secs: 1,
        ..Setup::persistent(Version::V5)
    };
    let a = member(&broker, "a", setup);
    a.close(GOODBYE);
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..2);
    let mut b = member(&broker, "b", Setup::new(Version::V5));
    broker.tick();
    assert!(b.collect().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(1020));
    broker.tick();
    assert_eq!(b.payloads(), ["0", "1"]);
    assert_eq!(broker.session_count(), 2);
}

/// Whoever leaves, whenever: those who stay go on in turn, and nobody is passed over.
#[test]
fn leaving_does_not_disturb_the_turn() {
    for turn in 0..4 {
        for leaves in 0..4 {
            let broker = broker();
            let ids = ["a", "b", "c", "d"];
            let mut all = members(&broker, &ids, Setup::new(Version::V5));
            let mut publisher = publisher(&broker);
            publish(&mut publisher, QoS::AtLeastOnce, 0..turn);
            for client in &mut all {
                client.drain();
            }
            assert_eq!(all[leaves].unsubscribe(SHARED), ReasonCode::Success);
            let expected: Vec<usize> = (0..4)
                .map(|step| (turn as usize + step) % 4)
                .filter(|&at| at != leaves)
                .collect();
            for round in 0..2 {
                for (step, &at) in expected.iter().enumerate() {
                    let number = format!("{round}.{step}");
                    publisher.publish("t/x", QoS::AtLeastOnce, &number);
                    assert_eq!(all[at].payloads(), [number], "{turn} {leaves}");
                }
            }
            assert!(all[leaves].collect().is_empty());
        }
    }
}

#[test]
fn joining_again_changes_the_terms_and_not_the_turn() {
    let broker = broker();
    let mut all = members(&broker, &["a", "b"], Setup::new(Version::V5));
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::ExactlyOnce, 0..1);
    all[0].subscribe(SHARED, QoS::AtMostOnce);
    publish(&mut publisher, QoS::ExactlyOnce, 1..4);
    let numbers: Vec<(String, u8)> = all[0]
        .messages()
        .iter()
        .map(|m| (m.text().to_owned(), m.qos))
        .collect();
    assert_eq!(numbers, [("0".into(), 2), ("2".into(), 0)]);
    assert_eq!(all[1].payloads(), ["1", "3"]);
}

#[test]
fn messages_are_passed_on_with_the_terms_of_the_next_member() {
    let broker = broker();
    let a = member(&broker, "a", Setup::persistent(Version::V5));
    a.close(GOODBYE);
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::ExactlyOnce, 0..1);
    let mut b = Client::connect(&broker, "b", Setup::new(Version::V5));
    b.subscribe_with(SHARED, super::kit::options(QoS::AtLeastOnce), 7);
    Client::connect(&broker, "a", Setup::new(Version::V5)).close(GOODBYE);
    let got = b.messages();
    assert_eq!((got[0].qos, got[0].identifiers.clone()), (1, vec![7]));
    b.complete(&got[0]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn absent_members_keep_qos_0_if_the_queue_may() {
    let broker = broker_with(|limits| limits.queue_qos0 = true);
    let a = member(&broker, "a", Setup::persistent(Version::V5));
    a.close(GOODBYE);
    publish(&mut publisher(&broker), QoS::AtMostOnce, 0..2);
    let mut a = Client::connect(&broker, "a", Setup::persistent(Version::V5));
    assert_eq!(a.payloads(), ["0", "1"]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}
