//! What receivers get of a run: every variant, the fast way and the slow way.

use bytes::Bytes;
use proptest::prelude::*;
use tidings_protocol::mqtt::{PropertiesBuilder, Property, QoS, SubscriptionOptions, Version};

use super::kit::{Client, GOODBYE, Received, Setup, broker, broker_with, drops, options, qos};
use crate::broker::stats::Drop;
use crate::broker::{Publication, SHARED_PAYLOAD_MIN};

/// One message of a run, owned.
#[derive(Clone, Debug)]
struct Sample {
    qos: u8,
    payload: Vec<u8>,
    alias: Option<u16>,
    expiry: Option<u32>,
    format: Option<u8>,
    content_type: Option<String>,
    correlation: Option<Vec<u8>>,
    users: Vec<(String, String)>,
}

impl Sample {
    /// All properties, the alias and the expiry at places that the seed says.
    fn properties(&self) -> PropertiesBuilder {
        let mut properties = PropertiesBuilder::new();
        if let Some(format) = self.format {
            properties.push(Property::PayloadFormatIndicator(format));
        }
        if let Some(alias) = self.alias {
            properties.push(Property::TopicAlias(alias));
        }
        for (name, value) in &self.users {
            properties.push(Property::UserProperty(name, value));
        }
        if let Some(seconds) = self.expiry {
            properties.push(Property::MessageExpiryInterval(seconds));
        }
        if let Some(content_type) = &self.content_type {
            properties.push(Property::ContentType(content_type));
        }
        if let Some(correlation) = &self.correlation {
            properties.push(Property::CorrelationData(correlation));
        }
        properties
    }

    /// The properties as a receiver of version 5 sees them.
    fn forwarded(&self) -> Vec<String> {
        let properties = self.properties();
        let properties = properties.as_properties();
        properties
            .iter()
            .filter(|property| {
                !matches!(
                    property,
                    Property::TopicAlias(_) | Property::MessageExpiryInterval(_)
                )
            })
            .map(|property| format!("{property:?}"))
            .collect()
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => proptest::collection::vec(any::<u8>(), 100..300),
    ];
    let some = proptest::option::of::<BoxedStrategy<u32>>;
    let text = "[a-z]{0,40}";
    (
        0u8..3,
        payload,
        proptest::option::of(1u16..5),
        some((1u32..100_000).boxed()),
        proptest::option::of(0u8..2),
        proptest::option::of(text),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..10)),
        proptest::collection::vec((text, text), 0..3),
    )
        .prop_map(
            |(qos, payload, alias, expiry, format, content_type, correlation, users)| Sample {
                qos,
                payload,
                alias,
                expiry,
                format,
                content_type,
                correlation,
                users,
            },
        )
}

/// A receiver: what it speaks, what it asked for, and what sends it down the slow way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kind {
    version: Version,
    qos: u8,
    retain_as_published: bool,
    slow: Slow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    /// The fast way.
    No,
    /// A Subscription Identifier.
    Identifier,
    /// Topic aliases.
    Aliases,
    /// A window that everything waits for.
    Window,
    /// A mailbox without room is not a matter of the receiver; away while it is published.
    Away,
}

fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for version in [Version::V31, Version::V311, Version::V5] {
        for qos in 0..3 {
            for retain_as_published in [false, true] {
                for slow in [
                    Slow::No,
                    Slow::Identifier,
                    Slow::Aliases,
                    Slow::Window,
                    Slow::Away,
                ] {
                    if version == Version::V5 || slow != Slow::Aliases {
                        kinds.push(Kind {
                            version,
                            qos,
                            retain_as_published,
                            slow,
                        });
                    }
                }
            }
        }
    }
    kinds
}

/// What a receiver of this kind is to get of a run. Identifiers are judged apart.
fn expected(kind: Kind, topic: &str, run: &[Sample], retain: bool) -> Vec<Received> {
    let v5 = kind.version == Version::V5;
    run.iter()
        .map(|sample| Received {
            dup: false,
            qos: sample.qos.min(kind.qos),
            retain: retain && kind.retain_as_published,
            topic: topic.to_owned(),
            id: None,
            alias: None,
            expiry: sample.expiry.filter(|_| v5),
            identifiers: if v5 && kind.slow == Slow::Identifier {
                vec![9]
            } else {
                Vec::new()
            },
            properties: if v5 { sample.forwarded() } else { Vec::new() },
            payload: sample.payload.clone(),
            len: 0,
        })
        .filter(|received| received.qos > 0 || kind.slow != Slow::Away)
        .collect()
}

