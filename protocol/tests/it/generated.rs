//! Generated packets and arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidings_protocol::mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, FilterNamesBuilder, FiltersBuilder, PACKET_SIZE_MAX,
    Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe, Version, Will, fixed_header,
};

use crate::invariants::check_stream;
use crate::notation::{self, read, write};

pub fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V31, Version::V311, Version::V5])
}

/// Text of all kinds, sometimes empty, sometimes beyond the first byte of a length.
fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => "[a-zA-Z0-9/+#$ _-]{0,12}",
        2 => "[^\0]{0,8}",
        1 => "[a-z]{120,300}",
    ]
    .prop_map(|text| &*text.leak())
}

fn topic() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => "[a-zA-Z0-9/$ _-]{1,24}", 2 => "[^\0+#]{1,8}", 1 => "[a-z/]{120,300}"]
        .prop_map(|text| &*text.leak())
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 120..300)]
        .prop_map(|bytes| &*bytes.leak())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(notation::id)
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    select(codes).prop_map(|code| ReasonCode::from_u8(code).expect("codes of the specification"))
}

/// A property by its identifier, with any value that is allowed.
fn property(identifier: u8) -> BoxedStrategy<Property<'static>> {
    match identifier {
        1 => (0..=1_u8)
            .prop_map(Property::PayloadFormatIndicator)
            .boxed(),
        2 => any::<u32>()
            .prop_map(Property::MessageExpiryInterval)
            .boxed(),
        3 => text().prop_map(Property::ContentType).boxed(),
        8 => topic().prop_map(Property::ResponseTopic).boxed(),
        9 => binary().prop_map(Property::CorrelationData).boxed(),
        11 => subscription_identifier().boxed(),
        17 => any::<u32>()
            .prop_map(Property::SessionExpiryInterval)
            .boxed(),
        18 => text().prop_map(Property::AssignedClientIdentifier).boxed(),
        19 => any::<u16>().prop_map(Property::ServerKeepAlive).boxed(),
        21 => text().prop_map(Property::AuthenticationMethod).boxed(),
        22 => binary().prop_map(Property::AuthenticationData).boxed(),
        23 => any::<bool>()
            .prop_map(Property::RequestProblemInformation)
            .boxed(),
        24 => any::<u32>().prop_map(Property::WillDelayInterval).boxed(),
        25 => any::<bool>()
            .prop_map(Property::RequestResponseInformation)
            .boxed(),
        26 => text().prop_map(Property::ResponseInformation).boxed(),
        28 => text().prop_map(Property::ServerReference).boxed(),
        31 => text().prop_map(Property::ReasonString).boxed(),
        33 => (1..=u16::MAX).prop_map(Property::ReceiveMaximum).boxed(),
        34 => any::<u16>().prop_map(Property::TopicAliasMaximum).boxed(),
        35 => (1..=u16::MAX).prop_map(Property::TopicAlias).boxed(),
        36 => select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])
            .prop_map(Property::MaximumQoS)
            .boxed(),
        37 => any::<bool>().prop_map(Property::RetainAvailable).boxed(),
        38 => (text(), text())
            .prop_map(|(name, value)| Property::UserProperty(name, value))
            .boxed(),
        39 => (1..=u32::MAX).prop_map(Property::MaximumPacketSize).boxed(),
        40 => any::<bool>()
            .prop_map(Property::WildcardSubscriptionAvailable)
            .boxed(),
        41 => any::<bool>()
            .prop_map(Property::SubscriptionIdentifierAvailable)
            .boxed(),
        42 => any::<bool>()
            .prop_map(Property::SharedSubscriptionAvailable)
            .boxed(),
        other => unreachable!("no property has the identifier {other}"),
    }
}

fn subscription_identifier() -> impl Strategy<Value = Property<'static>> {
    prop_oneof![1..200_u32, 1..=268_435_455_u32].prop_map(Property::SubscriptionIdentifier)
}

