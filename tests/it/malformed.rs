//! Bad input: each case gets the reason code that the standard names (version 5) or a close
//! (version 3), and nobody else notices. Every case runs with a witness that is subscribed to
//! everything.

use crate::harness::wire::Bytes;
use crate::harness::*;

const ALL: &[Version] = &Version::ALL;
const V5: &[Version] = &[Version::V5];
const V3: &[Version] = &[Version::V31, Version::V311];
const NOT_V31: &[Version] = &[Version::V311, Version::V5];

async fn witness(broker: &Broker) -> Client {
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("#", 2).await;
    witness
}

/// The witness has seen nothing, and the broker still works for it.
async fn unharmed(mut witness: Client) {
    witness.expect_nothing().await;
    witness.publish_text("alive", "yes", 2).await;
    witness.receive_exactly("alive", "yes").await;
    witness.expect_nothing().await;
}

/// Sends the bytes on an established connection.
async fn refuses(versions: &[Version], reason: Reason, bytes: impl Fn(Version) -> Vec<u8>) {
    let broker = Broker::start().await;
    let witness = witness(&broker).await;
    for version in versions {
        let mut client = broker.connect(Connect::new(*version, "offender")).await;
        client.send_bytes(&bytes(*version)).await;
        // What comes behind the offence must not be handled.
        client.send(Publish::new("after", "must not arrive")).await;
        client.expect_refused(reason).await;
    }
    unharmed(witness).await;
}

/// Sends the bytes as the first ones of a connection: version 5 is told by CONNACK, version 3 is
/// closed.
async fn refuses_connect(versions: &[Version], reason: Reason, bytes: impl Fn(Version) -> Vec<u8>) {
    let broker = Broker::start().await;
    let witness = witness(&broker).await;
    for version in versions {
        let mut client = broker.open(*version).await;
        client.send_bytes(&bytes(*version)).await;
        client.send(Publish::new("after", "must not arrive")).await;
        match version {
            Version::V5 => drop(client.expect_connack_refusal(reason).await),
            _ => client.expect_closed().await,
        }
    }
    unharmed(witness).await;
}

macro_rules! refused {
    ($how:ident: $($(#[$doc:meta])* $name:ident($versions:expr, $reason:ident) $bytes:expr;)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                $how($versions, Reason::$reason, $bytes).await;
            }
        )*
    };
}

/// A body with an empty property section where the version has one.
fn with_properties(version: Version, before: &[u8], properties: &[u8], after: &[u8]) -> Bytes {
    let mut body = Bytes::new();
    body.raw(before);
    if version == Version::V5 {
        body.varint(properties.len()).raw(properties);
    }
    body.raw(after);
    body
}

/// PUBLISH with these flags, topic bytes and properties.
fn publish(version: Version, flags: u8, topic: &[u8], properties: &[u8]) -> Vec<u8> {
    let mut before = Bytes::new();
    before.binary(topic);
    if flags & 6 != 0 {
        before.u16(1);
    }
    with_properties(version, &before.0, properties, b"payload").packet(0x30 | flags)
}

fn subscribe(version: Version, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    with_properties(version, &[0, 1], properties, payload).packet(0x82)
}

fn filter(text: &[u8], options: u8) -> Vec<u8> {
    let mut out = Bytes::new();
    out.binary(text).u8(options);
    out.0
}

