//! MQTT 5 table 2-4, tried exhaustively: each property in each packet, once and twice; and what
//! [`Properties`] does with them.

use tidings_protocol::mqtt::{
    Packet, Properties, PropertiesBuilder, Property, Publish, QoS, ReasonCode, Version,
};

use crate::notation::{bytes, properties, read};

/// The packets that have properties: what stands before the properties, and what after.
const PACKETS: &[(&str, &str, &str)] = &[
    ("CONNECT", "10 [ 'MQTT' 05 02 003C", "'c' ]"),
    ("Will", "10 [ 'MQTT' 05 06 003C 00 'c'", "'w' 'gone' ]"),
    ("CONNACK", "20 [ 00 00", "]"),
    ("PUBLISH", "30 [ 'a'", "~hi~ ]"),
    ("PUBACK", "40 [ 0001 00", "]"),
    ("PUBREC", "50 [ 0001 00", "]"),
    ("PUBREL", "62 [ 0001 00", "]"),
    ("PUBCOMP", "70 [ 0001 00", "]"),
    ("SUBSCRIBE", "82 [ 0001", "'a' 00 ]"),
    ("SUBACK", "90 [ 0001", "00 ]"),
    ("UNSUBSCRIBE", "A2 [ 0001", "'a' ]"),
    ("UNSUBACK", "B0 [ 0001", "00 ]"),
    ("DISCONNECT", "E0 [ 00", "]"),
    ("AUTH", "F0 [ 18", "]"),
];

const EVERY_ACK: &str = "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH";
const EVERY_PACKET: &str = "CONNECT Will CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE \
    SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH";

/// Table 2-4: a property, the packets that may carry it.
const TABLE: &[(&str, &str)] = &[
    ("01 01", "PUBLISH Will"),
    ("02 00000001", "PUBLISH Will"),
    ("03 'x'", "PUBLISH Will"),
    ("08 'x'", "PUBLISH Will"),
    ("09 'x'", "PUBLISH Will"),
    ("0B 01", "PUBLISH SUBSCRIBE"),
    ("11 00000001", "CONNECT CONNACK DISCONNECT"),
    ("12 'x'", "CONNACK"),
    ("13 0001", "CONNACK"),
    ("15 'x'", "CONNECT CONNACK AUTH"),
    ("16 'x'", "CONNECT CONNACK AUTH"),
    ("17 01", "CONNECT"),
    ("18 00000001", "Will"),
    ("19 01", "CONNECT"),
    ("1A 'x'", "CONNACK"),
    ("1C 'x'", "CONNACK DISCONNECT"),
    ("1F 'x'", EVERY_ACK),
    ("21 0001", "CONNECT CONNACK"),
    ("22 0001", "CONNECT CONNACK"),
    ("23 0001", "PUBLISH"),
    ("24 01", "CONNACK"),
    ("25 01", "CONNACK"),
    ("26 'x' 'y'", EVERY_PACKET),
    ("27 00000001", "CONNECT CONNACK"),
    ("28 01", "CONNACK"),
    ("29 01", "CONNACK"),
    ("2A 01", "CONNACK"),
];

/// What the packet, rather than the table, wants beside a property.
fn companion(packet: &str, property: &str) -> &'static str {
    match packet {
        "AUTH" if !property.starts_with("15") => "15 'm'",
        "CONNECT" if property.starts_with("16") => "15 'm'",
        _ => "",
    }
}

