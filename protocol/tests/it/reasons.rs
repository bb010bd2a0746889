//! MQTT 5 table 2-6, tried exhaustively: each Reason Code in each packet.

use tidings_protocol::mqtt::{QoS, ReasonCode, Version};

use crate::notation::{bytes, read};

/// The packets that have a Reason Code, with RC in its place.
const PACKETS: &[(&str, &str)] = &[
    ("CONNACK", "20 [ 00 RC 00 ]"),
    ("PUBACK", "40 [ 0001 RC ]"),
    ("PUBREC", "50 [ 0001 RC ]"),
    ("PUBREL", "62 [ 0001 RC ]"),
    ("PUBCOMP", "70 [ 0001 RC ]"),
    ("SUBACK", "90 [ 0001 00 RC ]"),
    ("UNSUBACK", "B0 [ 0001 00 RC ]"),
    ("DISCONNECT", "E0 [ RC ]"),
    ("AUTH", "F0 [ RC [ 15 'm' ] ]"),
];

/// Table 2-6: code, words, and the packets that use it.
const TABLE: &[(u8, &str, &str)] = &[
    (
        0x00,
        "Success",
        "CONNACK PUBACK PUBREC PUBREL PUBCOMP UNSUBACK AUTH DISCONNECT SUBACK",
    ),
    (0x01, "Granted QoS 1", "SUBACK"),
    (0x02, "Granted QoS 2", "SUBACK"),
    (0x04, "Disconnect with Will Message", "DISCONNECT"),
    (0x10, "No matching subscribers", "PUBACK PUBREC"),
    (0x11, "No subscription existed", "UNSUBACK"),
    (0x18, "Continue authentication", "AUTH"),
    (0x19, "Re-authenticate", "AUTH"),
    (
        0x80,
        "Unspecified error",
        "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT",
    ),
    (0x81, "Malformed Packet", "CONNACK DISCONNECT"),
    (0x82, "Protocol Error", "CONNACK DISCONNECT"),
    (
        0x83,
        "Implementation specific error",
        "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT",
    ),
    (0x84, "Unsupported Protocol Version", "CONNACK"),
    (0x85, "Client Identifier not valid", "CONNACK"),
    (0x86, "Bad User Name or Password", "CONNACK"),
    (
        0x87,
        "Not authorized",
        "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT",
    ),
    (0x88, "Server unavailable", "CONNACK"),
    (0x89, "Server busy", "CONNACK DISCONNECT"),
    (0x8A, "Banned", "CONNACK"),
    (0x8B, "Server shutting down", "DISCONNECT"),
    (0x8C, "Bad authentication method", "CONNACK DISCONNECT"),
    (0x8D, "Keep Alive timeout", "DISCONNECT"),
    (0x8E, "Session taken over", "DISCONNECT"),
    (0x8F, "Topic Filter invalid", "SUBACK UNSUBACK DISCONNECT"),
    (
        0x90,
        "Topic Name invalid",
        "CONNACK PUBACK PUBREC DISCONNECT",
    ),
    (
        0x91,
        "Packet Identifier in use",
        "PUBACK PUBREC SUBACK UNSUBACK",
    ),
    (0x92, "Packet Identifier not found", "PUBREL PUBCOMP"),
    (0x93, "Receive Maximum exceeded", "DISCONNECT"),
    (0x94, "Topic Alias invalid", "DISCONNECT"),
    (0x95, "Packet too large", "CONNACK DISCONNECT"),
    (0x96, "Message rate too high", "DISCONNECT"),
    (
        0x97,
        "Quota exceeded",
        "CONNACK PUBACK PUBREC SUBACK DISCONNECT",
    ),
    (0x98, "Administrative action", "DISCONNECT"),
    (
        0x99,
        "Payload format invalid",
        "CONNACK PUBACK PUBREC DISCONNECT",
    ),
    (0x9A, "Retain not supported", "CONNACK DISCONNECT"),
    (0x9B, "QoS not supported", "CONNACK DISCONNECT"),
    (0x9C, "Use another server", "CONNACK DISCONNECT"),
    (0x9D, "Server moved", "CONNACK DISCONNECT"),
    (
        0x9E,
        "Shared Subscriptions not supported",
        "SUBACK DISCONNECT",
    ),
    (0x9F, "Connection rate exceeded", "CONNACK DISCONNECT"),
    (0xA0, "Maximum connect time", "DISCONNECT"),
    (
        0xA1,
        "Subscription Identifiers not supported",
        "SUBACK DISCONNECT",
    ),
    (
        0xA2,
        "Wildcard Subscriptions not supported",
        "SUBACK DISCONNECT",
    ),
];

#[test]
fn each_code_in_each_packet() {
    for code in 0..=255_u8 {
        let entry = TABLE.iter().find(|(value, ..)| *value == code);
        for (packet, notation) in PACKETS {
            let bytes = bytes(&notation.replace("RC", &format!("{code:02X}")));
            let result = read(Version::V5, &bytes);
            let allowed =
                entry.is_some_and(|(.., packets)| packets.split(' ').any(|p| p == *packet));
            match result {
                Ok(Some(_)) => assert!(allowed, "{code:#04X} in {packet}"),
                Ok(None) => panic!("{code:#04X} in {packet}"),
                Err(error) => {
                    assert!(!allowed, "{code:#04X} in {packet}: {error}");
                    assert_eq!(error.reason, ReasonCode::ProtocolError);
                    assert!(error.message.contains(packet), "{error}");
                }
            }
        }
    }
}

#[test]
fn numbers_and_words() {
    assert_eq!(ReasonCode::ALL.len(), TABLE.len());
    for code in 0..=255_u8 {
        let entry = TABLE.iter().find(|(value, ..)| *value == code);
        let reason = ReasonCode::from_u8(code);
        assert_eq!(
            reason.map(ReasonCode::as_u8),
            entry.map(|(value, ..)| *value)
        );
        assert_eq!(
            reason.map(|reason| reason.to_string()),
            entry.map(|(_, words, _)| (*words).to_owned())
        );
        assert_eq!(
            reason.is_some_and(ReasonCode::is_error),
            reason.is_some() && code >= 0x80
        );
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        assert_eq!(ReasonCode::granted(qos).as_u8(), qos.as_u8());
    }
}