refused! { refuses:
    /// Packet type 0 does not exist.
    packet_type_0(ALL, MALFORMED_PACKET) |_| vec![0x00, 0x00];
    /// Packet type 15 is AUTH in version 5 and nothing before.
    packet_type_15_in_version_3(V3, MALFORMED_PACKET) |_| vec![0xf0, 0x00];
    /// A second CONNECT is a protocol error. [MQTT-3.1.0-2] [MQTT-4.13.1-1] [MQTT311-3.1.0-2]
    /// [MQTT311-4.8.0-1]
    second_connect(ALL, PROTOCOL_ERROR) |version| Connect::new(version, "offender").bytes();
    /// Nor may it be for another Client Identifier.
    second_connect_with_another_identifier(ALL, PROTOCOL_ERROR) |version| Connect::new(version, "other").bytes();
    /// CONNACK comes from servers only.
    connack_from_a_client(ALL, PROTOCOL_ERROR) |version| with_properties(version, &[0, 0], &[], &[]).packet(0x20);
    /// SUBACK comes from servers only.
    suback_from_a_client(ALL, PROTOCOL_ERROR) |version| with_properties(version, &[0, 1], &[], &[0]).packet(0x90);
    /// UNSUBACK comes from servers only.
    unsuback_from_a_client(ALL, PROTOCOL_ERROR) |version| {
        with_properties(version, &[0, 1], &[], if version == Version::V5 { &[0] } else { &[] }).packet(0xb0)
    };
    /// PINGRESP comes from servers only.
    pingresp_from_a_client(ALL, PROTOCOL_ERROR) |_| vec![0xd0, 0x00];

    /// The reserved flags of PUBREL are 0010. [MQTT-3.6.1-1] [MQTT311-3.6.1-1] [MQTT-2.1.3-1]
    pubrel_with_wrong_flags(ALL, MALFORMED_PACKET) |_| vec![0x60, 0x02, 0x00, 0x01];
    /// Those of SUBSCRIBE as well. [MQTT-3.8.1-1] [MQTT311-3.8.1-1]
    subscribe_with_wrong_flags(ALL, MALFORMED_PACKET) |version| {
        with_properties(version, &[0, 1], &[], &filter(b"a", 0)).packet(0x80)
    };
    /// Those of UNSUBSCRIBE as well. [MQTT-3.10.1-1] [MQTT311-3.10.1-1]
    unsubscribe_with_wrong_flags(ALL, MALFORMED_PACKET) |version| {
        with_properties(version, &[0, 1], &[], &[0, 1, b'a']).packet(0xa0)
    };
    /// Those of DISCONNECT are 0000. [MQTT-3.14.1-1] [MQTT311-3.14.1-1]
    disconnect_with_wrong_flags(ALL, MALFORMED_PACKET) |_| vec![0xe1, 0x00];
    /// Those of PUBACK as well. [MQTT311-2.2.2-2]
    puback_with_wrong_flags(ALL, MALFORMED_PACKET) |_| vec![0x41, 0x02, 0x00, 0x01];
    /// Those of PINGREQ as well. [MQTT311-2.2.2-1]
    pingreq_with_wrong_flags(ALL, MALFORMED_PACKET) |_| vec![0xc4, 0x00];
    /// Those of AUTH as well. [MQTT-3.15.1-1]
    auth_with_wrong_flags(V5, MALFORMED_PACKET) |_| vec![0xf2, 0x00];

    /// A length has four bytes at most.
    fifth_length_byte(ALL, MALFORMED_PACKET) |_| vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01];
    /// A length uses the fewest bytes that can hold it. [MQTT-1.5.5-1]
    length_that_is_not_minimal(ALL, MALFORMED_PACKET) |_| vec![0xc0, 0x80, 0x00];
    /// The length of the property section as well. [MQTT-1.5.5-1]
    property_length_that_is_not_minimal(V5, MALFORMED_PACKET) |_| {
        let mut body = Bytes::new();
        body.string("a").raw(&[0x80, 0x00]);
        body.packet(0x30)
    };

    /// There is no QoS 3. [MQTT-3.3.1-4] [MQTT311-3.3.1-4]
    publish_with_qos_3(ALL, MALFORMED_PACKET) |version| publish(version, 0x06, b"a", &[]);
    /// DUP has no meaning at QoS 0. [MQTT-3.3.1-2] [MQTT311-3.3.1-2]
    publish_with_dup_at_qos_0(ALL, MALFORMED_PACKET) |version| publish(version, 0x08, b"a", &[]);
    /// A PUBLISH of no bytes has no topic. [MQTT-3.3.2-1] [MQTT311-3.3.2-1]
    publish_of_no_bytes(ALL, MALFORMED_PACKET) |_| vec![0x30, 0x00];
    /// A topic that is said to be longer than the packet.
    publish_topic_longer_than_the_packet(ALL, MALFORMED_PACKET) |_| vec![0x30, 0x04, 0xff, 0xff, b'a', b'b'];
    /// A topic longer by one byte.
    publish_topic_longer_by_one(ALL, MALFORMED_PACKET) |_| vec![0x30, 0x03, 0x00, 0x02, b'a'];
    /// A packet that ends within its Packet Identifier.
    publish_that_ends_in_its_identifier(ALL, MALFORMED_PACKET) |_| vec![0x32, 0x04, 0x00, 0x01, b'a', 0x00];
    /// Packet Identifier 0 is none. [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
    publish_with_identifier_0(ALL, PROTOCOL_ERROR) |version| {
        with_properties(version, &[0, 1, b'a', 0, 0], &[], b"x").packet(0x32)
    };
    /// Properties that are said to be longer than the packet.
    publish_properties_longer_than_the_packet(V5, MALFORMED_PACKET) |_| {
        let mut body = Bytes::new();
        body.string("a").varint(100).raw(&[0x01, 0x00]);
        body.packet(0x30)
    };
    /// A version 5 PUBLISH without a property length. [MQTT-2.2.2-1]
    publish_without_property_length(V5, MALFORMED_PACKET) |_| vec![0x30, 0x03, 0x00, 0x01, b'a'];
    /// A property that reaches beyond its section into the payload.
    property_longer_than_its_section(V5, MALFORMED_PACKET) |_| {
        let mut body = Bytes::new();
        body.string("a").varint(4).raw(&[0x03, 0x00, 0x05, b'x']).raw(b"payload");
        body.packet(0x30)
    };
    /// A property that has no room for its value.
    property_without_its_value(V5, MALFORMED_PACKET) |version| publish(version, 0, b"a", &[0x02, 0x00]);

    /// A topic has at least one character. [MQTT-4.7.3-1] [MQTT311-4.7.3-1]
    publish_with_empty_topic_in_version_3(V3, MALFORMED_PACKET) |version| publish(version, 0, b"", &[]);
    /// In version 5 it may be empty if an alias stands for it. [MQTT-4.7.3-1]
    publish_with_empty_topic_and_no_alias(V5, PROTOCOL_ERROR) |version| publish(version, 0, b"", &[]);
    /// No wildcard in a Topic Name: `#`. [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT311-3.3.2-2]
    /// [MQTT311-4.7.1-1]
    publish_to_multi_level_wildcard(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a/#", &[]);
    /// No wildcard in a Topic Name: `+`. [MQTT-3.3.2-2] [MQTT-4.7.0-1]
    publish_to_single_level_wildcard(ALL, MALFORMED_PACKET) |version| publish(version, 2, b"a/+/b", &[]);
    /// No U+0000. [MQTT-1.5.4-2] [MQTT-4.7.3-2] [MQTT311-1.5.3-2] [MQTT311-4.7.3-2]
    publish_to_topic_with_null(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a\0b", &[]);
    /// No bytes that are not UTF-8. [MQTT-1.5.4-1] [MQTT-3.3.2-1] [MQTT311-1.5.3-1]
    publish_to_topic_of_invalid_utf8(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a\xff\xfe", &[]);
    /// No UTF-8 that stops in the middle of a character.
    publish_to_topic_of_truncated_utf8(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a\xe2\x98", &[]);
    /// No surrogates. [MQTT-1.5.4-1] [MQTT311-1.5.3-1]
    publish_to_topic_with_surrogate(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a\xed\xa0\x80", &[]);
    /// No characters written longer than needed, by which a `/` or a U+0000 could be smuggled.
    publish_to_topic_of_overlong_utf8(ALL, MALFORMED_PACKET) |version| publish(version, 0, b"a\xc0\xaf", &[]);
    /// A client may not send a Subscription Identifier. [MQTT-3.3.4-6]
    publish_with_subscription_identifier(V5, PROTOCOL_ERROR) |version| publish(version, 0, b"a", &[0x0b, 0x01]);
    /// A property that a PUBLISH does not have.
    publish_with_a_property_of_another_packet(V5, MALFORMED_PACKET) |version| {
        publish(version, 0, b"a", &[0x11, 0, 0, 0, 9])
    };
    /// A property that nothing has.
    publish_with_an_unknown_property(V5, MALFORMED_PACKET) |version| publish(version, 0, b"a", &[0x7f, 0x00]);
    /// A property twice that may come once.
    publish_with_a_repeated_property(V5, PROTOCOL_ERROR) |version| publish(version, 0, b"a", &[0x01, 0x00, 0x01, 0x00]);
    /// A Payload Format Indicator is 0 or 1.
    publish_with_payload_format_2(V5, PROTOCOL_ERROR) |version| publish(version, 0, b"a", &[0x01, 0x02]);
    /// A Content Type is UTF-8. [MQTT-3.3.2-19]
    publish_with_invalid_content_type(V5, MALFORMED_PACKET) |version| publish(version, 0, b"a", &[0x03, 0, 1, 0xff]);
    /// A Response Topic is UTF-8. [MQTT-3.3.2-13]
    publish_with_invalid_response_topic(V5, MALFORMED_PACKET) |version| publish(version, 0, b"a", &[0x08, 0, 1, 0xff]);
    /// A Response Topic has no wildcards. [MQTT-3.3.2-14]
    publish_with_wildcard_response_topic(V5, MALFORMED_PACKET) |version| {
        publish(version, 0, b"a", &[0x08, 0, 3, b'a', b'/', b'+'])
    };
    /// User Properties are UTF-8, both strings. [MQTT-1.5.7-1]
    publish_with_invalid_user_property_name(V5, MALFORMED_PACKET) |version| {
        publish(version, 0, b"a", &[0x26, 0, 1, 0xc0, 0, 1, b'v'])
    };
    /// Their values, too: no U+0000 reaches a subscriber. [MQTT-1.5.7-1]
    publish_with_invalid_user_property_value(V5, MALFORMED_PACKET) |version| {
        publish(version, 0, b"a", &[0x26, 0, 1, b'n', 0, 1, 0x00])
    };

    /// SUBSCRIBE needs at least one filter. [MQTT-3.8.3-2] [MQTT311-3.8.3-3]
    subscribe_to_nothing(ALL, PROTOCOL_ERROR) |version| subscribe(version, &[], &[]);
    /// SUBSCRIBE needs a Packet Identifier. [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
    subscribe_with_identifier_0(ALL, PROTOCOL_ERROR) |version| {
        with_properties(version, &[0, 0], &[], &filter(b"a", 0)).packet(0x82)
    };
    /// A filter is UTF-8. [MQTT-3.8.3-1] [MQTT311-3.8.3-1]
    subscribe_to_invalid_utf8(ALL, MALFORMED_PACKET) |version| subscribe(version, &[], &filter(b"a\xff", 0));
    /// A filter has no U+0000. [MQTT-4.7.3-2] [MQTT311-4.7.3-2]
    subscribe_to_filter_with_null(ALL, MALFORMED_PACKET) |version| subscribe(version, &[], &filter(b"a\0", 0));
    /// A filter longer than the packet.
    subscribe_filter_longer_than_the_packet(ALL, MALFORMED_PACKET) |version| subscribe(version, &[], &[0x00, 0x09, b'a', 0]);
    /// A filter without options.
    subscribe_without_options(ALL, MALFORMED_PACKET) |version| subscribe(version, &[], &[0, 1, b'a']);
    /// Reserved bits of the options. [MQTT-3.8.3-5]
    subscribe_with_reserved_options(V5, MALFORMED_PACKET) |version| subscribe(version, &[], &filter(b"a", 0x40));
    /// In version 3 all but the QoS is reserved. [MQTT311-3.8.3-4]
    subscribe_with_version_5_options_in_version_3(&[Version::V311], MALFORMED_PACKET) |version| {
        subscribe(version, &[], &filter(b"a", 0x04))
    };
    /// A subscription with QoS 3. [MQTT311-3.8.3-4]
    subscribe_with_qos_3(NOT_V31, PROTOCOL_ERROR) |version| subscribe(version, &[], &filter(b"a", 0x03));
    /// Retain Handling 3.
    subscribe_with_retain_handling_3(V5, PROTOCOL_ERROR) |version| subscribe(version, &[], &filter(b"a", 0x30));
    /// The offence of one filter refuses them all: none is subscribed.
    subscribe_with_one_bad_filter_among_good_ones(ALL, MALFORMED_PACKET) |version| {
        let filters = [filter(b"good", 0), filter(b"bad\xff", 0), filter(b"better", 0)].concat();
        subscribe(version, &[], &filters)
    };
    /// Subscription Identifier 0.
    subscribe_with_subscription_identifier_0(V5, PROTOCOL_ERROR) |version| subscribe(version, &[0x0b, 0x00], &filter(b"a", 0));
    /// Two Subscription Identifiers in one SUBSCRIBE.
    subscribe_with_two_subscription_identifiers(V5, PROTOCOL_ERROR) |version| {
        subscribe(version, &[0x0b, 0x01, 0x0b, 0x02], &filter(b"a", 0))
    };

    /// UNSUBSCRIBE needs at least one filter. [MQTT-3.10.3-2] [MQTT311-3.10.3-2]
    unsubscribe_from_nothing(ALL, PROTOCOL_ERROR) |version| with_properties(version, &[0, 1], &[], &[]).packet(0xa2);
    /// UNSUBSCRIBE needs a Packet Identifier. [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
    unsubscribe_with_identifier_0(ALL, PROTOCOL_ERROR) |version| {
        with_properties(version, &[0, 0], &[], &[0, 1, b'a']).packet(0xa2)
    };
    /// A filter is UTF-8. [MQTT-3.10.3-1] [MQTT311-3.10.3-1]
    unsubscribe_from_invalid_utf8(ALL, MALFORMED_PACKET) |version| {
        with_properties(version, &[0, 1], &[], &[0, 1, 0xff]).packet(0xa2)
    };

    /// An acknowledgement has an identifier.
    puback_of_no_bytes(ALL, MALFORMED_PACKET) |_| vec![0x40, 0x00];
    /// An acknowledgement of Packet Identifier 0.
    puback_of_identifier_0(ALL, PROTOCOL_ERROR) |_| vec![0x40, 0x02, 0x00, 0x00];
    /// In version 3 there is nothing behind the identifier.
    puback_with_trailing_bytes_in_version_3(V3, MALFORMED_PACKET) |_| vec![0x40, 0x03, 0x00, 0x01, 0x00];
    /// A reason code that PUBACK does not have. [MQTT-3.4.2-1]
    puback_with_a_reason_of_another_packet(V5, PROTOCOL_ERROR) |_| vec![0x40, 0x03, 0x00, 0x01, 0x92];
    /// A reason code that PUBREC does not have. [MQTT-3.5.2-1]
    pubrec_with_a_reason_of_another_packet(V5, PROTOCOL_ERROR) |_| vec![0x50, 0x03, 0x00, 0x01, 0x8b];
    /// A reason code that PUBREL does not have. [MQTT-3.6.2-1]
    pubrel_with_a_reason_of_another_packet(V5, PROTOCOL_ERROR) |_| vec![0x62, 0x03, 0x00, 0x01, 0x10];
    /// A reason code that PUBCOMP does not have. [MQTT-3.7.2-1]
    pubcomp_with_a_reason_of_another_packet(V5, PROTOCOL_ERROR) |_| vec![0x70, 0x03, 0x00, 0x01, 0x80];
    /// PINGREQ has no body.
    pingreq_with_a_body(ALL, MALFORMED_PACKET) |_| vec![0xc0, 0x01, 0x00];
    /// DISCONNECT has no body in version 3.
    disconnect_with_a_body_in_version_3(V3, MALFORMED_PACKET) |_| vec![0xe0, 0x01, 0x00];
    /// A reason code that does not exist. [MQTT-3.14.2-1]
    disconnect_with_an_unknown_reason(V5, PROTOCOL_ERROR) |_| vec![0xe0, 0x01, 0x03];
    /// AUTH needs a method that CONNECT has named. [MQTT-4.12.0-7]
    auth_without_a_method_in_connect(V5, PROTOCOL_ERROR) |_| {
        let mut body = Bytes::new();
        body.u8(0x19).properties(&[Property::AuthenticationMethod("SCRAM-SHA-256".into())]);
        body.packet(0xf0)
    };
    /// A reason code that AUTH does not have. [MQTT-3.15.2-1]
    auth_with_a_reason_of_another_packet(V5, PROTOCOL_ERROR) |_| {
        let mut body = Bytes::new();
        body.u8(0x80).properties(&[Property::AuthenticationMethod("SCRAM-SHA-256".into())]);
        body.packet(0xf0)
    };
}

/// CONNECT with its connect flags replaced.
fn connect_with_flags(version: Version, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Bytes::new();
    match version {
        Version::V31 => body.string("MQIsdp").u8(3),
        Version::V311 => body.string("MQTT").u8(4),
        Version::V5 => body.string("MQTT").u8(5),
    };
    body.u8(flags).u16(60);
    if version == Version::V5 {
        body.u8(0);
    }
    body.raw(payload);
    body.packet(0x10)
}

fn connect_with_properties(properties: &[u8]) -> Vec<u8> {
    let mut body = Bytes::new();
    body.string("MQTT")
        .u8(5)
        .u8(2)
        .u16(60)
        .varint(properties.len())
        .raw(properties)
        .string("offender");
    body.packet(0x10)
}

/// A version 5 CONNECT with this Will, raw.
fn connect_with_will(properties: &[u8], topic: &[u8]) -> Vec<u8> {
    let mut payload = Bytes::new();
    payload
        .string("offender")
        .varint(properties.len())
        .raw(properties)
        .binary(topic)
        .binary(b"will");
    connect_with_flags(Version::V5, 0x06, &payload.0)
}

const ID: &[u8] = &[0, 1, b'a'];

refused! { refuses_connect:
    /// The reserved connect flag. [MQTT-3.1.2-3] [MQTT311-3.1.2-3] [MQTT311-3.2.2-6]
    connect_with_the_reserved_flag(NOT_V31, MALFORMED_PACKET) |version| connect_with_flags(version, 0x03, ID);
    /// Will QoS without Will. [MQTT-3.1.2-11] [MQTT311-3.1.2-13]
    connect_with_will_qos_and_no_will(NOT_V31, MALFORMED_PACKET) |version| connect_with_flags(version, 0x0a, ID);
    /// Will Retain without Will. [MQTT-3.1.2-13] [MQTT311-3.1.2-15]
    connect_with_will_retain_and_no_will(NOT_V31, MALFORMED_PACKET) |version| connect_with_flags(version, 0x22, ID);
    /// Will QoS 3. [MQTT-3.1.2-12] [MQTT311-3.1.2-14]
    connect_with_will_qos_3(ALL, MALFORMED_PACKET) |version| {
        let mut payload = Bytes::new();
        payload.raw(ID);
        if version == Version::V5 {
            payload.u8(0);
        }
        payload.string("will").string("x");
        connect_with_flags(version, 0x1e, &payload.0)
    };
    /// A Will that is announced and missing. [MQTT-3.1.2-9] [MQTT311-3.1.2-9]
    connect_without_the_announced_will(ALL, MALFORMED_PACKET) |version| connect_with_flags(version, 0x06, ID);
    /// A User Name that is announced and missing. [MQTT-3.1.2-17] [MQTT311-3.1.2-19]
    connect_without_the_announced_user_name(NOT_V31, MALFORMED_PACKET) |version| connect_with_flags(version, 0x82, ID);
    /// A Password that is announced and missing. [MQTT-3.1.2-19] [MQTT311-3.1.2-21]
    connect_without_the_announced_password(NOT_V31, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0xc2, &[0, 1, b'a', 0, 1, b'u'])
    };
    /// A User Name that is there and not announced. [MQTT-3.1.2-16] [MQTT311-3.1.2-18]
    /// [MQTT311-3.1.2-11]
    connect_with_an_unannounced_user_name(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x02, &[0, 1, b'a', 0, 1, b'u'])
    };
    /// A Password that is there and not announced. [MQTT-3.1.2-18] [MQTT311-3.1.2-20]
    connect_with_an_unannounced_password(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x82, &[0, 1, b'a', 0, 1, b'u', 0, 1, b'p'])
    };
    /// A Password without a User Name, before version 5. [MQTT311-3.1.2-22]
    connect_with_a_password_and_no_user_name_in_version_3(V3, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x42, &[0, 1, b'a', 0, 1, b'p'])
    };
    /// A CONNECT without Client Identifier. [MQTT-3.1.3-1] [MQTT311-3.1.3-1] [MQTT-3.1.3-3]
    /// [MQTT311-3.1.3-3] [MQTT-3.1.4-1] [MQTT311-3.1.4-1]
    connect_without_client_identifier(ALL, MALFORMED_PACKET) |version| connect_with_flags(version, 0x02, &[]);
    /// A Client Identifier that is longer than the packet.
    connect_client_identifier_longer_than_the_packet(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x02, &[0xff, 0xff, b'a'])
    };
    /// A Client Identifier is UTF-8. [MQTT-3.1.3-4] [MQTT311-3.1.3-4]
    connect_with_client_identifier_of_invalid_utf8(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x02, &[0, 2, b'a', 0xff])
    };
    /// A Client Identifier has no U+0000. [MQTT-1.5.4-2] [MQTT311-1.5.3-2]
    connect_with_client_identifier_with_null(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x02, &[0, 2, b'a', 0x00])
    };
    /// A User Name is UTF-8. [MQTT-3.1.3-12] [MQTT311-3.1.3-11]
    connect_with_user_name_of_invalid_utf8(ALL, MALFORMED_PACKET) |version| {
        connect_with_flags(version, 0x82, &[0, 1, b'a', 0, 1, 0xff])
    };
    /// Properties that are longer than the packet.
    connect_properties_longer_than_the_packet(V5, MALFORMED_PACKET) |_| {
        let mut body = Bytes::new();
        body.string("MQTT").u8(5).u8(2).u16(60).varint(50).string("a");
        body.packet(0x10)
    };
    /// A property that nothing has.
    connect_with_an_unknown_property(V5, MALFORMED_PACKET) |_| connect_with_properties(&[0x04, 0x00]);
    /// A property of another packet.
    connect_with_a_property_of_another_packet(V5, MALFORMED_PACKET) |_| connect_with_properties(&[0x23, 0x00, 0x01]);
    /// A property twice that may come once.
    connect_with_a_repeated_property(V5, PROTOCOL_ERROR) |_| {
        connect_with_properties(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1])
    };
    /// Receive Maximum 0.
    connect_with_receive_maximum_0(V5, PROTOCOL_ERROR) |_| connect_with_properties(&[0x21, 0, 0]);
    /// Maximum Packet Size 0.
    connect_with_maximum_packet_size_0(V5, PROTOCOL_ERROR) |_| connect_with_properties(&[0x27, 0, 0, 0, 0]);
    /// Request Problem Information is 0 or 1.
    connect_with_request_problem_information_2(V5, PROTOCOL_ERROR) |_| connect_with_properties(&[0x17, 2]);
    /// Request Response Information is 0 or 1.
    connect_with_request_response_information_2(V5, PROTOCOL_ERROR) |_| connect_with_properties(&[0x19, 2]);
    /// Authentication Data without a method.
    connect_with_authentication_data_alone(V5, PROTOCOL_ERROR) |_| connect_with_properties(&[0x16, 0, 1, b'x']);
    /// A Will Topic is a Topic Name: no wildcards.
    connect_with_a_wildcard_will_topic(V5, MALFORMED_PACKET) |_| connect_with_will(&[], b"will/#");
    /// A Will Topic is UTF-8. [MQTT-3.1.3-11]
    connect_with_a_will_topic_of_invalid_utf8(V5, MALFORMED_PACKET) |_| connect_with_will(&[], b"will\xff");
    /// A Will Topic is not empty.
    connect_with_an_empty_will_topic(V5, MALFORMED_PACKET) |_| connect_with_will(&[], b"");
    /// A Will's properties are its own: no Topic Alias.
    connect_with_a_topic_alias_in_the_will(V5, MALFORMED_PACKET) |_| connect_with_will(&[0x23, 0, 1], b"will");
    /// A Will property twice that may come once.
    connect_with_a_repeated_will_property(V5, PROTOCOL_ERROR) |_| {
        connect_with_will(&[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1], b"will")
    };
}