/// Properties for a packet: `always`, some of `once`, several of `repeated`, User Properties; in
/// any order.
fn properties_of(
    version: Version,
    always: &'static [u8],
    once: &'static [u8],
    repeated: &'static [u8],
) -> BoxedStrategy<Properties<'static>> {
    if !version.is_v5() {
        return Just(Properties::EMPTY).boxed();
    }
    let always: Vec<_> = always
        .iter()
        .map(|&identifier| property(identifier))
        .collect();
    let once: Vec<_> = once
        .iter()
        .map(|&identifier| prop::option::weighted(0.3, property(identifier)))
        .collect();
    let repeated: Vec<_> = repeated
        .iter()
        .chain(&[38])
        .map(|&identifier| vec(property(identifier), 0..4))
        .collect();
    (always, once, repeated)
        .prop_map(|(always, once, repeated)| {
            always
                .into_iter()
                .chain(once.into_iter().flatten())
                .chain(repeated.into_iter().flatten())
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(|list| notation::properties(&list))
        .boxed()
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let properties = properties_of(version, &[], &[1, 2, 3, 8, 9, 24], &[]);
    (qos(), any::<bool>(), topic(), binary(), properties).prop_map(
        |(qos, retain, topic, payload, properties)| Will {
            qos,
            retain,
            topic,
            payload,
            properties,
        },
    )
}

fn connect(version: Version) -> BoxedStrategy<Packet<'static>> {
    let properties = prop_oneof![
        properties_of(version, &[], &[17, 21, 23, 25, 33, 34, 39], &[]),
        properties_of(version, &[21, 22], &[17, 23, 25, 33, 34, 39], &[]),
    ];
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        prop::option::of(will(version)),
        prop::option::of(text()),
        prop::option::of(binary()),
        properties,
    )
        .prop_map(
            move |(
                clean_start,
                keep_alive_secs,
                client_id,
                will,
                username,
                password,
                properties,
            )| {
                // The rules that bind these fields to one another before MQTT 5.
                let client_id = match (version, client_id) {
                    (Version::V31, "") => "c",
                    (_, client_id) => client_id,
                };
                let clean_start = clean_start || (!version.is_v5() && client_id.is_empty());
                let password = password.filter(|_| version.is_v5() || username.is_some());
                Packet::Connect(Connect {
                    version,
                    clean_start,
                    keep_alive_secs,
                    client_id,
                    will,
                    username,
                    password,
                    properties,
                })
            },
        )
        .boxed()
}

fn connack(version: Version) -> BoxedStrategy<Packet<'static>> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0, 0, 0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        _ => &[0, 0, 0x84, 0x85, 0x86, 0x87, 0x88],
    };
    let properties = properties_of(
        version,
        &[],
        &[
            17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 39, 40, 41, 42,
        ],
        &[],
    );
    (any::<bool>(), reason(codes), properties)
        .prop_map(move |(present, reason, properties)| {
            let may_say_present = version != Version::V31 && reason == ReasonCode::Success;
            let session_present = present && may_say_present;
            Packet::ConnAck(ConnAck {
                session_present,
                reason,
                properties,
            })
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Packet<'static>> {
    let with_topic = (
        topic(),
        properties_of(version, &[], &[1, 2, 3, 8, 9, 35], &[11]),
    );
    let with_alias = (
        Just(""),
        properties_of(Version::V5, &[35], &[1, 2, 3, 8, 9], &[11]),
    );
    let target = match version {
        Version::V5 => prop_oneof![3 => with_topic, 1 => with_alias].boxed(),
        _ => with_topic.boxed(),
    };
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        packet_id(),
        target,
        binary(),
    )
        .prop_map(
            |(dup, qos, retain, packet_id, (topic, properties), payload)| {
                let acknowledged = qos != QoS::AtMostOnce;
                let packet_id = acknowledged.then_some(packet_id);
                let dup = dup && acknowledged;
                Packet::Publish(Publish {
                    dup,
                    qos,
                    retain,
                    topic,
                    packet_id,
                    properties,
                    payload,
                })
            },
        )
        .boxed()
}