#[test]
fn each_property_in_each_packet() {
    assert_eq!(TABLE.len(), 27);
    for (property, carriers) in TABLE {
        for (packet, before, after) in PACKETS {
            let companion = companion(packet, property);
            let carries = carriers
                .split_whitespace()
                .any(|carrier| carrier == *packet);
            let once = bytes(&format!("{before} [ {companion} {property} ] {after}"));
            let result = read(Version::V5, &once);
            if carries {
                assert!(
                    matches!(result, Ok(Some(_))),
                    "{property} in {packet}: {result:?}"
                );
            } else {
                let error = result.unwrap_err();
                assert_eq!(
                    error.reason,
                    ReasonCode::MalformedPacket,
                    "{property} in {packet}"
                );
                assert!(
                    error.message.contains("not allowed in this packet"),
                    "{error}"
                );
                continue;
            }
            let twice = bytes(&format!(
                "{before} [ {property} {companion} {property} ] {after}"
            ));
            let result = read(Version::V5, &twice);
            let repeats =
                property.starts_with("26") || (property.starts_with("0B") && *packet == "PUBLISH");
            if repeats {
                assert!(
                    matches!(result, Ok(Some(_))),
                    "{property} twice in {packet}: {result:?}"
                );
            } else {
                let error = result.unwrap_err();
                assert_eq!(
                    error.reason,
                    ReasonCode::ProtocolError,
                    "{property} in {packet}"
                );
                assert!(error.message.contains("more than once"), "{error}");
            }
        }
    }
}

/// All 256 identifiers: what the table does not name does not exist.
#[test]
fn unknown_identifiers() {
    for identifier in 0..=255_u8 {
        let known = TABLE
            .iter()
            .any(|(property, _)| bytes(property)[0] == identifier);
        if known {
            continue;
        }
        for (packet, before, after) in PACKETS {
            let bytes = bytes(&format!(
                "{before} [ {identifier:02X} 00 00 00 00 ] {after}"
            ));
            let error = read(Version::V5, &bytes).unwrap_err();
            assert_eq!(
                error.reason,
                ReasonCode::MalformedPacket,
                "{identifier} in {packet}"
            );
            assert!(
                error.message.contains("does not exist"),
                "{identifier} in {packet}: {error}"
            );
        }
    }
}

fn of_publish(section: &str) -> Vec<u8> {
    bytes(&format!("30 [ 'a' [ {section} ] ]"))
}

/// Every getter finds its own property among others, and nothing in an empty section.
#[test]
fn getters() {
    let all = properties(&[
        Property::UserProperty("first", "1"),
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(2),
        Property::ContentType("3"),
        Property::ResponseTopic("8"),
        Property::CorrelationData(b"9"),
        Property::SubscriptionIdentifier(11),
        Property::SubscriptionIdentifier(12),
        Property::SessionExpiryInterval(17),
        Property::AssignedClientIdentifier("18"),
        Property::ServerKeepAlive(19),
        Property::AuthenticationMethod("21"),
        Property::AuthenticationData(b"22"),
        Property::RequestProblemInformation(false),
        Property::WillDelayInterval(24),
        Property::RequestResponseInformation(true),
        Property::ResponseInformation("26"),
        Property::ServerReference("28"),
        Property::ReasonString("31"),
        Property::ReceiveMaximum(33),
        Property::TopicAliasMaximum(34),
        Property::TopicAlias(35),
        Property::MaximumQoS(QoS::AtLeastOnce),
        Property::RetainAvailable(false),
        Property::UserProperty("second", "2"),
        Property::MaximumPacketSize(39),
        Property::WildcardSubscriptionAvailable(true),
        Property::SubscriptionIdentifierAvailable(false),
        Property::SharedSubscriptionAvailable(true),
    ]);
    macro_rules! check {
        ($($getter:ident = $value:expr;)*) => {
            $(
                assert_eq!(all.$getter(), Some($value), stringify!($getter));
                assert_eq!(Properties::EMPTY.$getter(), None, stringify!($getter));
            )*
        };
    }
    check! {
        payload_format_indicator = 1;
        message_expiry_interval = 2;
        content_type = "3";
        response_topic = "8";
        correlation_data = b"9".as_slice();
        subscription_identifier = 11;
        session_expiry_interval = 17;
        assigned_client_identifier = "18";
        server_keep_alive = 19;
        authentication_method = "21";
        authentication_data = b"22".as_slice();
        request_problem_information = false;
        will_delay_interval = 24;
        request_response_information = true;
        response_information = "26";
        server_reference = "28";
        reason_string = "31";
        receive_maximum = 33;
        topic_alias_maximum = 34;
        topic_alias = 35;
        maximum_qos = QoS::AtLeastOnce;
        retain_available = false;
        maximum_packet_size = 39;
        wildcard_subscription_available = true;
        subscription_identifier_available = false;
        shared_subscription_available = true;
    }
    assert_eq!(
        all.user_properties().collect::<Vec<_>>(),
        [("first", "1"), ("second", "2")]
    );
    assert_eq!(
        (
            all.user_property_count(),
            Properties::EMPTY.user_property_count()
        ),
        (2, 0)
    );
    assert_eq!(all.subscription_identifiers().collect::<Vec<_>>(), [11, 12]);
    assert_eq!(all.iter().count(), 29);
    assert!(all.contains(26 + 12) && !all.contains(0) && !all.contains(255));
    assert!(Properties::default().is_empty() && !all.is_empty());

    let again = Properties::from_stored(all.as_bytes());
    assert_eq!(
        again.iter().collect::<Vec<_>>(),
        all.iter().collect::<Vec<_>>()
    );
    assert_eq!(again.topic_alias(), Some(35));
    assert!(format!("{all:?}").contains("TopicAlias(35)"));
}