/// Version 3 knows the same rules about the Will Topic. [MQTT311-3.1.3-10]
#[tokio::test]
async fn v3_connect_with_a_bad_will_topic() {
    for topic in [&b""[..], b"a/#", b"a\xff", b"a\0"] {
        refuses_connect(V3, Reason::MALFORMED_PACKET, |version| {
            let mut payload = Bytes::new();
            payload.raw(ID).binary(topic).string("will");
            connect_with_flags(version, 0x06, &payload.0)
        })
        .await;
    }
}

/// What is not CONNECT cannot come first: closed without an answer, whatever it is.
/// [MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT311-3.1.0-1]
#[tokio::test]
async fn the_first_packet_must_be_connect() {
    let broker = Broker::start().await;
    let witness = witness(&broker).await;
    for version in Version::ALL {
        let mut subscribe = Subscribe::new([("#", 0)]);
        subscribe.packet_id = 1;
        let mut unsubscribe = Unsubscribe::new(&["#"]);
        unsubscribe.packet_id = 1;
        let firsts: [Packet; 11] = [
            ConnAck {
                session_present: false,
                reason: Reason::SUCCESS,
                properties: Vec::new(),
            }
            .into(),
            Publish::new("a", "must not arrive").into(),
            Publish::new("a", "must not arrive").qos(2).id(1).into(),
            Packet::PubAck(Ack::new(1)),
            Packet::PubRec(Ack::new(1)),
            Packet::PubRel(Ack::new(1)),
            subscribe.into(),
            unsubscribe.into(),
            Packet::PingReq,
            Disconnect::new(Reason::SUCCESS).into(),
            Auth {
                reason: Reason::CONTINUE_AUTHENTICATION,
                properties: vec![Property::AuthenticationMethod("SCRAM-SHA-256".into())],
            }
            .into(),
        ];
        for packet in firsts {
            let mut client = broker.open(version).await;
            client
                .send_all([packet, Connect::new(version, "late").into()])
                .await;
            client.expect_closed().await;
        }
    }
    unharmed(witness).await;
}