fn ack(
    version: Version,
    make: fn(Ack<'static>) -> Packet<'static>,
    codes: &'static [u8],
) -> BoxedStrategy<Packet<'static>> {
    let codes = if version.is_v5() { codes } else { &[0] };
    (
        packet_id(),
        reason(codes),
        properties_of(version, &[], &[31], &[]),
    )
        .prop_map(move |(packet_id, reason, properties)| {
            make(Ack {
                packet_id,
                reason,
                properties,
            })
        })
        .boxed()
}

fn options(version: Version) -> BoxedStrategy<SubscriptionOptions> {
    let retain_handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (qos(), any::<bool>(), any::<bool>(), retain_handling)
        .prop_map(
            move |(qos, no_local, retain_as_published, retain_handling)| match version {
                Version::V5 => SubscriptionOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                },
                _ => SubscriptionOptions {
                    qos,
                    ..SubscriptionOptions::default()
                },
            },
        )
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Packet<'static>> {
    let properties = properties_of(version, &[], &[11], &[]);
    let filter = prop_oneof![4 => text(), 1 => Just("$share/g/a/#")];
    (
        packet_id(),
        properties,
        vec((filter, options(version)), 1..5),
    )
        .prop_map(|(packet_id, properties, list)| {
            let mut builder = FiltersBuilder::new();
            for (filter, options) in list {
                let no_local = options.no_local && !filter.starts_with("$share/");
                builder.push(
                    filter,
                    SubscriptionOptions {
                        no_local,
                        ..options
                    },
                );
            }
            let filters = Box::leak(Box::new(builder)).as_filters();
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<Packet<'static>> {
    (
        packet_id(),
        properties_of(version, &[], &[], &[]),
        vec(text(), 1..5),
    )
        .prop_map(|(packet_id, properties, list)| {
            let mut builder = FilterNamesBuilder::new();
            for filter in list {
                builder.push(filter);
            }
            let filters = Box::leak(Box::new(builder)).as_filters();
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        })
        .boxed()
}

fn suback(version: Version) -> BoxedStrategy<Packet<'static>> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
        _ => &[0, 1, 2, 0x80],
    };
    (
        packet_id(),
        properties_of(version, &[], &[31], &[]),
        vec(select(codes), 1..200),
    )
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons: reasons.leak(),
            })
        })
        .boxed()
}

fn unsuback(version: Version) -> BoxedStrategy<Packet<'static>> {
    let codes = select(vec![0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]);
    let count = if version.is_v5() { 1..20 } else { 0..1 };
    (
        packet_id(),
        properties_of(version, &[], &[31], &[]),
        vec(codes, count),
    )
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons: reasons.leak(),
            })
        })
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<Packet<'static>> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
            0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        _ => &[0],
    };
    (
        reason(codes),
        properties_of(version, &[], &[17, 28, 31], &[]),
    )
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
        .boxed()
}

fn auth() -> BoxedStrategy<Packet<'static>> {
    let properties = properties_of(Version::V5, &[21], &[22, 31], &[]);
    (reason(&[0, 0x18, 0x19]), properties)
        .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }))
        .boxed()
}

/// Any valid packet of a version, in the form in which it is written.
pub fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    const RECEIPT: &[u8] = &[0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASE: &[u8] = &[0, 0x92];
    let mut all = vec![
        connect(version),
        connack(version),
        publish(version),
        publish(version),
        ack(version, Packet::PubAck, RECEIPT),
        ack(version, Packet::PubRec, RECEIPT),
        ack(version, Packet::PubRel, RELEASE),
        ack(version, Packet::PubComp, RELEASE),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        select(vec![Packet::PingReq, Packet::PingResp]).boxed(),
        disconnect(version),
    ];
    if version.is_v5() {
        all.push(auth());
    }
    proptest::strategy::Union::new(all).boxed()
}

fn versioned_packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

/// A change to a packet's bytes, as a faulty or hostile peer would make it.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    FlipBit(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Bytes that mean something in a packet are likelier than chance would have it.
    let byte = prop_oneof![
        any::<u8>(),
        select(vec![
            0, 1, 2, 0x7F, 0x80, 0xFF, b'+', b'#', 0x26, 0x23, 0x0B
        ])
    ];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::Truncate),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Set(at, byte) => *at.get_mut(bytes) = *byte,
        Damage::FlipBit(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
        Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
        Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
        Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
    }
}

