//! CONNECT.

use tidings_protocol::mqtt::{
    Connect, Packet, Properties, Property, QoS, ReasonCode, Version, Will,
};

use super::{Case, both, fails, forbidden, malformed, reads};
use crate::notation::{ALL, V3, V5, V31, V311, bytes, properties};

pub const CLIENT: Connect<'static> = Connect {
    version: Version::V5,
    clean_start: true,
    keep_alive_secs: 60,
    client_id: "c",
    will: None,
    username: None,
    password: None,
    properties: Properties::EMPTY,
};
pub const CLIENT_V311: Connect<'static> = Connect {
    version: Version::V311,
    ..CLIENT
};
const CLIENT_V31: Connect<'static> = Connect {
    version: Version::V31,
    ..CLIENT
};

fn with(property: Property<'_>) -> Packet<'static> {
    Packet::Connect(Connect {
        properties: properties(&[property]),
        ..CLIENT
    })
}

pub fn cases() -> Vec<Case> {
    use Packet::Connect as P;
    let mut cases = vec![
        // CONNECT says its own version, so each is tried with every version given to `decode`.
        both(
            "CONNECT 3.1",
            ALL,
            "10 [ 'MQIsdp' 03 02 003C 'c' ]",
            P(CLIENT_V31),
        ),
        both(
            "CONNECT 3.1.1",
            ALL,
            "10 [ 'MQTT' 04 02 003C 'c' ]",
            P(CLIENT_V311),
        ),
        both(
            "CONNECT 5",
            ALL,
            "10 [ 'MQTT' 05 02 003C [ ] 'c' ]",
            P(CLIENT),
        ),
        both(
            "CONNECT 3.1.1 byte for byte",
            V311,
            "10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 63",
            P(CLIENT_V311),
        ),
        both(
            "CONNECT continues a Session",
            V5,
            "10 [ 'MQTT' 05 00 003C 00 'c' ]",
            P(Connect {
                clean_start: false,
                ..CLIENT
            }),
        ),
        both(
            "CONNECT without Keep Alive",
            V311,
            "10 [ 'MQTT' 04 02 0000 'c' ]",
            P(Connect {
                keep_alive_secs: 0,
                ..CLIENT_V311
            }),
        ),
        both(
            "CONNECT with the longest Keep Alive",
            V311,
            "10 [ 'MQTT' 04 02 FFFF 'c' ]",
            P(Connect {
                keep_alive_secs: 65_535,
                ..CLIENT_V311
            }),
        ),
        both(
            "CONNECT 3.1.1 with everything",
            V311,
            "10 [ 'MQTT' 04 F6 000A 'client' 'a/will' 0002 ~by~ 'me' 0003 FF00FE ]",
            P(Connect {
                keep_alive_secs: 10,
                client_id: "client",
                will: Some(Will {
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    topic: "a/will",
                    payload: b"by",
                    properties: Properties::EMPTY,
                }),
                username: Some("me"),
                password: Some(b"\xFF\x00\xFE"),
                ..CLIENT_V311
            }),
        ),
        both(
            "CONNECT 3.1 with everything",
            V31,
            "10 [ 'MQIsdp' 03 F6 000A 'client' 'a/will' 0002 ~by~ 'me' 0003 ~pwd~ ]",
            P(Connect {
                keep_alive_secs: 10,
                client_id: "client",
                will: Some(Will {
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    topic: "a/will",
                    payload: b"by",
                    properties: Properties::EMPTY,
                }),
                username: Some("me"),
                password: Some(b"pwd"),
                ..CLIENT_V31
            }),
        ),
        both(
            "CONNECT 5 with everything",
            V5,
            "10 [ 'MQTT' 05 EC 000A [ 11 0000000A 21 0014 ] 'client' \
             [ 18 00000005 01 01 ] 'a/will' 0002 ~by~ 'me' 0003 FF00FE ]",
            P(Connect {
                version: Version::V5,
                clean_start: false,
                keep_alive_secs: 10,
                client_id: "client",
                will: Some(Will {
                    qos: QoS::AtLeastOnce,
                    retain: true,
                    topic: "a/will",
                    payload: b"by",
                    properties: properties(&[
                        Property::WillDelayInterval(5),
                        Property::PayloadFormatIndicator(1),
                    ]),
                }),
                username: Some("me"),
                password: Some(b"\xFF\x00\xFE"),
                properties: properties(&[
                    Property::SessionExpiryInterval(10),
                    Property::ReceiveMaximum(20),
                ]),
            }),
        ),
        // The Client Identifier.
        both(
            "CONNECT 5 without a Client Identifier",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 '' ]",
            P(Connect {
                client_id: "",
                ..CLIENT
            }),
        ),
        both(
            "CONNECT 5 without a Client Identifier, not clean",
            V5,
            "10 [ 'MQTT' 05 00 003C 00 '' ]",
            P(Connect {
                client_id: "",
                clean_start: false,
                ..CLIENT
            }),
        ),
        both(
            "CONNECT 3.1.1 without a Client Identifier, clean",
            V311,
            "10 [ 'MQTT' 04 02 003C '' ]",
            P(Connect {
                client_id: "",
                ..CLIENT_V311
            }),
        ),
        fails(
            "CONNECT 3.1.1 without a Client Identifier, not clean",
            V311,
            "10 [ 'MQTT' 04 00 003C '' ]",
            ReasonCode::ClientIdentifierNotValid,
            "MQTT311-3.1.3-8",
        ),
        fails(
            "CONNECT 3.1 without a Client Identifier",
            V31,
            "10 [ 'MQIsdp' 03 02 003C '' ]",
            ReasonCode::ClientIdentifierNotValid,
            "MQTT311-3.1.3-8",
        ),
        both(
            "CONNECT 3.1 with a Client Identifier beyond 23 characters",
            V31,
            "10 [ 'MQIsdp' 03 02 003C '0123456789012345678901234' ]",
            P(Connect {
                client_id: "0123456789012345678901234",
                ..CLIENT_V31
            }),
        ),
        both(
            "CONNECT with a Client Identifier outside ASCII",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 'äß漢🦀' ]",
            P(Connect {
                client_id: "äß漢🦀",
                ..CLIENT
            }),
        ),
        both(
            "CONNECT keeps a byte order mark",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 0004 EFBBBF 61 ]",
            P(Connect {
                client_id: "\u{FEFF}a",
                ..CLIENT
            }),
        ),
        malformed(
            "CONNECT with a Client Identifier that is not UTF-8",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 0002 C328 ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "CONNECT with a surrogate in the Client Identifier",
            V311,
            "10 [ 'MQTT' 04 02 003C 0003 EDA080 ]",
            "MQTT311-1.5.3-1",
        ),
        malformed(
            "CONNECT with an overlong form in the Client Identifier",
            V311,
            "10 [ 'MQTT' 04 02 003C 0002 C080 ]",
            "MQTT311-1.5.3-1",
        ),
        malformed(
            "CONNECT with U+0000 in the Client Identifier",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 0003 610062 ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "CONNECT without a Client Identifier field",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNECT whose Client Identifier is longer than the packet",
            V5,
            "10 [ 'MQTT' 05 02 003C 00 0005 61 ]",
            "MQTT5 §2.1.4",
        ),
        // Protocol name and level.
        fails(
            "CONNECT with an unknown protocol name",
            V5,
            "10 [ 'MQTx' 05 02 003C 00 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT-3.1.2-1",
        ),
        fails(
            "CONNECT with a protocol name in lower case",
            V311,
            "10 [ 'mqtt' 04 02 003C 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT311-3.1.2-1",
        ),
        fails(
            "CONNECT with an empty protocol name",
            V5,
            "10 [ '' 05 02 003C 00 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT-3.1.2-1",
        ),
        fails(
            "CONNECT with protocol level 6",
            V5,
            "10 [ 'MQTT' 06 02 003C 00 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT-3.1.2-2",
        ),
        fails(
            "CONNECT with protocol level 3 and the later name",
            V311,
            "10 [ 'MQTT' 03 02 003C 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT311-3.1.2-2",
        ),
        fails(
            "CONNECT with protocol level 4 and the early name",
            V31,
            "10 [ 'MQIsdp' 04 02 003C 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT-3.1.2-2",
        ),
        fails(
            "CONNECT of a bridge that marks its level",
            V311,
            "10 [ 'MQTT' 84 02 003C 'c' ]",
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT311-3.1.2-2",
        ),
        malformed("CONNECT without a body", V5, "10 00", "MQTT5 §2.1.4"),
        malformed(
            "CONNECT that ends after the protocol name",
            V5,
            "10 [ 'MQTT' ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNECT that ends after the level",
            V5,
            "10 [ 'MQTT' 05 ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNECT that ends in Keep Alive",
            V5,
            "10 [ 'MQTT' 05 02 00 ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNECT with bytes after its end",
            V311,
            "10 [ 'MQTT' 04 02 003C 'c' 00 ]",
            "MQTT311 §2.2.3",
        ),
        // Connect Flags.
        malformed(
            "CONNECT 5 with the reserved flag",
            V5,
            "10 [ 'MQTT' 05 03 003C 00 'c' ]",
            "MQTT-3.1.2-3",
        ),
        malformed(
            "CONNECT 3.1.1 with the reserved flag",
            V311,
            "10 [ 'MQTT' 04 03 003C 'c' ]",
            "MQTT311-3.1.2-3",
        ),
        reads(
            "CONNECT 3.1 with the reserved flag, which is disregarded",
            V31,
            "10 [ 'MQIsdp' 03 03 003C 'c' ]",
            P(CLIENT_V31),
        ),
        malformed(
            "CONNECT 5 with Will QoS and no Will",
            V5,
            "10 [ 'MQTT' 05 0A 003C 00 'c' ]",
            "MQTT-3.1.2-11",
        ),
        malformed(
            "CONNECT 3.1.1 with Will QoS and no Will",
            V311,
            "10 [ 'MQTT' 04 12 003C 'c' ]",
            "MQTT311-3.1.2-13",
        ),
        malformed(
            "CONNECT 5 with Will Retain and no Will",
            V5,
            "10 [ 'MQTT' 05 22 003C 00 'c' ]",
            "MQTT-3.1.2-13",
        ),
        malformed(
            "CONNECT 3.1.1 with Will Retain and no Will",
            V311,
            "10 [ 'MQTT' 04 22 003C 'c' ]",
            "MQTT311-3.1.2-15",
        ),
        reads(
            "CONNECT 3.1 with Will QoS and Will Retain and no Will, which are disregarded",
            V31,
            "10 [ 'MQIsdp' 03 32 003C 'c' ]",
            P(CLIENT_V31),
        ),
        malformed(
            "CONNECT 5 with Will QoS 3",
            V5,
            "10 [ 'MQTT' 05 1E 003C 00 'c' 00 'w' 'p' ]",
            "MQTT-3.1.2-12",
        ),
        malformed(
            "CONNECT 3 with Will QoS 3",
            V3,
            "10 [ 'MQIsdp' 03 1E 003C 'c' 'w' 'p' ]",
            "MQTT311-3.1.2-14",
        ),
        both(
            "CONNECT 5 with a password alone",
            V5,
            "10 [ 'MQTT' 05 42 003C 00 'c' 'pwd' ]",
            P(Connect {
                password: Some(b"pwd"),
                ..CLIENT
            }),
        ),
        malformed(
            "CONNECT 3.1.1 with a password alone",
            V311,
            "10 [ 'MQTT' 04 42 003C 'c' 'pwd' ]",
            "MQTT311-3.1.2-22",
        ),
        malformed(
            "CONNECT 3.1 with a password alone",
            V31,
            "10 [ 'MQIsdp' 03 42 003C 'c' 'pwd' ]",
            "MQTT311-3.1.2-22",
        ),
        both(
            "CONNECT with a user name alone",
            V311,
            "10 [ 'MQTT' 04 82 003C 'c' 'me' ]",
            P(Connect {
                username: Some("me"),
                ..CLIENT_V311
            }),
        ),
        both(
            "CONNECT with an empty user name and password",
            V311,
            "10 [ 'MQTT' 04 C2 003C 'c' '' '' ]",
            P(Connect {
                username: Some(""),
                password: Some(b""),
                ..CLIENT_V311
            }),
        ),
        malformed(
            "CONNECT whose user name is missing",
            V311,
            "10 [ 'MQTT' 04 82 003C 'c' ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "CONNECT whose password is missing",
            V5,
            "10 [ 'MQTT' 05 C2 003C 00 'c' 'me' ]",
            "MQTT5 §2.1.4",
        ),
        reads(
            "CONNECT 3.1 whose user name and password are announced and missing",
            V31,
            "10 [ 'MQIsdp' 03 C2 003C 'c' ]",
            P(CLIENT_V31),
        ),
        reads(
            "CONNECT 3.1 whose password is announced and missing",
            V31,
            "10 [ 'MQIsdp' 03 C2 003C 'c' 'me' ]",
            P(Connect {
                username: Some("me"),
                ..CLIENT_V31
            }),
        ),
        malformed(
            "CONNECT with U+0000 in the user name",
            V5,
            "10 [ 'MQTT' 05 82 003C 00 'c' 0001 00 ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "CONNECT with a user name that is not UTF-8",
            V311,
            "10 [ 'MQTT' 04 82 003C 'c' 0001 FF ]",
            "MQTT311-1.5.3-1",
        ),
        // Properties.
        forbidden(
            "CONNECT with Receive Maximum 0",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 21 0000 ] 'c' ]",
            "MQTT5 §3.1.2.11.3",
        ),
        forbidden(
            "CONNECT with Maximum Packet Size 0",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 27 00000000 ] 'c' ]",
            "MQTT5 §3.1.2.11.4",
        ),
        forbidden(
            "CONNECT with Request Problem Information 2",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 17 02 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNECT with Request Response Information 2",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 19 02 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNECT with Session Expiry Interval twice",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 11 00000001 11 00000001 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNECT with Authentication Data alone",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 16 'data' ] 'c' ]",
            "MQTT5 §3.1.2.11.10",
        ),
        both(
            "CONNECT with Authentication Method and Data",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 15 'SCRAM-SHA-256' 16 0003 00FF00 ] 'c' ]",
            P(Connect {
                properties: properties(&[
                    Property::AuthenticationMethod("SCRAM-SHA-256"),
                    Property::AuthenticationData(b"\x00\xFF\x00"),
                ]),
                ..CLIENT
            }),
        ),
        both(
            "CONNECT with User Properties of one name",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 26 'k' '1' 26 'k' '2' 26 '' '' ] 'c' ]",
            P(Connect {
                properties: properties(&[
                    Property::UserProperty("k", "1"),
                    Property::UserProperty("k", "2"),
                    Property::UserProperty("", ""),
                ]),
                ..CLIENT
            }),
        ),
        malformed(
            "CONNECT with a property that does not exist",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 04 00 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "CONNECT with a property identifier of two bytes",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 91 00 00000001 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "CONNECT with a property beyond 63",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 51 00000001 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "CONNECT whose properties are longer than the packet",
            V5,
            "10 [ 'MQTT' 05 02 003C 7F 11 00000001 'c' ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "CONNECT whose property is longer than the section",
            V5,
            "10 [ 'MQTT' 05 02 003C 04 11 00000001 'c' ]",
            "MQTT5 §2.2.2.1",
        ),
        malformed(
            "CONNECT whose Property Length is not minimal",
            V5,
            "10 [ 'MQTT' 05 02 003C 80 00 'c' ]",
            "MQTT-1.5.5-1",
        ),
        malformed(
            "CONNECT whose Property Length has five bytes",
            V5,
            "10 [ 'MQTT' 05 02 003C 80 80 80 80 01 'c' ]",
            "MQTT5 §1.5.5",
        ),
        malformed(
            "CONNECT whose Property Length is missing",
            V5,
            "10 [ 'MQTT' 05 02 003C ]",
            "MQTT5 §2.1.4",
        ),
    ];
    for (name, notation, property) in [
        (
            "Session Expiry Interval",
            "11 FFFFFFFF",
            Property::SessionExpiryInterval(u32::MAX),
        ),
        (
            "Authentication Method",
            "15 'PLAIN'",
            Property::AuthenticationMethod("PLAIN"),
        ),
        (
            "Request Problem Information",
            "17 00",
            Property::RequestProblemInformation(false),
        ),
        (
            "Request Response Information",
            "19 01",
            Property::RequestResponseInformation(true),
        ),
        (
            "Receive Maximum",
            "21 FFFF",
            Property::ReceiveMaximum(65_535),
        ),
        (
            "Topic Alias Maximum",
            "22 0000",
            Property::TopicAliasMaximum(0),
        ),
        (
            "Maximum Packet Size",
            "27 00000001",
            Property::MaximumPacketSize(1),
        ),
        (
            "User Property",
            "26 'name' 'value'",
            Property::UserProperty("name", "value"),
        ),
    ] {
        let name = format!("CONNECT with {name}").leak();
        let notation = format!("10 [ 'MQTT' 05 02 003C [ {notation} ] 'c' ]");
        cases.push(both(name, V5, &notation, with(property)));
    }
    cases
}

