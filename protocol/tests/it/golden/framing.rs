//! Fixed headers: packet types, flags, Remaining Length.

use tidings_protocol::mqtt::{PACKET_SIZE_MAX, Packet, ReasonCode, fixed_header};

use super::{Case, both, incomplete, malformed};
use crate::notation::{ALL, V3, V31, V311, V311_V5};

pub fn cases() -> Vec<Case> {
    vec![
        both("PINGREQ", ALL, "C0 00", Packet::PingReq),
        both("PINGRESP", ALL, "D0 00", Packet::PingResp),
        malformed("PINGREQ with a body", ALL, "C0 01 00", "MQTT5 §2.1.4"),
        malformed("PINGRESP with a body", ALL, "D0 01 00", "MQTT5 §2.1.4"),
        incomplete("nothing yet", ALL, ""),
        incomplete("first byte only", ALL, "30"),
        incomplete("length begun", ALL, "30 FF"),
        incomplete("length nearly done", ALL, "30 FF FF FF"),
        incomplete("length known, body missing", ALL, "30 05 00 01"),
        // Refused at the first byte, whatever comes after it.
        malformed("packet type 0", ALL, "00", "MQTT5 §2.1.2"),
        malformed("packet type 0 with flags", ALL, "0F", "MQTT5 §2.1.2"),
        malformed("CONNECT with a flag", ALL, "11", "MQTT-2.1.3-1"),
        malformed("CONNACK with a flag", ALL, "21", "MQTT311-2.2.2-1"),
        malformed("PUBACK with a flag", ALL, "42", "MQTT-2.1.3-1"),
        malformed("PUBREC with a flag", ALL, "54", "MQTT-2.1.3-1"),
        malformed("PUBREL without its flag", ALL, "60", "MQTT-3.6.1-1"),
        malformed("PUBREL with RETAIN", ALL, "63", "MQTT311-3.6.1-1"),
        malformed("PUBREL with QoS 2", ALL, "64", "MQTT-3.6.1-1"),
        malformed("PUBCOMP with a flag", ALL, "72", "MQTT-2.1.3-1"),
        malformed("SUBSCRIBE without its flag", ALL, "80", "MQTT-3.8.1-1"),
        malformed("SUBSCRIBE with RETAIN", ALL, "83", "MQTT311-3.8.1-1"),
        malformed("SUBACK with a flag", ALL, "92", "MQTT-2.1.3-1"),
        malformed("UNSUBSCRIBE without its flag", ALL, "A0", "MQTT-3.10.1-1"),
        malformed("UNSUBSCRIBE with RETAIN", ALL, "A3", "MQTT311-3.10.1-1"),
        malformed("UNSUBACK with a flag", ALL, "B1", "MQTT-2.1.3-1"),
        malformed("PINGREQ with a flag", ALL, "C8", "MQTT-2.1.3-1"),
        malformed("PINGRESP with a flag", ALL, "D1", "MQTT-2.1.3-1"),
        malformed("DISCONNECT with a flag", ALL, "E1", "MQTT-3.14.1-1"),
        malformed("AUTH with a flag", ALL, "F1", "MQTT-3.15.1-1"),
        malformed("PUBLISH with QoS 3", ALL, "36", "MQTT-3.3.1-4"),
        malformed(
            "PUBLISH with QoS 3, DUP and RETAIN",
            ALL,
            "3F",
            "MQTT311-3.3.1-4",
        ),
        malformed("PUBLISH with DUP and QoS 0", ALL, "38", "MQTT-3.3.1-2"),
        malformed(
            "PUBLISH with DUP, QoS 0 and RETAIN",
            ALL,
            "39",
            "MQTT311-3.3.1-2",
        ),
        // MQTT 3.1 marks a repeated PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP.
        malformed("PUBREL with DUP", V311_V5, "6A 02 0001", "MQTT-3.6.1-1"),
        malformed(
            "SUBSCRIBE with DUP",
            V311,
            "8A [ 0001 'a' 00 ]",
            "MQTT-3.8.1-1",
        ),
        malformed(
            "UNSUBSCRIBE with DUP",
            V311,
            "AA [ 0001 'a' ]",
            "MQTT-3.10.1-1",
        ),
        malformed("AUTH before MQTT 5", V3, "F0 00", "MQTT311 §2.2.1"),
        malformed(
            "DISCONNECT with DUP in MQTT 3.1",
            V31,
            "E8 00",
            "MQTT-3.14.1-1",
        ),
        malformed(
            "fourth byte says there is a fifth",
            ALL,
            "30 FF FF FF FF",
            "MQTT5 §1.5.5",
        ),
        malformed(
            "five bytes of length",
            ALL,
            "30 80 80 80 80 01",
            "MQTT311 §2.2.3",
        ),
        malformed("zero in two bytes", ALL, "C0 80 00", "MQTT-1.5.5-1"),
        malformed(
            "three in four bytes",
            ALL,
            "30 83 80 80 00 0001 61",
            "MQTT-1.5.5-1",
        ),
        malformed("127 in two bytes", ALL, "30 FF 00", "MQTT-1.5.5-1"),
    ]
}

/// The limit counts the fixed header, and is judged before the body arrives.
#[test]
fn maximum_packet_size() {
    let len =
        |bytes: &[u8], max| fixed_header(bytes, max).map(|header| header.map(|h| h.total_len()));
    assert_eq!(len(&[0x30, 98], 100), Ok(Some(100)));
    let error = len(&[0x30, 99], 100).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    assert_eq!(len(&[0x30, 0x80, 0x01], 131), Ok(Some(131)));
    assert_eq!(
        len(&[0x30, 0x80, 0x01], 130).unwrap_err().reason,
        ReasonCode::PacketTooLarge
    );
    assert_eq!(
        len(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], PACKET_SIZE_MAX),
        Ok(Some(PACKET_SIZE_MAX))
    );
    assert_eq!(
        len(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], PACKET_SIZE_MAX - 1)
            .unwrap_err()
            .reason,
        ReasonCode::PacketTooLarge
    );
    // A wrong first byte is the nearer reason.
    assert_eq!(
        len(&[0x00, 99], 10).unwrap_err().reason,
        ReasonCode::MalformedPacket
    );
}

/// Each number of length bytes begins and ends where the specification says.
#[test]
fn remaining_length() {
    for value in [
        0,
        1,
        127,
        128,
        16_383,
        16_384,
        2_097_151,
        2_097_152,
        268_435_455,
    ] {
        let bytes = [vec![0x30], crate::notation::variable(value)].concat();
        let header = fixed_header(&bytes, PACKET_SIZE_MAX).unwrap().unwrap();
        assert_eq!(
            (header.header_len, header.remaining_len),
            (bytes.len(), value)
        );
        for end in 0..bytes.len() {
            assert_eq!(fixed_header(&bytes[..end], PACKET_SIZE_MAX), Ok(None));
        }
    }
}
