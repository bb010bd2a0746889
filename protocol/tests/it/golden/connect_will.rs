//! CONNECT with a Will.

use tidings_protocol::mqtt::{Connect, Packet, Properties, Property, QoS, Will};

use super::connect::{CLIENT, CLIENT_V311};
use super::{Case, both, forbidden, malformed};
use crate::notation::{V5, V311, properties};

const WILL: Will<'static> = Will {
    qos: QoS::AtMostOnce,
    retain: false,
    topic: "w",
    payload: b"gone",
    properties: Properties::EMPTY,
};

fn with_will(property: Property<'_>) -> Packet<'static> {
    let will = Will {
        properties: properties(&[property]),
        ..WILL
    };
    Packet::Connect(Connect {
        will: Some(will),
        ..CLIENT
    })
}

pub fn cases() -> Vec<Case> {
    use Packet::Connect as P;
    let mut cases = vec![
        both(
            "CONNECT with a Will",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' 00 'w' 'gone' ]",
            P(Connect {
                will: Some(WILL),
                ..CLIENT
            }),
        ),
        both(
            "CONNECT with a Will of QoS 1 that is retained",
            V311,
            "10 [ 'MQTT' 04 2E 003C 'c' 'w' 'gone' ]",
            P(Connect {
                will: Some(Will {
                    qos: QoS::AtLeastOnce,
                    retain: true,
                    ..WILL
                }),
                ..CLIENT_V311
            }),
        ),
        both(
            "CONNECT with a Will that has no payload",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' 00 'w' '' ]",
            P(Connect {
                will: Some(Will {
                    payload: b"",
                    ..WILL
                }),
                ..CLIENT
            }),
        ),
        malformed(
            "CONNECT with an empty Will Topic",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' 00 '' 'gone' ]",
            "MQTT-4.7.3-1",
        ),
        malformed(
            "CONNECT with a wildcard in the Will Topic",
            V311,
            "10 [ 'MQTT' 04 06 003C 'c' 'w/#' 'gone' ]",
            "MQTT311-4.7.1-1",
        ),
        malformed(
            "CONNECT with U+0000 in the Will Topic",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' 00 0003 770077 'gone' ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "CONNECT whose Will is missing",
            V311,
            "10 [ 'MQTT' 04 06 003C 'c' ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "CONNECT whose Will payload is longer than the packet",
            V311,
            "10 [ 'MQTT' 04 06 003C 'c' 'w' 0009 ~gone~ ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "CONNECT 5 whose Will has no Property Length",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "CONNECT with a property of the Will outside of it",
            V5,
            "10 [ 'MQTT' 05 02 003C [ 18 00000005 ] 'c' ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "CONNECT with a property of CONNECT in the Will",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' [ 11 00000005 ] 'w' 'gone' ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "CONNECT with a Will that has a property twice",
            V5,
            "10 [ 'MQTT' 05 06 003C 00 'c' [ 18 00000005 18 00000005 ] 'w' 'gone' ]",
            "MQTT5 §2.2.2.2",
        ),
    ];
    for (name, notation, property) in [
        (
            "Will Delay Interval",
            "18 00000005",
            Property::WillDelayInterval(5),
        ),
        (
            "Payload Format Indicator",
            "01 01",
            Property::PayloadFormatIndicator(1),
        ),
        (
            "Message Expiry Interval",
            "02 0000000A",
            Property::MessageExpiryInterval(10),
        ),
        (
            "Content Type",
            "03 'text/plain'",
            Property::ContentType("text/plain"),
        ),
        ("Response Topic", "08 'r/t'", Property::ResponseTopic("r/t")),
        (
            "Correlation Data",
            "09 0002 00FF",
            Property::CorrelationData(b"\x00\xFF"),
        ),
        (
            "User Property",
            "26 'name' 'value'",
            Property::UserProperty("name", "value"),
        ),
    ] {
        let name = format!("CONNECT whose Will has {name}").leak();
        let notation = format!("10 [ 'MQTT' 05 06 003C 00 'c' [ {notation} ] 'w' 'gone' ]");
        cases.push(both(name, V5, &notation, with_will(property)));
    }
    cases
}
