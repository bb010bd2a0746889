//! CONNACK.

use tidings_protocol::mqtt::{ConnAck, Packet, Properties, Property, QoS, ReasonCode};

use super::{Case, both, forbidden, malformed, reads, writes};
use crate::notation::{V3, V5, V31, V311, V311_V5, properties};

fn connack(session_present: bool, reason: ReasonCode) -> Packet<'static> {
    Packet::ConnAck(ConnAck {
        session_present,
        reason,
        properties: Properties::EMPTY,
    })
}

pub fn cases() -> Vec<Case> {
    use ReasonCode as R;
    let mut cases = vec![
        both("CONNACK 3", V3, "20 02 00 00", connack(false, R::Success)),
        both(
            "CONNACK 3.1.1 with Session Present",
            V311,
            "20 02 01 00",
            connack(true, R::Success),
        ),
        both(
            "CONNACK 5",
            V5,
            "20 03 00 00 00",
            connack(false, R::Success),
        ),
        both(
            "CONNACK 5 with Session Present",
            V5,
            "20 03 01 00 00",
            connack(true, R::Success),
        ),
        writes(
            "CONNACK 3.1 cannot say Session Present",
            V31,
            "20 02 00 00",
            connack(true, R::Success),
        ),
        reads(
            "CONNACK 3.1 with its reserved byte set",
            V31,
            "20 02 FF 00",
            connack(false, R::Success),
        ),
        malformed(
            "CONNACK with reserved flags",
            V311_V5,
            "20 03 02 00 00",
            "MQTT-3.2.2-1",
        ),
        forbidden(
            "CONNACK 3 with return code 6",
            V3,
            "20 02 00 06",
            "MQTT311 §3.2.2.3",
        ),
        forbidden(
            "CONNACK 5 with Reason Code 1",
            V5,
            "20 03 00 01 00",
            "MQTT-3.2.2-8",
        ),
        forbidden(
            "CONNACK 5 with the Reason Code of another packet",
            V5,
            "20 03 00 8B 00",
            "MQTT-3.2.2-8",
        ),
        forbidden(
            "CONNACK 3.1.1 refuses with Session Present",
            V311,
            "20 02 01 05",
            "MQTT311-3.2.2-4",
        ),
        forbidden(
            "CONNACK 5 refuses with Session Present",
            V5,
            "20 03 01 87 00",
            "MQTT-3.2.2-6",
        ),
        writes(
            "CONNACK that refuses never says Session Present",
            V5,
            "20 03 00 87 00",
            connack(true, R::NotAuthorized),
        ),
        malformed(
            "CONNACK 5 without a Property Length",
            V5,
            "20 02 00 00",
            "MQTT5 §2.1.4",
        ),
        malformed("CONNACK without a body", V311_V5, "20 00", "MQTT5 §2.1.4"),
        malformed(
            "CONNACK 3 with bytes after its end",
            V3,
            "20 03 00 00 00",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "CONNACK 5 with bytes after its end",
            V5,
            "20 04 00 00 00 00",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNACK with a property of CONNECT",
            V5,
            "20 [ 00 00 [ 17 01 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Receive Maximum 0",
            V5,
            "20 [ 00 00 [ 21 0000 ] ]",
            "MQTT5 §3.1.2.11.3",
        ),
        forbidden(
            "CONNACK with Maximum QoS 2",
            V5,
            "20 [ 00 00 [ 24 02 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Retain Available 2",
            V5,
            "20 [ 00 00 [ 25 02 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Wildcard Subscription Available 2",
            V5,
            "20 [ 00 00 [ 28 02 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Subscription Identifiers Available 2",
            V5,
            "20 [ 00 00 [ 29 FF ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Shared Subscription Available 2",
            V5,
            "20 [ 00 00 [ 2A 02 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNACK with Reason String twice",
            V5,
            "20 [ 00 00 [ 1F 'a' 1F 'b' ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "CONNACK with U+0000 in the Reason String",
            V5,
            "20 [ 00 00 [ 1F 0001 00 ] ]",
            "MQTT-1.5.4-2",
        ),
        both(
            "CONNACK with a long Property Length",
            V5,
            &format!("20 [ 00 00 [ 1F '{}' ] ]", "x".repeat(200)),
            Packet::ConnAck(ConnAck {
                session_present: false,
                reason: R::Success,
                properties: properties(&[Property::ReasonString(&"x".repeat(200))]),
            }),
        ),
    ];
    for (name, notation, property) in [
        (
            "Session Expiry Interval",
            "11 0000000A",
            Property::SessionExpiryInterval(10),
        ),
        (
            "Assigned Client Identifier",
            "12 'auto-1'",
            Property::AssignedClientIdentifier("auto-1"),
        ),
        (
            "Server Keep Alive",
            "13 003C",
            Property::ServerKeepAlive(60),
        ),
        (
            "Authentication Method",
            "15 'm'",
            Property::AuthenticationMethod("m"),
        ),
        (
            "Authentication Data",
            "16 0002 00FF",
            Property::AuthenticationData(b"\x00\xFF"),
        ),
        (
            "Response Information",
            "1A 'r/'",
            Property::ResponseInformation("r/"),
        ),
        (
            "Server Reference",
            "1C 'b.example'",
            Property::ServerReference("b.example"),
        ),
        ("Reason String", "1F 'why'", Property::ReasonString("why")),
        ("Receive Maximum", "21 0001", Property::ReceiveMaximum(1)),
        (
            "Topic Alias Maximum",
            "22 000A",
            Property::TopicAliasMaximum(10),
        ),
        (
            "Maximum QoS 0",
            "24 00",
            Property::MaximumQoS(QoS::AtMostOnce),
        ),
        (
            "Maximum QoS 1",
            "24 01",
            Property::MaximumQoS(QoS::AtLeastOnce),
        ),
        (
            "Retain Available",
            "25 00",
            Property::RetainAvailable(false),
        ),
        (
            "User Property",
            "26 'name' 'value'",
            Property::UserProperty("name", "value"),
        ),
        (
            "Maximum Packet Size",
            "27 00100000",
            Property::MaximumPacketSize(1 << 20),
        ),
        (
            "Wildcard Subscription Available",
            "28 01",
            Property::WildcardSubscriptionAvailable(true),
        ),
        (
            "Subscription Identifiers Available",
            "29 00",
            Property::SubscriptionIdentifierAvailable(false),
        ),
        (
            "Shared Subscription Available",
            "2A 01",
            Property::SharedSubscriptionAvailable(true),
        ),
    ] {
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            reason: R::Success,
            properties: properties(&[property]),
        });
        let name = format!("CONNACK with {name}").leak();
        cases.push(both(
            name,
            V5,
            &format!("20 [ 00 00 [ {notation} ] ]"),
            packet,
        ));
    }
    // The return codes of MQTT 3 that have a Reason Code of the same meaning.
    for (code, reason) in [
        (1, R::UnsupportedProtocolVersion),
        (2, R::ClientIdentifierNotValid),
        (3, R::ServerUnavailable),
        (4, R::BadUserNameOrPassword),
        (5, R::NotAuthorized),
    ] {
        let name = format!("CONNACK 3 with return code {code}").leak();
        cases.push(both(
            name,
            V3,
            &format!("20 02 00 0{code}"),
            connack(false, reason),
        ));
    }
    // And those that have none and take the nearest.
    for (code, reason) in [
        (3, R::UnspecifiedError),
        (3, R::ImplementationSpecificError),
        (3, R::ServerBusy),
        (3, R::ServerShuttingDown),
        (3, R::QuotaExceeded),
        (3, R::UseAnotherServer),
        (3, R::ServerMoved),
        (3, R::ConnectionRateExceeded),
        (5, R::Banned),
        (5, R::BadAuthenticationMethod),
        (5, R::TopicNameInvalid),
        (5, R::PacketTooLarge),
        (5, R::PayloadFormatInvalid),
        (5, R::RetainNotSupported),
        (5, R::QoSNotSupported),
        (5, R::MalformedPacket),
        (5, R::ProtocolError),
    ] {
        let name = format!("CONNACK 3 for {reason}").leak();
        cases.push(writes(
            name,
            V3,
            &format!("20 02 00 0{code}"),
            connack(false, reason),
        ));
    }
    cases
}