/// Properties that were stored and damaged give fewer properties, and no panic.
#[test]
fn from_stored_stops_at_damage() {
    let stored = bytes("26 'k' 'v' 01 01 23 00");
    let found = Properties::from_stored(&stored);
    assert_eq!(found.iter().count(), 2);
    assert_eq!(found.topic_alias(), None);
    assert_eq!(Properties::from_stored(b"\xFF\xFF").iter().count(), 0);
}

/// What goes on to subscribers is the same slice unless the packet has what is per connection.
#[test]
fn forwarding() {
    let mut scratch = PropertiesBuilder::new();
    for (section, forwarded) in [
        ("", ""),
        (
            "01 01 03 'x' 08 'r' 09 'c' 26 'b' '1' 26 'a' '2'",
            "01 01 03 'x' 08 'r' 09 'c' 26 'b' '1' 26 'a' '2'",
        ),
        ("23 0001", ""),
        ("02 0000000A 26 'k' 'v'", "26 'k' 'v'"),
        (
            "26 'b' '1' 23 0001 26 'a' '2' 0B 05 0B 80 01 01 01 02 00000001",
            "26 'b' '1' 26 'a' '2' 01 01",
        ),
    ] {
        let packet = of_publish(section);
        let Ok(Some(Packet::Publish(Publish { properties, .. }))) = read(Version::V5, &packet)
        else {
            panic!("{section}")
        };
        let expected = bytes(forwarded);
        assert_eq!(properties.is_forwardable(), section == forwarded);
        let found = properties.forwardable(&mut scratch);
        assert_eq!(found.as_bytes(), expected);
        if section == forwarded && !section.is_empty() {
            assert_eq!(
                found.as_bytes().as_ptr(),
                properties.as_bytes().as_ptr(),
                "copied"
            );
        }
        assert_eq!(
            (found.topic_alias(), found.message_expiry_interval()),
            (None, None)
        );
        assert_eq!(found.subscription_identifiers().count(), 0);
        assert!(found.is_forwardable());
        assert_eq!(
            found.user_property_count(),
            properties.user_property_count()
        );
        let mut written = b"x".to_vec();
        properties.write_forwardable(&mut written);
        assert_eq!(&written[1..], expected);
    }
}

/// A builder is used again and again; what is too long for MQTT is cut at a character.
#[test]
fn building() {
    let mut builder = PropertiesBuilder::new();
    builder
        .push(Property::TopicAlias(1))
        .extend(properties(&[Property::ContentType("x")]));
    assert_eq!(builder.as_properties().as_bytes(), bytes("23 0001 03 'x'"));
    assert_eq!(builder.as_properties().content_type(), Some("x"));
    builder.clear();
    assert!(builder.as_properties().is_empty());
    assert_eq!(builder.as_properties().topic_alias(), None);
    builder.push(Property::ReasonString(&"é".repeat(40_000)));
    let reason = builder.as_properties().reason_string().unwrap();
    assert_eq!(reason.len(), 65_534);
    assert!(reason.chars().all(|character| character == 'é'));
    builder.clear();
    builder.push(Property::CorrelationData(&[7; 70_000]));
    assert_eq!(
        builder.as_properties().correlation_data().map(<[u8]>::len),
        Some(65_535)
    );
}