/// Another protocol's first bytes are closed, too.
#[tokio::test]
async fn other_protocols_are_closed() {
    let broker = Broker::start().await;
    let witness = witness(&broker).await;
    let hellos: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"AMQP\x00\x00\x09\x01",
        &[0x00; 64],
        &[0xff; 64],
    ];
    for hello in hellos {
        let mut client = broker.open(Version::V5).await;
        client.send_bytes(hello).await;
        client.expect_closed().await;
    }
    unharmed(witness).await;
}

/// A connection that ends in the middle of a packet has sent nothing.
#[tokio::test]
async fn a_packet_cut_short_by_the_end_of_the_connection_is_nothing() {
    let broker = Broker::start().await;
    let witness = witness(&broker).await;
    for version in Version::ALL {
        let connect = Connect::new(version, "offender").bytes();
        for length in 0..connect.len() {
            let mut client = broker.open(version).await;
            client.send_bytes(&connect[..length]).await;
            client.lose().await;
        }
        let publish =
            Packet::from(Publish::new("topic", "must not arrive").qos(1).id(1)).bytes(version);
        for length in 1..publish.len() {
            let mut client = broker.connect(Connect::new(version, "offender")).await;
            client.send_bytes(&publish[..length]).await;
            client.lose().await;
        }
    }
    unharmed(witness).await;
}