/// A server answers a bad CONNECT in the client's version, so the version is found without the
/// rest of the packet being right.
#[test]
fn version_of_a_bad_connect() {
    let peek = |notation| Connect::peek_version(&bytes(notation));
    assert_eq!(peek("10 [ 'MQTT' 05 03 003C 00 'c' ]"), Some(Version::V5));
    assert_eq!(peek("10 [ 'MQTT' 04 00 003C '' ]"), Some(Version::V311));
    assert_eq!(peek("10 [ 'MQIsdp' 03 ]"), Some(Version::V31));
    assert_eq!(peek("10 [ 'MQTT' 06 02 003C 00 'c' ]"), None);
    assert_eq!(peek("10 [ 'MQTT' ]"), None);
    assert_eq!(peek("20 [ 'MQTT' 05 ]"), None);
    assert_eq!(peek("10"), None);
}

/// Passwords and authentication data do not get into logs with the rest of a packet.
#[test]
fn secrets_are_not_shown() {
    let packet = Connect {
        password: Some(b"hunter2"),
        properties: properties(&[
            Property::AuthenticationMethod("PLAIN"),
            Property::AuthenticationData(b"hunter2"),
        ]),
        ..CLIENT
    };
    let shown = format!("{packet:?}");
    assert!(
        shown.contains("PLAIN") && shown.contains("\"c\""),
        "{shown}"
    );
    let bytes = format!("{:?}", b"hunter2");
    assert!(
        !shown.contains("hunter2") && !shown.contains(&bytes[1..bytes.len() - 1]),
        "{shown}"
    );
}
