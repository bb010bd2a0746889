//! PUBLISH.

use tidings_protocol::mqtt::{
    Packet, Properties, PropertiesBuilder, Property, Publish, QoS, ReasonCode, SubAck, Version,
};

use super::{Case, both, fails, forbidden, malformed, writes};
use crate::notation::{ALL, V3, V5, V311, bytes, id, properties, read, write};

const MESSAGE: Publish<'static> = Publish {
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    topic: "a/b",
    packet_id: None,
    properties: Properties::EMPTY,
    payload: b"hi",
};

fn with(list: &[Property<'_>]) -> Packet<'static> {
    Packet::Publish(Publish {
        properties: properties(list),
        ..MESSAGE
    })
}

pub fn cases() -> Vec<Case> {
    use Packet::Publish as P;
    let qos1 = Publish {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(0x1234)),
        ..MESSAGE
    };
    let qos2 = Publish {
        qos: QoS::ExactlyOnce,
        packet_id: Some(id(65_535)),
        ..MESSAGE
    };
    let mut cases = vec![
        both("PUBLISH 3", V3, "30 [ 'a/b' ~hi~ ]", P(MESSAGE)),
        both(
            "PUBLISH 3 byte for byte",
            V3,
            "30 07 00 03 61 2F 62 68 69",
            P(MESSAGE),
        ),
        both("PUBLISH 5", V5, "30 [ 'a/b' 00 ~hi~ ]", P(MESSAGE)),
        both("PUBLISH 3 QoS 1", V3, "32 [ 'a/b' 1234 ~hi~ ]", P(qos1)),
        both("PUBLISH 5 QoS 1", V5, "32 [ 'a/b' 1234 00 ~hi~ ]", P(qos1)),
        both("PUBLISH 3 QoS 2", V3, "34 [ 'a/b' FFFF ~hi~ ]", P(qos2)),
        both("PUBLISH 5 QoS 2", V5, "34 [ 'a/b' FFFF 00 ~hi~ ]", P(qos2)),
        both(
            "PUBLISH retained",
            V3,
            "31 [ 'a/b' ~hi~ ]",
            P(Publish {
                retain: true,
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH again, QoS 1",
            V3,
            "3A [ 'a/b' 1234 ~hi~ ]",
            P(Publish { dup: true, ..qos1 }),
        ),
        both(
            "PUBLISH again, QoS 2, retained",
            V5,
            "3D [ 'a/b' FFFF 00 ~hi~ ]",
            P(Publish {
                dup: true,
                retain: true,
                ..qos2
            }),
        ),
        both(
            "PUBLISH 3 without a payload",
            V3,
            "30 [ 'a/b' ]",
            P(Publish {
                payload: b"",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH 5 without a payload",
            V5,
            "30 [ 'a/b' 00 ]",
            P(Publish {
                payload: b"",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH with a binary payload",
            V5,
            "30 [ 'a/b' 00 00FF00C328 ]",
            P(Publish {
                payload: b"\x00\xFF\x00\xC3\x28",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH with a long payload",
            V311,
            &format!("30 [ 'a/b' ~{}~ ]", "x".repeat(20_000)),
            P(Publish {
                payload: "x".repeat(20_000).leak().as_bytes(),
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to a topic outside ASCII",
            V5,
            "30 [ 'ärger/漢字/🦀' 00 ~hi~ ]",
            P(Publish {
                topic: "ärger/漢字/🦀",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to /",
            V3,
            "30 [ '/' ~hi~ ]",
            P(Publish {
                topic: "/",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to $SYS",
            V3,
            "30 [ '$SYS/x' ~hi~ ]",
            P(Publish {
                topic: "$SYS/x",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to a topic with spaces",
            V3,
            "30 [ 'a b/ c' ~hi~ ]",
            P(Publish {
                topic: "a b/ c",
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to the longest topic",
            V5,
            &format!("30 [ '{}' 00 ~hi~ ]", "t".repeat(65_535)),
            P(Publish {
                topic: "t".repeat(65_535).leak(),
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH to 20,000 levels",
            V311,
            &format!("30 [ '{}' ~hi~ ]", "/".repeat(19_999)),
            P(Publish {
                topic: "/".repeat(19_999).leak(),
                ..MESSAGE
            }),
        ),
        writes(
            "PUBLISH 3 leaves properties out",
            V3,
            "30 [ 'a/b' ~hi~ ]",
            with(&[Property::TopicAlias(1)]),
        ),
        malformed(
            "PUBLISH 3 to no topic",
            V3,
            "30 [ '' ~hi~ ]",
            "MQTT311-4.7.3-1",
        ),
        forbidden(
            "PUBLISH 5 to no topic and no alias",
            V5,
            "30 [ '' 00 ~hi~ ]",
            "MQTT5 §3.3.2.1",
        ),
        forbidden(
            "PUBLISH 5 to no topic and no alias, but with a property",
            V5,
            "30 [ '' [ 01 01 ] ~hi~ ]",
            "MQTT5 §3.3.2.1",
        ),
        malformed(
            "PUBLISH to a topic with #",
            ALL,
            "30 [ 'a/#' 00 ~hi~ ]",
            "MQTT-3.3.2-2",
        ),
        malformed(
            "PUBLISH to a topic with +",
            ALL,
            "30 [ '+/b' 00 ~hi~ ]",
            "MQTT311-4.7.1-1",
        ),
        malformed(
            "PUBLISH to a topic with a wildcard inside a level",
            ALL,
            "30 [ 'a+b' 00 ~hi~ ]",
            "MQTT-4.7.0-1",
        ),
        malformed(
            "PUBLISH to a long topic with a wildcard at its end",
            ALL,
            "30 [ 'sensors/building/floor/room/device/quantity/unit#' 00 ~hi~ ]",
            "MQTT-3.3.2-2",
        ),
        malformed(
            "PUBLISH to a topic with U+0000",
            ALL,
            "30 [ 0003 610062 00 ~hi~ ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "PUBLISH to a topic with U+0000 and a wildcard",
            ALL,
            "30 [ 0003 2B0062 00 ~hi~ ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "PUBLISH to a topic that is not UTF-8",
            ALL,
            "30 [ 0003 61FF62 00 ~hi~ ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "PUBLISH to a topic with a surrogate",
            ALL,
            "30 [ 0003 EDBFBF 00 ~hi~ ]",
            "MQTT311-1.5.3-1",
        ),
        malformed(
            "PUBLISH to a topic that is cut inside a character",
            ALL,
            "30 [ 0002 E6BC ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "PUBLISH to a topic beyond Unicode",
            ALL,
            "30 [ 0004 F4908080 00 ]",
            "MQTT-1.5.4-1",
        ),
        malformed("PUBLISH without a body", ALL, "30 00", "MQTT5 §2.1.4"),
        malformed(
            "PUBLISH with half a topic length",
            ALL,
            "30 01 00",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "PUBLISH whose topic is longer than the packet",
            ALL,
            "30 [ 0005 ~ab~ ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "PUBLISH whose topic is much longer than the packet",
            ALL,
            "32 [ FFFF ~ab~ ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "PUBLISH QoS 1 without a Packet Identifier",
            ALL,
            "32 [ 'a/b' ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "PUBLISH QoS 2 with half a Packet Identifier",
            ALL,
            "34 [ 'a/b' 00 ]",
            "MQTT5 §2.1.4",
        ),
        forbidden(
            "PUBLISH QoS 1 with Packet Identifier 0",
            ALL,
            "32 [ 'a/b' 0000 00 ]",
            "MQTT-2.2.1-3",
        ),
        forbidden(
            "PUBLISH QoS 2 with Packet Identifier 0",
            ALL,
            "34 [ 'a/b' 0000 00 ]",
            "MQTT311-2.3.1-1",
        ),
        malformed(
            "PUBLISH 5 without a Property Length",
            V5,
            "30 [ 'a/b' ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "PUBLISH whose properties are longer than the packet",
            V5,
            "30 [ 'a/b' 05 01 01 ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "PUBLISH whose property is longer than the section",
            V5,
            "30 [ 'a/b' 03 02 000000 0A ~hi~ ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "PUBLISH whose string property is longer than the section",
            V5,
            "30 [ 'a/b' 05 03 'abcdef' ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "PUBLISH with an identifier and nothing after it",
            V5,
            "30 [ 'a/b' [ 01 ] ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "PUBLISH with a User Property without a value",
            V5,
            "30 [ 'a/b' [ 26 'name' ] ~hi~ ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "PUBLISH with a property that does not exist",
            V5,
            "30 [ 'a/b' [ 00 00 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "PUBLISH with a property of CONNECT",
            V5,
            "30 [ 'a/b' [ 11 00000001 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "PUBLISH with a property of the Will",
            V5,
            "30 [ 'a/b' [ 18 00000001 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "PUBLISH with a Reason String",
            V5,
            "30 [ 'a/b' [ 1F 'why' ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "PUBLISH with Payload Format Indicator 2",
            V5,
            "30 [ 'a/b' [ 01 02 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "PUBLISH with Payload Format Indicator twice",
            V5,
            "30 [ 'a/b' [ 01 01 01 01 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "PUBLISH with Topic Alias twice",
            V5,
            "30 [ 'a/b' [ 23 0001 23 0001 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "PUBLISH with Content Type twice, apart",
            V5,
            "30 [ 'a/b' [ 03 'x' 26 'k' 'v' 03 'y' ] ]",
            "MQTT5 §2.2.2.2",
        ),
        fails(
            "PUBLISH with Topic Alias 0",
            V5,
            "30 [ 'a/b' [ 23 0000 ] ]",
            ReasonCode::TopicAliasInvalid,
            "MQTT-3.3.2-8",
        ),
        fails(
            "PUBLISH with Topic Alias 0 for its topic",
            V5,
            "30 [ '' [ 23 0000 ] ]",
            ReasonCode::TopicAliasInvalid,
            "MQTT-3.3.2-8",
        ),
        forbidden(
            "PUBLISH with Subscription Identifier 0",
            V5,
            "30 [ 'a/b' [ 0B 00 ] ]",
            "MQTT5 §3.8.2.1.2",
        ),
        malformed(
            "PUBLISH with a Subscription Identifier of five bytes",
            V5,
            "30 [ 'a/b' [ 0B 80 80 80 80 01 ] ]",
            "MQTT5 §1.5.5",
        ),
        malformed(
            "PUBLISH with a Subscription Identifier that is not minimal",
            V5,
            "30 [ 'a/b' [ 0B 81 00 ] ]",
            "MQTT-1.5.5-1",
        ),
        malformed(
            "PUBLISH with an empty Response Topic",
            V5,
            "30 [ 'a/b' [ 08 '' ] ]",
            "MQTT-4.7.3-1",
        ),
        malformed(
            "PUBLISH with # in the Response Topic",
            V5,
            "30 [ 'a/b' [ 08 'r/#' ] ]",
            "MQTT-3.3.2-14",
        ),
        malformed(
            "PUBLISH with + in the Response Topic",
            V5,
            "30 [ 'a/b' [ 08 '+/r' ] ]",
            "MQTT-3.3.2-14",
        ),
        malformed(
            "PUBLISH with U+0000 in the Response Topic",
            V5,
            "30 [ 'a/b' [ 08 0002 7200 ] ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "PUBLISH with U+0000 in the Content Type",
            V5,
            "30 [ 'a/b' [ 03 0001 00 ] ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "PUBLISH with a Content Type that is not UTF-8",
            V5,
            "30 [ 'a/b' [ 03 0001 80 ] ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "PUBLISH with a User Property name that is not UTF-8",
            V5,
            "30 [ 'a/b' [ 26 0001 80 'v' ] ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "PUBLISH with U+0000 in a User Property value",
            V5,
            "30 [ 'a/b' [ 26 'k' 0001 00 ] ]",
            "MQTT-1.5.4-2",
        ),
        both(
            "PUBLISH with a Topic Alias for its topic",
            V5,
            "30 [ '' [ 23 FFFF ] ~hi~ ]",
            P(Publish {
                topic: "",
                properties: properties(&[Property::TopicAlias(65_535)]),
                ..MESSAGE
            }),
        ),
        both(
            "PUBLISH with three Subscription Identifiers",
            V5,
            "30 [ 'a/b' [ 0B 01 0B 80 01 0B FF FF FF 7F ] ~hi~ ]",
            with(&[
                Property::SubscriptionIdentifier(1),
                Property::SubscriptionIdentifier(128),
                Property::SubscriptionIdentifier(268_435_455),
            ]),
        ),
        both(
            "PUBLISH with all its properties",
            V5,
            "30 [ 'a/b' [ 01 00 02 00000000 03 '' 08 'r' 09 0000 0B 07 23 0001 26 'k' '' ] ~hi~ ]",
            with(&[
                Property::PayloadFormatIndicator(0),
                Property::MessageExpiryInterval(0),
                Property::ContentType(""),
                Property::ResponseTopic("r"),
                Property::CorrelationData(b""),
                Property::SubscriptionIdentifier(7),
                Property::TopicAlias(1),
                Property::UserProperty("k", ""),
            ]),
        ),
        both(
            "PUBLISH keeps the order of User Properties",
            V5,
            "30 [ 'a/b' [ 26 'b' '1' 01 01 26 'a' '2' 26 'b' '3' ] ~hi~ ]",
            with(&[
                Property::UserProperty("b", "1"),
                Property::PayloadFormatIndicator(1),
                Property::UserProperty("a", "2"),
                Property::UserProperty("b", "3"),
            ]),
        ),
        both(
            "PUBLISH whose payload looks like properties",
            V5,
            "30 [ 'a/b' [ 0B 05 ] 0B 06 ]",
            P(Publish {
                properties: properties(&[Property::SubscriptionIdentifier(5)]),
                payload: b"\x0B\x06",
                ..MESSAGE
            }),
        ),
    ];
    for (name, notation, property) in [
        (
            "Payload Format Indicator",
            "01 01",
            Property::PayloadFormatIndicator(1),
        ),
        (
            "Message Expiry Interval",
            "02 FFFFFFFF",
            Property::MessageExpiryInterval(u32::MAX),
        ),
        (
            "Content Type",
            "03 'a/json'",
            Property::ContentType("a/json"),
        ),
        ("Response Topic", "08 'r/1'", Property::ResponseTopic("r/1")),
        (
            "Correlation Data",
            "09 0003 00FF7F",
            Property::CorrelationData(b"\x00\xFF\x7F"),
        ),
        (
            "a Subscription Identifier",
            "0B 80 01",
            Property::SubscriptionIdentifier(128),
        ),
        ("Topic Alias", "23 0001", Property::TopicAlias(1)),
        (
            "a User Property",
            "26 'name' 'välue'",
            Property::UserProperty("name", "välue"),
        ),
    ] {
        let name = format!("PUBLISH with {name}").leak();
        cases.push(both(
            name,
            V5,
            &format!("30 [ 'a/b' [ {notation} ] ~hi~ ]"),
            with(&[property]),
        ));
    }
    cases
}

/// One encoding serves many receivers: the Packet Identifier is patched where `encode` says.
#[test]
fn position_of_the_packet_identifier() {
    for version in [Version::V311, Version::V5] {
        for topic in ["a", "a/b", &"t".repeat(200), &"t".repeat(20_000)] {
            for packet_id in [None, Some(id(7))] {
                let packet = Publish {
                    topic,
                    qos: QoS::AtLeastOnce,
                    packet_id,
                    ..MESSAGE
                };
                let mut out = b"before".to_vec();
                let at = packet.encode(version, &mut out).unwrap();
                assert_eq!(out.len() - 6, packet.encoded_len(version));
                out[at..at + 2].copy_from_slice(&id(0x4321).to_be_bytes());
                let patched = Publish {
                    packet_id: Some(id(0x4321)),
                    ..packet
                };
                assert_eq!(read(version, &out[6..]), Ok(Some(Packet::Publish(patched))));
            }
        }
        assert_eq!(MESSAGE.encode(version, &mut Vec::new()), None);
    }
}

/// Properties of the receiver's own come after those of the message.
#[test]
fn further_properties() {
    let message = Publish {
        properties: properties(&[Property::ContentType("x")]),
        ..MESSAGE
    };
    let mut more = PropertiesBuilder::new();
    more.push(Property::SubscriptionIdentifier(1))
        .push(Property::SubscriptionIdentifier(2));
    let mut out = Vec::new();
    message.encode_with(Version::V5, more.as_properties(), &mut out);
    assert_eq!(out, bytes("30 [ 'a/b' [ 03 'x' 0B 01 0B 02 ] ~hi~ ]"));
    out.clear();
    message.encode_with(Version::V311, more.as_properties(), &mut out);
    assert_eq!(out, bytes("30 [ 'a/b' ~hi~ ]"));
}

/// The Remaining Length grows by a byte exactly where the specification says, whether it is known
/// beforehand (PUBLISH) or only afterwards (all others).
#[test]
fn lengths_at_their_boundaries() {
    let bytes = vec![0; 2_097_160];
    for remaining in [127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
        let publish = Packet::Publish(Publish {
            payload: &bytes[..remaining - 5],
            ..MESSAGE
        });
        let reasons = &bytes[..remaining - 2];
        let properties = Properties::EMPTY;
        let suback = Packet::SubAck(SubAck {
            packet_id: id(1),
            properties,
            reasons,
        });
        for packet in [publish, suback] {
            let written = write(Version::V311, &packet);
            let length = crate::notation::variable(remaining);
            assert_eq!(written[1..=length.len()], length);
            assert_eq!(written.len(), 1 + length.len() + remaining);
            assert_eq!(read(Version::V311, &written), Ok(Some(packet)));
            if let Packet::Publish(publish) = packet {
                assert_eq!(publish.encoded_len(Version::V311), written.len());
            }
        }
    }
    // The same for the Property Length, at the lengths that properties can have.
    for len in [127, 128, 16_383, 16_384] {
        let text = "x".repeat(len - 3);
        let list = properties(&[Property::ContentType(&text)]);
        let publish = Publish {
            properties: list,
            ..MESSAGE
        };
        let written = write(Version::V5, &Packet::Publish(publish));
        assert_eq!(publish.encoded_len(Version::V5), written.len());
        assert_eq!(
            read(Version::V5, &written),
            Ok(Some(Packet::Publish(publish)))
        );
    }
}

/// What MQTT cannot say is not said at all, rather than said wrongly.
#[test]
fn too_large_to_encode() {
    let payload = vec![0; 268_435_455 - 5 + 1];
    let packet = Publish {
        payload: &payload,
        ..MESSAGE
    };
    let mut out = Vec::new();
    packet.encode(Version::V311, &mut out);
    assert!(out.is_empty());
    Publish {
        payload: &payload[1..],
        ..MESSAGE
    }
    .encode(Version::V311, &mut out);
    assert_eq!(out.len(), 268_435_455 + 5);
}
