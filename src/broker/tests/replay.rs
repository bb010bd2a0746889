//! Retained Messages on their way to new subscriptions: paced, complete, in spite of everything.

use tidings_protocol::mqtt::{
    PropertiesBuilder, Property, QoS, ReasonCode, RetainHandling, SubscriptionOptions, Version,
};

use super::kit::{Client, Setup, broker, broker_with, options};
use crate::broker::{Broker, Ending};

const COUNT: usize = 600;

fn topics() -> Vec<String> {
    (0..COUNT).map(|number| format!("t/{number:04}")).collect()
}

/// More Retained Messages than are looked at in one step.
fn fill(broker: &Broker) -> Client<'_> {
    let mut publisher = Client::connect(broker, "publisher", Setup::new(Version::V5));
    for topic in topics() {
        assert_eq!(publisher.retain(&topic, b"old"), Ok(0));
    }
    publisher
}

#[test]
fn connections_that_end_do_not_end_a_replay() {
    for mailbox in [2, 1000] {
        for takeover in [false, true] {
            let broker = broker_with(|limits| limits.mailbox_messages_max = mailbox);
            fill(&broker);
            let setup = Setup::persistent(Version::V5).window(40);
            let mut client = Client::connect(&broker, "c", setup);
            client.subscribe("t/#", QoS::AtLeastOnce);
            let mut seen = Vec::new();
            let mut turns = 0;
            loop {
                let got = client.messages();
                if got.is_empty() {
                    break;
                }
                turns += 1;
                assert!(got.len() <= 40);
                for (index, message) in got.iter().enumerate() {
                    assert!(message.retain);
                    if !message.dup {
                        seen.push(message.topic.clone());
                    }
                    // Every third turn the connection ends before half of them are complete.
                    if turns % 3 != 0 || index < got.len() / 2 {
                        client.complete(message);
                    }
                }
                if turns % 3 == 0 {
                    if !takeover {
                        client.close(Ending::Lost);
                    }
                    client = Client::connect(&broker, "c", setup);
                    assert!(client.present);
                }
            }
            assert_eq!(seen, topics(), "mailbox {mailbox}, takeover {takeover}");
            assert_eq!(broker.stats.queued_bytes.get(), 0);
        }
    }
}

#[test]
fn what_changes_during_a_replay_is_sent_as_it_is_then() {
    let broker = broker();
    let mut publisher = fill(&broker);
    let mut client = Client::connect(&broker, "c", Setup::new(Version::V311).window(10));
    client.subscribe("t/+", QoS::AtLeastOnce);
    let first = client.messages();
    assert_eq!(first.len(), 10);
    // One that is gone, one that is expired at once, one that is new: all later in the order.
    assert_eq!(publisher.retain("t/0500", b""), Ok(1));
    assert_eq!(publisher.retain("t/0501", b"new"), Ok(1));
    for message in &first {
        client.complete(message);
    }
    let rest = client.drain();
    // After the new one there is no old one of the same topic.
    let of = |topic: &str| -> Vec<&str> {
        let all = rest.iter().filter(|message| message.topic == topic);
        all.map(|message| message.text()).collect()
    };
    assert_eq!(of("t/0500"), [""]);
    assert_eq!(of("t/0501").first(), Some(&"new"));
    assert!(!of("t/0501").contains(&"old"));
    assert_eq!(of("t/0502"), ["old"]);
}

#[test]
fn unsubscribing_ends_a_replay() {
    let broker = broker();
    fill(&broker);
    let mut client = Client::connect(&broker, "c", Setup::new(Version::V5).window(10));
    client.subscribe("t/#", QoS::AtLeastOnce);
    assert_eq!(client.messages().len(), 10);
    assert_eq!(client.unsubscribe("t/#"), ReasonCode::Success);
    assert!(client.collect().is_empty());
}

/// A Shared Subscription to the same filter is another subscription.
#[test]
fn leaving_a_group_does_not_end_the_replay_of_a_plain_subscription() {
    let broker = broker();
    fill(&broker);
    let mut client = Client::connect(&broker, "c", Setup::new(Version::V5));
    client.subscribe("t/#", QoS::AtLeastOnce);
    client.subscribe("$share/g/t/#", QoS::AtLeastOnce);
    assert_eq!(client.unsubscribe("$share/g/t/#"), ReasonCode::Success);
    assert_eq!(client.messages().len(), COUNT);
}

#[test]
fn retain_handling_says_when() {
    let broker = broker();
    fill(&broker);
    let mut client = Client::connect(&broker, "c", Setup::new(Version::V5));
    for (retain_handling, expected) in [
        (RetainHandling::DoNotSend, 0),
        (RetainHandling::SendIfNew, 0),
        (RetainHandling::Send, COUNT),
        (RetainHandling::Send, COUNT),
    ] {
        let asked = SubscriptionOptions {
            retain_handling,
            ..options(QoS::AtMostOnce)
        };
        client.subscribe_with("t/#", asked, 3);
        let got = client.messages();
        assert_eq!(got.len(), expected);
        assert!(got.iter().all(|m| m.retain && m.identifiers == [3]));
    }
    assert_eq!(client.unsubscribe("t/#"), ReasonCode::Success);
    let asked = SubscriptionOptions {
        retain_handling: RetainHandling::SendIfNew,
        ..options(QoS::AtMostOnce)
    };
    client.subscribe_with("t/#", asked, 0);
    assert_eq!(client.messages().len(), COUNT);
}

#[test]
fn expired_retained_messages_are_neither_sent_nor_kept() {
    let broker = broker();
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    for (topic, seconds) in [("a", 1), ("b", 100)] {
        let mut properties = PropertiesBuilder::new();
        properties.push(Property::MessageExpiryInterval(seconds));
        let mut publication = super::kit::publication(QoS::AtMostOnce, b"x");
        publication.retain = true;
        publication.properties = properties.as_properties();
        publisher
            .publish_run(topic, &[publication])
            .expect("accepted");
    }
    std::thread::sleep(std::time::Duration::from_millis(1050));
    broker.clock.advance();
    let mut client = Client::connect(&broker, "c", Setup::new(Version::V5));
    client.subscribe("+", QoS::AtLeastOnce);
    let got = client.messages();
    assert_eq!((got.len(), got[0].expiry), (1, Some(99)));
    assert_eq!(broker.retained.count(), 2);
    broker.tick();
    assert_eq!(broker.retained.count(), 1);
}