/// Publishes runs to one receiver of every kind, and judges what each of them decodes.
fn check(
    topic: &str,
    runs: &[Vec<Sample>],
    retain: bool,
    limit: usize,
) -> Result<(), TestCaseError> {
    let broker = broker_with(|limits| limits.mailbox_messages_max = limit);
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    let kinds = kinds();
    let mut clients: Vec<Client<'_>> = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let mut setup = Setup::persistent(kind.version);
        match kind.slow {
            Slow::Aliases => setup.topic_alias_maximum = 1,
            Slow::Window => setup.receive_maximum = 1,
            _ => {}
        }
        let client = Client::connect(&broker, &number.to_string(), setup);
        let asked = SubscriptionOptions {
            retain_as_published: kind.retain_as_published,
            ..options(qos(kind.qos))
        };
        client.subscribe_with(
            topic,
            asked,
            if kind.slow == Slow::Identifier { 9 } else { 0 },
        );
        if kind.slow == Slow::Away {
            client.close(GOODBYE);
        }
        clients.push(client);
    }
    for run in runs {
        let properties: Vec<PropertiesBuilder> = run.iter().map(Sample::properties).collect();
        let publications: Vec<Publication<'_>> = run
            .iter()
            .zip(&properties)
            .map(|(sample, properties)| Publication {
                qos: qos(sample.qos),
                retain,
                properties: properties.as_properties(),
                payload: &sample.payload,
                packet_id: None,
                shared_payload: None,
            })
            .collect();
        publisher
            .publish_run(topic, &publications)
            .expect("accepted");
    }
    for (number, (kind, mut client)) in kinds.into_iter().zip(clients).enumerate() {
        if kind.slow == Slow::Away {
            let setup = Setup::persistent(kind.version);
            client = Client::connect(&broker, &number.to_string(), setup);
        }
        let mut got = client.drain();
        if kind.slow == Slow::Window {
            // QoS 0 does not wait; within a QoS the order is that of publishing.
            got.sort_by_key(|received| received.qos);
        }
        let mut ids: Vec<u16> = got.iter().filter_map(|received| received.id).collect();
        let identified = got.iter().filter(|received| received.qos > 0).count();
        prop_assert_eq!(ids.len(), identified);
        // Nothing else was ever sent to this session, so the identifiers count up from 1.
        prop_assert!(ids.iter().copied().eq(1..=identified as u16) || kind.slow == Slow::Window);
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), identified);
        for (index, received) in got.iter_mut().enumerate() {
            received.id = None;
            received.len = 0;
            if kind.slow == Slow::Aliases {
                prop_assert_eq!(received.alias.take(), Some(1), "{}", index);
            }
            // Where it waited, some of the time may be over; not a second in a test.
        }
        let mut expected: Vec<Received> = runs
            .iter()
            .flat_map(|run| expected(kind, topic, run, retain))
            .collect();
        if kind.slow == Slow::Window {
            expected.sort_by_key(|received| received.qos);
        }
        if limit < 100 {
            // QoS 0 is dropped when a mailbox is full; of what is left the order must be right.
            got.retain(|received| received.qos > 0);
            expected.retain(|received| received.qos > 0);
            got.sort_by_key(|received| received.qos);
            expected.sort_by_key(|received| received.qos);
        }
        prop_assert_eq!(got, expected, "{:?}", kind);
    }
    prop_assert_eq!(broker.stats.queued_bytes.get(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_variant_of_a_run_is_what_it_should_be(
        topic in "[a-c/]{1,40}",
        runs in proptest::collection::vec(proptest::collection::vec(sample(), 1..6), 1..4),
        small in any::<bool>(),
    ) {
        check(&topic, &runs, false, if small { 2 } else { 100_000 })?;
    }

    #[test]
    fn retained_publications_travel_like_others(topic in "[a-c/]{1,40}", sample in sample()) {
        prop_assume!(!sample.payload.is_empty());
        check(&topic, &[vec![sample]], true, 100_000)?;
    }
}

/// A group takes single messages out of a run: frames and identifiers are those of the range.
#[test]
fn ranges_within_a_run() {
    let broker = broker();
    let mut members: Vec<Client<'_>> = ["a", "b", "c"]
        .map(|id| {
            let version = if id == "b" {
                Version::V311
            } else {
                Version::V5
            };
            let client = Client::connect(&broker, id, Setup::persistent(version));
            client.subscribe("$share/g/t", QoS::ExactlyOnce);
            client
        })
        .into();
    // So that the members' identifiers differ from the places in the run.
    members[0].subscribe("own", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    for _ in 0..5 {
        publisher.publish("own", QoS::AtLeastOnce, "");
    }
    members[0].drain();
    let payloads: Vec<Vec<u8>> = (0..9u8).map(|n| vec![n; usize::from(n) * 30]).collect();
    let run: Vec<Publication<'_>> = payloads
        .iter()
        .enumerate()
        .map(|(n, payload)| super::kit::publication(qos((n / 3) as u8), payload))
        .collect();
    publisher.publish_run("t", &run).expect("accepted");
    for (at, member) in members.iter_mut().enumerate() {
        let got = member.drain();
        assert_eq!(got.len(), 3);
        let first = if at == 0 { 6 } else { 1 };
        for (turn, received) in got.iter().enumerate() {
            assert_eq!(received.qos, turn as u8);
            assert_eq!(received.payload, payloads[turn * 3 + at]);
            let id = (turn > 0).then(|| first + turn as u16 - 1);
            assert_eq!(received.id, id);
        }
    }
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// A large payload goes by reference, whoever gets it, and arrives whole.
#[test]
fn large_payloads() {
    let broker = broker();
    let payload: Vec<u8> = (0..SHARED_PAYLOAD_MIN + 1000)
        .map(|n| (n % 251) as u8)
        .collect();
    let shared = Bytes::copy_from_slice(&payload);
    let mut clients: Vec<Client<'_>> = Vec::new();
    for (number, version) in [Version::V311, Version::V5, Version::V5]
        .into_iter()
        .enumerate()
    {
        let setup = Setup {
            topic_alias_maximum: number as u16,
            ..Setup::persistent(version)
        };
        let client = Client::connect(&broker, &number.to_string(), setup);
        client.subscribe("t", qos(number as u8));
        clients.push(client);
    }
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    for by_reference in [false, true] {
        for value in 0..3 {
            let mut publication = super::kit::publication(qos(value), &payload);
            publication.shared_payload = by_reference.then_some(&shared);
            publisher
                .publish_run("t", &[publication])
                .expect("accepted");
        }
        publisher.publish("t", QoS::AtLeastOnce, "small");
        for (number, client) in clients.iter_mut().enumerate() {
            let got = client.drain();
            assert_eq!(got.len(), 4);
            for (value, received) in got[..3].iter().enumerate() {
                assert_eq!(usize::from(received.qos), value.min(number));
                assert!(received.payload == payload);
            }
            assert_eq!(got[3].text(), "small");
        }
    }
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// The interval that is forwarded is less the time that the message waited [MQTT-3.3.2-6].
#[test]
fn expiry_counts_down_while_a_message_waits() {
    let broker = broker();
    let setup = Setup::persistent(Version::V5);
    let client = Client::connect(&broker, "c", setup);
    client.subscribe("t", QoS::AtLeastOnce);
    client.close(GOODBYE);
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    for seconds in [1, 100] {
        let mut properties = PropertiesBuilder::new();
        properties.push(Property::MessageExpiryInterval(seconds));
        let mut publication = super::kit::publication(QoS::AtLeastOnce, b"x");
        publication.properties = properties.as_properties();
        publisher
            .publish_run("t", &[publication])
            .expect("accepted");
    }
    std::thread::sleep(std::time::Duration::from_millis(1050));
    broker.tick();
    let mut client = Client::connect(&broker, "c", setup);
    let got = client.drain();
    assert_eq!((got.len(), got[0].expiry), (1, Some(99)));
    assert_eq!(drops(&broker), [(Drop::Expired, 1)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// Lengths of the packets that a client with this Maximum Packet Size gets, when it is connected
/// and when the message waited for it.
fn delivered(
    size: usize,
    aliases: u16,
    identifier: u32,
    user: usize,
    payload: usize,
) -> [Vec<usize>; 2] {
    let user = "u".repeat(user);
    [false, true].map(|waits| {
        let broker = broker();
        let setup = Setup {
            packet_size_max: size,
            topic_alias_maximum: aliases,
            ..Setup::persistent(Version::V5)
        };
        let mut client = Client::connect(&broker, "c", setup);
        client.subscribe_with("t", options(QoS::AtLeastOnce), identifier);
        if waits {
            client.close(GOODBYE);
        }
        let mut properties = PropertiesBuilder::new();
        properties.push(Property::UserProperty("", &user));
        properties.push(Property::MessageExpiryInterval(1000));
        let payload = vec![b'x'; payload];
        let mut publication = super::kit::publication(QoS::AtLeastOnce, &payload);
        publication.properties = properties.as_properties();
        Client::connect(&broker, "publisher", Setup::new(Version::V5))
            .publish_run("t", &[publication])
            .expect("accepted");
        if waits {
            client = Client::connect(&broker, "c", setup);
        }
        let got: Vec<usize> = client.drain().iter().map(|m| m.len).collect();
        let dropped = drops(&broker);
        if got.is_empty() {
            assert_eq!(dropped, [(Drop::TooLarge, 1)]);
        } else {
            assert!(dropped.is_empty());
        }
        assert_eq!(broker.stats.queued_bytes.get(), 0);
        got
    })
}

/// [MQTT-3.1.2-24]: nothing longer than the client accepts is sent, whatever comes in addition to
/// what was published.
#[test]
fn no_packet_is_longer_than_the_client_accepts() {
    for (aliases, identifier) in [(0, 0), (0, 1), (1, 0), (1, 268_435_455)] {
        for user in 100..130 {
            for payload in [0, 40] {
                let [[len], [_]] = delivered(usize::MAX, aliases, identifier, user, payload)
                    .map(|got| <[usize; 1]>::try_from(got).expect("no limit"));
                for size in len - 12..len {
                    for got in delivered(size, aliases, identifier, user, payload) {
                        // A topic alias is left out where it does not fit.
                        assert!(
                            got.iter().all(|&len| len <= size),
                            "{got:?} of {size}: aliases {aliases}, identifier {identifier}, user {user}"
                        );
                    }
                }
            }
        }
    }
}

/// A message is dropped for its length only if it is too long.
#[test]
fn a_packet_as_long_as_the_client_accepts_is_sent() {
    for (aliases, identifier) in [(0, 0), (0, 1), (1, 0), (1, 268_435_455)] {
        for payload in [1, 40] {
            let [[len], [waited]] = delivered(usize::MAX, aliases, identifier, 10, payload)
                .map(|got| <[usize; 1]>::try_from(got).expect("no limit"));
            assert_eq!(len, waited);
            for got in delivered(len, aliases, identifier, 10, payload) {
                assert_eq!(got, [len], "aliases {aliases}, identifier {identifier}");
            }
        }
    }
}

/// The way a message takes must not decide whether it arrives.
#[test]
fn a_client_with_a_small_maximum_gets_what_fits() {
    let broker = broker();
    for (number, version) in [Version::V311, Version::V5].into_iter().enumerate() {
        let setup = Setup {
            packet_size_max: 100,
            ..Setup::new(version)
        };
        let mut client = Client::connect(&broker, &number.to_string(), setup);
        client.subscribe("t", QoS::AtLeastOnce);
        let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
        let (short, long) = ([b's'; 10], [b'l'; 100]);
        let run = [&short[..], &long, &short, &long, &short]
            .map(|payload| super::kit::publication(QoS::AtLeastOnce, payload));
        publisher.publish_run("t", &run).expect("accepted");
        let got = client.drain();
        assert!(got.iter().all(|received| received.payload == short));
        assert_eq!(got.len(), 3);
        client.close(GOODBYE);
    }
    assert_eq!(drops(&broker), [(Drop::TooLarge, 4)]);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}

/// A Message Expiry Interval of 0 is treated alike whichever way the message takes.
#[test]
fn an_expiry_of_0_is_one_thing_on_both_ways() {
    let broker = broker();
    let counts = [0, 9].map(|identifier| {
        let mut client = Client::connect(&broker, "c", Setup::new(Version::V5));
        client.subscribe_with("t", options(QoS::AtLeastOnce), identifier);
        let mut properties = PropertiesBuilder::new();
        properties.push(Property::MessageExpiryInterval(0));
        let mut publication = super::kit::publication(QoS::AtLeastOnce, b"x");
        publication.properties = properties.as_properties();
        Client::connect(&broker, "publisher", Setup::new(Version::V5))
            .publish_run("t", &[publication])
            .expect("accepted");
        client.drain().len()
    });
    assert_eq!(counts[0], counts[1]);
}
