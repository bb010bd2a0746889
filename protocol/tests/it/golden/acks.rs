//! PUBACK, PUBREC, PUBREL and PUBCOMP.

use tidings_protocol::mqtt::{Ack, Packet, Properties, Property, ReasonCode};

use super::{Case, both, forbidden, malformed, reads, writes};
use crate::notation::{ALL, V3, V5, V31, id, properties};

pub fn cases() -> Vec<Case> {
    let success = Ack::new(id(0x0102));
    let mut cases = vec![reads(
        "PUBREL 3.1 sent again with DUP",
        V31,
        "6A 02 0102",
        Packet::PubRel(success),
    )];
    type Make = fn(Ack<'static>) -> Packet<'static>;
    for (name, first, make, failure, clause) in [
        (
            "PUBACK",
            "40",
            Packet::PubAck as Make,
            ReasonCode::NoMatchingSubscribers,
            "MQTT-3.4.2-1",
        ),
        (
            "PUBREC",
            "50",
            Packet::PubRec as Make,
            ReasonCode::PacketIdentifierInUse,
            "MQTT-3.5.2-1",
        ),
        (
            "PUBREL",
            "62",
            Packet::PubRel as Make,
            ReasonCode::PacketIdentifierNotFound,
            "MQTT-3.6.2-1",
        ),
        (
            "PUBCOMP",
            "70",
            Packet::PubComp as Make,
            ReasonCode::PacketIdentifierNotFound,
            "MQTT-3.7.2-1",
        ),
    ] {
        let named = |what: &str| -> &'static str { format!("{name} {what}").leak() };
        let failed = Ack {
            reason: failure,
            ..success
        };
        let code = format!("{:02X}", failure.as_u8());
        let explained = Ack {
            properties: properties(&[
                Property::ReasonString("because"),
                Property::UserProperty("k", "v"),
            ]),
            ..failed
        };
        let remarked = Ack {
            properties: properties(&[Property::ReasonString("ok")]),
            ..success
        };
        cases.extend([
            both(
                named("for success"),
                ALL,
                &format!("{first} 02 0102"),
                make(success),
            ),
            both(
                named("with the largest identifier"),
                ALL,
                &format!("{first} 02 FFFF"),
                make(Ack::new(id(65_535))),
            ),
            both(
                named("with a Reason Code"),
                V5,
                &format!("{first} 03 0102 {code}"),
                make(failed),
            ),
            both(
                named("with a Reason Code and properties"),
                V5,
                &format!("{first} [ 0102 {code} [ 1F 'because' 26 'k' 'v' ] ]"),
                make(explained),
            ),
            both(
                named("for success with a Reason String"),
                V5,
                &format!("{first} [ 0102 00 [ 1F 'ok' ] ]"),
                make(remarked),
            ),
            reads(
                named("with Reason Code 0 written out"),
                V5,
                &format!("{first} 03 0102 00"),
                make(success),
            ),
            reads(
                named("with everything written out"),
                V5,
                &format!("{first} 04 0102 00 00"),
                make(success),
            ),
            reads(
                named("with a Reason Code and no properties written out"),
                V5,
                &format!("{first} 04 0102 {code} 00"),
                make(Ack {
                    properties: Properties::EMPTY,
                    ..failed
                }),
            ),
            writes(
                named("in MQTT 3 has no Reason Code"),
                V3,
                &format!("{first} 02 0102"),
                make(explained),
            ),
            forbidden(
                named("with Packet Identifier 0"),
                ALL,
                &format!("{first} 02 0000"),
                "MQTT-2.2.1-3",
            ),
            forbidden(
                named("with a wrong Reason Code"),
                V5,
                &format!("{first} 03 0102 8F"),
                clause,
            ),
            forbidden(
                named("with an unknown Reason Code"),
                V5,
                &format!("{first} 03 0102 7F"),
                clause,
            ),
            malformed(
                named("without a body"),
                ALL,
                &format!("{first} 00"),
                "MQTT5 §2.1.4",
            ),
            malformed(
                named("with half an identifier"),
                ALL,
                &format!("{first} 01 01"),
                "MQTT311 §2.2.3",
            ),
            malformed(
                named("in MQTT 3 with a Reason Code"),
                V3,
                &format!("{first} 03 0102 00"),
                "MQTT311 §2.2.3",
            ),
            malformed(
                named("with bytes after its end"),
                V5,
                &format!("{first} 05 0102 00 00 00"),
                "MQTT5 §2.1.4",
            ),
            malformed(
                named("with a property of PUBLISH"),
                V5,
                &format!("{first} [ 0102 00 [ 01 01 ] ]"),
                "MQTT5 §2.2.2.2",
            ),
            forbidden(
                named("with Reason String twice"),
                V5,
                &format!("{first} [ 0102 00 [ 1F 'a' 1F 'b' ] ]"),
                "MQTT5 §2.2.2.2",
            ),
            malformed(
                named("whose properties are longer than the packet"),
                V5,
                &format!("{first} [ 0102 00 05 1F 'a' ]"),
                "MQTT5 §2.2.2.1",
            ),
        ]);
    }
    cases
}
