//! What happens at the limits, and under which name it is counted.

use tidings_protocol::mqtt::{QoS, ReasonCode, Version};

use super::kit::{
    Client, FAREWELL, GOODBYE, Setup, broker, broker_with, drops, options, publication,
};
use crate::broker::session::Closing;
use crate::broker::stats::Drop;
use crate::broker::{Broker, OpenError, Refused};
use crate::config::QueueFull;

fn subscriber<'b>(broker: &'b Broker, setup: Setup) -> Client<'b> {
    let client = Client::connect(broker, "subscriber", setup);
    client.subscribe("t", QoS::ExactlyOnce);
    client
}

fn publisher(broker: &Broker) -> Client<'_> {
    Client::connect(broker, "publisher", Setup::new(Version::V5))
}

fn publish(publisher: &mut Client<'_>, qos: QoS, range: std::ops::Range<u32>) {
    for number in range {
        publisher.publish("t", qos, &number.to_string());
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn queue(policy: QueueFull, messages: usize) -> Broker {
    broker_with(|limits| {
        limits.queue_full = policy;
        limits.queue_messages_max = messages;
    })
}

fn texts(messages: &[super::kit::Received]) -> Vec<&str> {
    messages.iter().map(|message| message.text()).collect()
}

#[test]
fn a_full_queue_drops_the_newest() {
    let broker = queue(QueueFull::DropNewest, 4);
    let away = Setup::persistent(Version::V5);
    subscriber(&broker, away).close(GOODBYE);
    publish(&mut publisher(&broker), QoS::AtLeastOnce, 0..10);
    assert_eq!(drops(&broker), [(Drop::QueueFull, 6)]);
    let mut client = Client::connect(&broker, "subscriber", away);
    assert_eq!(texts(&client.drain()), numbers(0..4));
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn a_full_queue_drops_the_oldest() {
    let broker = queue(QueueFull::DropOldest, 4);
    let away = Setup::persistent(Version::V311);
    subscriber(&broker, away).close(GOODBYE);
    publish(&mut publisher(&broker), QoS::ExactlyOnce, 0..10);
    assert_eq!(drops(&broker), [(Drop::QueueFull, 6)]);
    let mut client = Client::connect(&broker, "subscriber", away);
    assert_eq!(texts(&client.drain()), numbers(6..10));
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// What is in flight cannot be dropped; the oldest of those that wait are, and no more of them
/// than there have to be.
#[test]
fn dropping_the_oldest_spares_what_is_in_flight() {
    let broker = queue(QueueFull::DropOldest, 4);
    let mut client = subscriber(&broker, Setup::persistent(Version::V5).window(2));
    publish(&mut publisher(&broker), QoS::AtLeastOnce, 0..10);
    assert_eq!(texts(&client.drain()), ["0", "1", "8", "9"]);
    assert_eq!(drops(&broker), [(Drop::QueueFull, 6)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// Messages that are complete do not fill the queue, even while an older one is not.
#[test]
fn one_message_that_stays_in_flight_does_not_fill_the_queue() {
    for policy in [
        QueueFull::DropNewest,
        QueueFull::DropOldest,
        QueueFull::Disconnect,
    ] {
        let broker = queue(policy, 4);
        let mut client = subscriber(&broker, Setup::persistent(Version::V5).window(2));
        let mut publisher = publisher(&broker);
        publish(&mut publisher, QoS::AtLeastOnce, 0..1);
        let slow = client.messages();
        for number in 1..10 {
            publish(&mut publisher, QoS::AtLeastOnce, number..number + 1);
            // One that waits, too: it goes the way of the queue.
            publish(&mut publisher, QoS::AtLeastOnce, 100 + number..101 + number);
            for _ in 0..2 {
                for message in client.messages() {
                    client.complete(&message);
                }
            }
        }
        assert!(
            drops(&broker).is_empty(),
            "{policy:?}: {:?}",
            drops(&broker)
        );
        client.complete(&slow[0]);
    }
}

#[test]
fn a_full_queue_disconnects() {
    let broker = queue(QueueFull::Disconnect, 4);
    let setup = Setup::persistent(Version::V5).window(2);
    let mut client = subscriber(&broker, setup);
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..4);
    assert_eq!(client.messages().len(), 2);
    publish(&mut publisher, QoS::AtLeastOnce, 4..6);
    assert_eq!(client.try_collect(), Err(Closing::QueueFull));
    client.close(crate::broker::Ending::Lost);
    // Nobody can be disconnected any more: the newest are dropped.
    publish(&mut publisher, QoS::AtLeastOnce, 6..7);
    assert_eq!(drops(&broker), [(Drop::QueueFull, 3)]);
    let mut client = Client::connect(&broker, "subscriber", setup);
    assert_eq!(texts(&client.drain()), numbers(0..4));
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn bytes_fill_a_queue_and_so_does_the_memory_of_all() {
    let payload = "x".repeat(1000);
    for of_all in [false, true] {
        let broker = broker_with(|limits| {
            if of_all {
                limits.memory_queue_bytes_max = 10_000;
            } else {
                limits.queue_bytes_max = 10_000;
            }
        });
        let away = Setup::persistent(Version::V5);
        subscriber(&broker, away).close(GOODBYE);
        let mut publisher = publisher(&broker);
        for _ in 0..20 {
            publisher.publish("t", QoS::AtLeastOnce, &payload);
        }
        let queued = broker.stats.queued_bytes.get();
        assert!((8_000..=11_200).contains(&queued), "{queued}");
        let mut client = Client::connect(&broker, "subscriber", away);
        let got = client.drain().len();
        assert!((8..=10).contains(&got), "{got}");
        assert_eq!(drops(&broker), [(Drop::QueueFull, 20 - got as u64)]);
        assert_eq!(broker.stats.queued_bytes.get(), 0);
    }
}

#[test]
fn a_full_mailbox_drops_qos_0_and_keeps_the_others_waiting() {
    for in_bytes in [false, true] {
        let broker = broker_with(|limits| {
            if in_bytes {
                limits.mailbox_bytes_max = 1024;
            } else {
                limits.mailbox_messages_max = 3;
            }
        });
        let mut client = subscriber(&broker, Setup::new(Version::V5));
        let mut publisher = publisher(&broker);
        let payload = |number: u32| format!("{number:0300}");
        for number in 0..10 {
            publisher.publish("t", QoS::AtMostOnce, &payload(number));
        }
        let expected: Vec<String> = (0..3).map(payload).collect();
        assert_eq!(client.payloads(), expected);
        assert_eq!(drops(&broker), [(Drop::SlowReceiver, 7)]);
        for number in 0..10 {
            publisher.publish("t", QoS::AtLeastOnce, &payload(number));
        }
        let expected: Vec<String> = (0..10).map(payload).collect();
        let got = client.messages();
        assert_eq!(texts(&got), expected);
        assert!(got.iter().all(|message| !message.dup));
        assert_eq!(drops(&broker), [(Drop::SlowReceiver, 7)]);
    }
}

/// A run that does not fit as a whole is taken as far as it fits.
#[test]
fn a_run_fills_a_mailbox_as_its_messages_would_one_by_one() {
    let broker = broker_with(|limits| limits.mailbox_messages_max = 3);
    let mut client = subscriber(&broker, Setup::new(Version::V5));
    let mut publisher = publisher(&broker);
    let run: Vec<_> = [b"0", b"1", b"2", b"3", b"4"]
        .map(|payload| publication(QoS::AtMostOnce, payload))
        .into();
    for _ in 0..2 {
        // The first goes into an empty mailbox, where a run always fits.
        publisher.publish("t", QoS::AtMostOnce, "first");
        assert_eq!(publisher.publish_run("t", &run), Ok(1));
        assert_eq!(client.payloads(), ["first", "0", "1"]);
    }
    assert_eq!(drops(&broker), [(Drop::SlowReceiver, 6)]);
}

#[test]
fn one_message_always_fits_in_an_empty_mailbox() {
    let broker = broker_with(|limits| {
        limits.mailbox_bytes_max = 1024;
        limits.mailbox_messages_max = 1;
    });
    let mut client = subscriber(&broker, Setup::new(Version::V311));
    let mut publisher = publisher(&broker);
    let payload = "x".repeat(5000);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        publisher.publish("t", qos, &payload);
        assert_eq!(client.payloads(), [payload.as_str()]);
    }
    assert!(drops(&broker).is_empty());
}

#[test]
fn qos_0_for_the_absent() {
    for queue_qos0 in [false, true] {
        let broker = broker_with(|limits| limits.queue_qos0 = queue_qos0);
        let setup = Setup::persistent(Version::V5);
        subscriber(&broker, setup).close(GOODBYE);
        let mut publisher = publisher(&broker);
        publish(&mut publisher, QoS::AtMostOnce, 0..3);
        let mut client = Client::connect(&broker, "subscriber", setup);
        let expected = if queue_qos0 {
            numbers(0..3)
        } else {
            Vec::new()
        };
        assert_eq!(client.payloads(), expected);
        let counted = if queue_qos0 {
            vec![]
        } else {
            vec![(Drop::Absent, 3)]
        };
        assert_eq!(drops(&broker), counted);
        assert_eq!(broker.stats.queued_bytes.get(), 0);
    }
}

/// [MQTT-4.6.0-5]: order holds within a topic and a QoS, also for QoS 0 that waited.
#[test]
fn qos_0_that_waited_is_not_overtaken() {
    let broker = broker_with(|limits| limits.queue_qos0 = true);
    let setup = Setup::persistent(Version::V5).window(1);
    subscriber(&broker, setup).close(GOODBYE);
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..2);
    publish(&mut publisher, QoS::AtMostOnce, 2..3);
    let mut client = Client::connect(&broker, "subscriber", setup);
    publish(&mut publisher, QoS::AtMostOnce, 3..4);
    let all = client.drain();
    let qos0: Vec<&str> = all
        .iter()
        .filter(|m| m.qos == 0)
        .map(|m| m.text())
        .collect();
    assert_eq!(qos0, ["2", "3"]);
}

#[test]
fn what_is_left_when_a_session_ends_is_counted() {
    let broker = broker();
    let mut client = subscriber(&broker, Setup::persistent(Version::V5).window(2));
    let mut publisher = publisher(&broker);
    publish(&mut publisher, QoS::AtLeastOnce, 0..5);
    let got = client.messages();
    client.complete(&got[0]);
    client.close(FAREWELL);
    assert_eq!(drops(&broker), [(Drop::SessionEnded, 4)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

#[test]
fn retained_messages_are_bounded_in_number() {
    let broker = broker_with(|limits| limits.retained_messages_max = 2);
    let mut client = Client::connect(&broker, "s", Setup::new(Version::V5));
    client.subscribe("#", QoS::AtLeastOnce);
    assert!(client.collect().is_empty());
    let mut publisher = publisher(&broker);
    assert_eq!(publisher.retain("a", b"1"), Ok(1));
    assert_eq!(publisher.retain("b", b"2"), Ok(1));
    assert_eq!(publisher.retain("c", b"3"), Err(Refused::RetainedFull));
    assert_eq!(
        client.payloads(),
        ["1", "2"],
        "what is refused is not delivered"
    );
    // One that is there may be replaced, cleared, and its place taken.
    assert_eq!(publisher.retain("a", b"4"), Ok(1));
    assert_eq!(publisher.retain("b", b""), Ok(1));
    assert_eq!(publisher.retain("c", b"5"), Ok(1));
    assert_eq!(publisher.retain("b", b"6"), Err(Refused::RetainedFull));
    assert_eq!(client.payloads(), ["4", "", "5"]);
    // The broker's own do not count.
    broker.publish_sys();
    assert_eq!(publisher.retain("c", b""), Ok(1));
    assert_eq!(publisher.retain("b", b"7"), Ok(1));
    let mut late = Client::connect(&broker, "late", Setup::new(Version::V5));
    late.subscribe("#", QoS::AtLeastOnce);
    let got = late.messages();
    assert_eq!(texts(&got), ["4", "7"]);
    assert!(got.iter().all(|message| message.retain));
}

#[test]
fn retained_messages_are_bounded_in_bytes() {
    let broker = broker_with(|limits| limits.retained_bytes_max = 10_000);
    let mut publisher = publisher(&broker);
    assert_eq!(publisher.retain("a", &[b'x'; 4000]), Ok(0));
    assert_eq!(publisher.retain("b", &[b'x'; 4000]), Ok(0));
    assert_eq!(
        publisher.retain("c", &[b'x'; 4000]),
        Err(Refused::RetainedFull)
    );
    assert_eq!(
        publisher.retain("a", &[b'x'; 8000]),
        Err(Refused::RetainedFull)
    );
    assert_eq!(publisher.retain("a", &[b'x'; 5000]), Ok(0));
    assert_eq!(publisher.retain("a", b""), Ok(0));
    assert_eq!(publisher.retain("b", b""), Ok(0));
    assert_eq!(publisher.retain("c", &[b'x'; 9000]), Ok(0));
}

#[test]
fn subscriptions_and_sessions_are_bounded() {
    let broker = broker_with(|limits| {
        limits.subscriptions_per_session_max = 2;
        limits.subscriptions_max = 3;
        limits.sessions_max = 2;
    });
    let first = Client::connect(&broker, "first", Setup::new(Version::V5));
    let ask =
        |client: &Client<'_>, filter| client.subscribe_with(filter, options(QoS::AtLeastOnce), 0);
    assert_eq!(ask(&first, "a"), ReasonCode::GrantedQoS1);
    assert_eq!(ask(&first, "b"), ReasonCode::GrantedQoS1);
    assert_eq!(ask(&first, "c"), ReasonCode::QuotaExceeded);
    assert_eq!(ask(&first, "a"), ReasonCode::GrantedQoS1);
    let second = Client::connect(&broker, "second", Setup::new(Version::V5));
    assert_eq!(ask(&second, "$share/g/a"), ReasonCode::GrantedQoS1);
    assert_eq!(ask(&second, "b"), ReasonCode::QuotaExceeded);
    let third = Client::try_connect(&broker, "third", Setup::new(Version::V5));
    assert_eq!(third.err(), Some(OpenError::TooManySessions));
    first.close(GOODBYE);
    assert_eq!(ask(&second, "b"), ReasonCode::GrantedQoS1);
    // Its own session makes room for itself.
    Client::connect(&broker, "second", Setup::new(Version::V5));
    Client::connect(&broker, "third", Setup::new(Version::V5));
    assert_eq!(broker.session_count(), 2);
}