/// A body with a first byte and the Remaining Length that fits.
fn frame(first_byte: u8, body: &[u8]) -> Vec<u8> {
    [
        &[first_byte],
        notation::variable(body.len()).as_slice(),
        body,
    ]
    .concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decoding_undoes_encoding((version, packet) in versioned_packet()) {
        let bytes = write(version, &packet);
        prop_assert_eq!(read(version, &bytes), Ok(Some(packet)));
        prop_assert_eq!(check_stream(version, &bytes), 1);
    }

    #[test]
    fn encoding_appends((version, packet) in versioned_packet(), before in vec(any::<u8>(), 0..20)) {
        let mut out = before.clone();
        packet.encode(version, &mut out);
        prop_assert_eq!(&out[..before.len()], &before);
        prop_assert_eq!(&out[before.len()..], &write(version, &packet));
    }

    #[test]
    fn a_stream_in_any_pieces(
        (version, packets) in version().prop_flat_map(|version| (Just(version), vec(packet(version), 1..6))),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let stream: Vec<u8> = packets.iter().flat_map(|packet| write(version, packet)).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        // A reader that keeps what it could not use yet, as a connection does.
        let mut found = 0;
        let mut buffer = Vec::new();
        let mut arrived = 0;
        for cut in cuts {
            buffer.extend_from_slice(&stream[arrived..cut]);
            arrived = cut;
            let mut used = 0;
            while let Some(packet) = read(version, &buffer[used..]).expect("the stream is valid") {
                prop_assert_eq!(packet, packets[found]);
                found += 1;
                let header = fixed_header(&buffer[used..], PACKET_SIZE_MAX);
                used += header.expect("valid").expect("complete").total_len();
            }
            buffer.drain(..used);
        }
        prop_assert_eq!(found, packets.len());
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(check_stream(version, &stream), packets.len());
    }

    #[test]
    fn damaged_packets(
        (version, packet) in versioned_packet(),
        damage in vec(damage(), 1..4),
        fix_length in any::<bool>(),
        other in version(),
    ) {
        let mut bytes = write(version, &packet);
        if fix_length {
            let header = fixed_header(&bytes, PACKET_SIZE_MAX).expect("valid").expect("complete");
            let mut body = bytes.split_off(header.header_len);
            damage.iter().for_each(|damage| apply(damage, &mut body));
            bytes = frame(header.first_byte, &body);
        } else {
            damage.iter().for_each(|damage| apply(damage, &mut bytes));
        }
        check_stream(version, &bytes);
        check_stream(other, &bytes);
    }

    #[test]
    fn arbitrary_bytes(version in version(), bytes in vec(any::<u8>(), 0..200)) {
        check_stream(version, &bytes);
    }

    #[test]
    fn arbitrary_bodies(version in version(), first_byte in 0x10..=0xFF_u8, body in vec(any::<u8>(), 0..100)) {
        check_stream(version, &frame(first_byte, &body));
        // Half of all first bytes are refused at once; give the bodies their chance.
        let flags = if matches!(first_byte >> 4, 6 | 8 | 10) { 2 } else { 0 };
        check_stream(version, &frame(first_byte & 0xF0 | flags, &body));
    }

    /// Property sections made of valid and damaged properties in any packet that may have them.
    #[test]
    fn arbitrary_properties(list in vec((1..=42_u8, vec(any::<u8>(), 0..8)), 0..6), payload in vec(any::<u8>(), 0..4)) {
        let section: Vec<u8> = list.iter().flat_map(|(identifier, value)| [&[*identifier], value.as_slice()].concat()).collect();
        let section = [notation::variable(section.len()), section].concat();
        for (first_byte, before) in [(0x30, b"\x00\x01a".as_slice()), (0x40, b"\x00\x01\x10"), (0x20, b"\x00\x00"), (0xE0, b"\x00"), (0xF0, b"\x18"), (0x82, b"\x00\x01")] {
            check_stream(Version::V5, &frame(first_byte, &[before, &section, &payload].concat()));
        }
    }
}