/// Every single byte as a packet's first one, with a few bodies: the broker answers or closes and
/// never dies.
#[tokio::test]
async fn any_first_byte_is_survived() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        for first_byte in 0..=255u8 {
            let mut client = broker
                .connect(Connect::new(version, &format!("offender {first_byte}")))
                .await;
            let mut body = Bytes::new();
            body.u16(1).string("x");
            client.send_bytes(&body.packet(first_byte)).await;
            client.send(Disconnect::new(Reason::SUCCESS)).await;
            // Everything ends with a close: by the offence or by DISCONNECT.
            client.wait_until_closed().await;
        }
    }
    let mut client = broker.client("afterwards").await;
    client.subscribe_to("#", 0).await;
    client.publish_text("alive", "yes", 2).await;
    client.receive_exactly("alive", "yes").await;
}

/// A message that was handled before the offence stays handled, one behind it is not.
#[tokio::test]
async fn packets_before_the_offence_count() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "offender")).await;
        let mut bytes = Packet::from(Publish::new("before", "arrives").qos(1).id(1)).bytes(version);
        bytes.extend([0x00, 0x00]);
        bytes.extend(Packet::from(Publish::new("after", "must not arrive")).bytes(version));
        client.send_bytes(&bytes).await;
        client.expect_puback(1).await;
        client.expect_refused(Reason::MALFORMED_PACKET).await;
        witness.receive_exactly("before", "arrives").await;
    }
    unharmed(witness).await;
}

/// The session survives its client's mistake: what had been queued is still there.
#[tokio::test]
async fn an_offence_does_not_cost_the_session() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t", 1).await;
        client.send_bytes(&[0x00, 0x00]).await;
        client.expect_refused(Reason::MALFORMED_PACKET).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "waiting", 1).await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.receive_exactly("t", "waiting").await;
    }
}
