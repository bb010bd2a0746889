//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use tidings_protocol::mqtt::{
    FilterNamesBuilder, FiltersBuilder, Packet, Properties, Property, QoS, RetainHandling, SubAck,
    Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe,
};

use super::{Case, both, forbidden, malformed, reads, writes};
use crate::notation::{ALL, V3, V5, V31, V311, bytes, id, properties, read};

const QOS_0: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::Send,
};
const QOS_1: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtLeastOnce,
    ..QOS_0
};
const QOS_2: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::ExactlyOnce,
    ..QOS_0
};
const EVERYTHING: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::ExactlyOnce,
    no_local: true,
    retain_as_published: true,
    retain_handling: RetainHandling::DoNotSend,
};

fn subscribe(list: &[Property<'_>], filters: &[(&str, SubscriptionOptions)]) -> Packet<'static> {
    let mut builder = FiltersBuilder::new();
    for (filter, options) in filters {
        builder.push(filter, *options);
    }
    let filters = Box::leak(Box::new(builder)).as_filters();
    Packet::Subscribe(Subscribe {
        packet_id: id(10),
        properties: properties(list),
        filters,
    })
}

fn unsubscribe(list: &[Property<'_>], filters: &[&str]) -> Packet<'static> {
    let mut builder = FilterNamesBuilder::new();
    for filter in filters {
        builder.push(filter);
    }
    let filters = Box::leak(Box::new(builder)).as_filters();
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(10),
        properties: properties(list),
        filters,
    })
}

fn suback(list: &[Property<'_>], reasons: &'static [u8]) -> Packet<'static> {
    Packet::SubAck(SubAck {
        packet_id: id(10),
        properties: properties(list),
        reasons,
    })
}

fn unsuback(list: &[Property<'_>], reasons: &'static [u8]) -> Packet<'static> {
    Packet::UnsubAck(UnsubAck {
        packet_id: id(10),
        properties: properties(list),
        reasons,
    })
}

pub fn cases() -> Vec<Case> {
    [
        subscribe_cases(),
        suback_cases(),
        unsubscribe_cases(),
        unsuback_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn subscribe_cases() -> Vec<Case> {
    vec![
        both(
            "SUBSCRIBE 3",
            V3,
            "82 [ 000A 'a/b' 00 ]",
            subscribe(&[], &[("a/b", QOS_0)]),
        ),
        both(
            "SUBSCRIBE 5",
            V5,
            "82 [ 000A 00 'a/b' 00 ]",
            subscribe(&[], &[("a/b", QOS_0)]),
        ),
        both(
            "SUBSCRIBE 3 to three filters",
            V3,
            "82 [ 000A 'a' 00 '+/b' 01 '#' 02 ]",
            subscribe(&[], &[("a", QOS_0), ("+/b", QOS_1), ("#", QOS_2)]),
        ),
        both(
            "SUBSCRIBE 5 to three filters",
            V5,
            "82 [ 000A 00 'a' 00 '+/b' 01 '#' 02 ]",
            subscribe(&[], &[("a", QOS_0), ("+/b", QOS_1), ("#", QOS_2)]),
        ),
        both(
            "SUBSCRIBE with every option",
            V5,
            "82 [ 000A 00 'a' 2E ]",
            subscribe(&[], &[("a", EVERYTHING)]),
        ),
        both(
            "SUBSCRIBE with No Local",
            V5,
            "82 [ 000A 00 'a' 04 ]",
            subscribe(
                &[],
                &[(
                    "a",
                    SubscriptionOptions {
                        no_local: true,
                        ..QOS_0
                    },
                )],
            ),
        ),
        both(
            "SUBSCRIBE with Retain As Published",
            V5,
            "82 [ 000A 00 'a' 08 ]",
            subscribe(
                &[],
                &[(
                    "a",
                    SubscriptionOptions {
                        retain_as_published: true,
                        ..QOS_0
                    },
                )],
            ),
        ),
        both(
            "SUBSCRIBE with Retain Handling 1",
            V5,
            "82 [ 000A 00 'a' 11 ]",
            subscribe(
                &[],
                &[(
                    "a",
                    SubscriptionOptions {
                        retain_handling: RetainHandling::SendIfNew,
                        ..QOS_1
                    },
                )],
            ),
        ),
        both(
            "SUBSCRIBE with Retain Handling 2",
            V5,
            "82 [ 000A 00 'a' 20 ]",
            subscribe(
                &[],
                &[(
                    "a",
                    SubscriptionOptions {
                        retain_handling: RetainHandling::DoNotSend,
                        ..QOS_0
                    },
                )],
            ),
        ),
        writes(
            "SUBSCRIBE 3 has the QoS only",
            V3,
            "82 [ 000A 'a' 02 ]",
            subscribe(&[], &[("a", EVERYTHING)]),
        ),
        both(
            "SUBSCRIBE with a Subscription Identifier",
            V5,
            "82 [ 000A [ 0B FF FF FF 7F ] 'a' 00 ]",
            subscribe(
                &[Property::SubscriptionIdentifier(268_435_455)],
                &[("a", QOS_0)],
            ),
        ),
        both(
            "SUBSCRIBE with a User Property",
            V5,
            "82 [ 000A [ 26 'k' 'v' ] 'a' 00 ]",
            subscribe(&[Property::UserProperty("k", "v")], &[("a", QOS_0)]),
        ),
        both(
            "SUBSCRIBE to a Shared Subscription",
            V5,
            "82 [ 000A 00 '$share/g/a' 01 ]",
            subscribe(&[], &[("$share/g/a", QOS_1)]),
        ),
        // The grammar of a filter is answered in SUBACK, so it does not end the connection.
        both(
            "SUBSCRIBE to a misplaced #",
            V5,
            "82 [ 000A 00 'a/#/b' 00 ]",
            subscribe(&[], &[("a/#/b", QOS_0)]),
        ),
        both(
            "SUBSCRIBE to a misplaced +",
            V3,
            "82 [ 000A 'a+' 00 ]",
            subscribe(&[], &[("a+", QOS_0)]),
        ),
        both(
            "SUBSCRIBE to an empty filter",
            V3,
            "82 [ 000A '' 00 ]",
            subscribe(&[], &[("", QOS_0)]),
        ),
        reads(
            "SUBSCRIBE 3.1 sent again with DUP",
            V31,
            "8A [ 000A 'a/b' 00 ]",
            subscribe(&[], &[("a/b", QOS_0)]),
        ),
        forbidden(
            "SUBSCRIBE 3 without a filter",
            V3,
            "82 02 000A",
            "MQTT311-3.8.3-3",
        ),
        forbidden(
            "SUBSCRIBE 5 without a filter",
            V5,
            "82 03 000A 00",
            "MQTT-3.8.3-2",
        ),
        forbidden(
            "SUBSCRIBE with Packet Identifier 0",
            ALL,
            "82 [ 0000 00 'a' 00 ]",
            "MQTT-2.2.1-3",
        ),
        malformed("SUBSCRIBE without a body", ALL, "82 00", "MQTT5 §2.1.4"),
        malformed(
            "SUBSCRIBE 5 without a Property Length",
            V5,
            "82 02 000A",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "SUBSCRIBE 3 without options",
            V3,
            "82 [ 000A 'a' ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "SUBSCRIBE 5 without options for its second filter",
            V5,
            "82 [ 000A 00 'a' 00 'b' ]",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "SUBSCRIBE whose filter is longer than the packet",
            V3,
            "82 [ 000A 0009 61 00 ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "SUBSCRIBE with one byte after its end",
            V3,
            "82 [ 000A 'a' 00 00 ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "SUBSCRIBE to a filter with U+0000",
            V5,
            "82 [ 000A 00 0001 00 00 ]",
            "MQTT-1.5.4-2",
        ),
        malformed(
            "SUBSCRIBE 3 to a filter with U+0000",
            V3,
            "82 [ 000A 0001 00 00 ]",
            "MQTT311-1.5.3-2",
        ),
        malformed(
            "SUBSCRIBE to a filter that is not UTF-8",
            V3,
            "82 [ 000A 0001 FF 00 ]",
            "MQTT311-1.5.3-1",
        ),
        malformed(
            "SUBSCRIBE 3 with QoS 3",
            V3,
            "82 [ 000A 'a' 03 ]",
            "MQTT311-3-8.3-4",
        ),
        forbidden(
            "SUBSCRIBE 5 with QoS 3",
            V5,
            "82 [ 000A 00 'a' 03 ]",
            "MQTT5 §3.8.3.1",
        ),
        malformed(
            "SUBSCRIBE 3.1.1 with the options of MQTT 5",
            V311,
            "82 [ 000A 'a' 04 ]",
            "MQTT311-3-8.3-4",
        ),
        malformed(
            "SUBSCRIBE 3 with a reserved bit",
            V3,
            "82 [ 000A 'a' 81 ]",
            "MQTT311-3-8.3-4",
        ),
        malformed(
            "SUBSCRIBE 5 with reserved bit 6",
            V5,
            "82 [ 000A 00 'a' 40 ]",
            "MQTT-3.8.3-5",
        ),
        malformed(
            "SUBSCRIBE 5 with reserved bit 7",
            V5,
            "82 [ 000A 00 'a' 00 'b' 80 ]",
            "MQTT-3.8.3-5",
        ),
        forbidden(
            "SUBSCRIBE with Retain Handling 3",
            V5,
            "82 [ 000A 00 'a' 30 ]",
            "MQTT5 §3.8.3.1",
        ),
        forbidden(
            "SUBSCRIBE with No Local on a Shared Subscription",
            V5,
            "82 [ 000A 00 '$share/g/a' 04 ]",
            "MQTT-3.8.3-4",
        ),
        forbidden(
            "SUBSCRIBE with Subscription Identifier 0",
            V5,
            "82 [ 000A [ 0B 00 ] 'a' 00 ]",
            "MQTT5 §3.8.2.1.2",
        ),
        forbidden(
            "SUBSCRIBE with two Subscription Identifiers",
            V5,
            "82 [ 000A [ 0B 01 0B 02 ] 'a' 00 ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "SUBSCRIBE with a Reason String",
            V5,
            "82 [ 000A [ 1F 'x' ] 'a' 00 ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "SUBSCRIBE whose properties are longer than the packet",
            V5,
            "82 [ 000A 0F 'a' 00 ]",
            "MQTT5 §2.2.2.1",
        ),
    ]
}

fn suback_cases() -> Vec<Case> {
    vec![
        both("SUBACK 3", V3, "90 03 000A 00", suback(&[], &[0])),
        both("SUBACK 5", V5, "90 04 000A 00 00", suback(&[], &[0])),
        both(
            "SUBACK 3 to four filters",
            V3,
            "90 [ 000A 00 01 02 80 ]",
            suback(&[], &[0, 1, 2, 0x80]),
        ),
        both(
            "SUBACK 5 with each of its Reason Codes",
            V5,
            "90 [ 000A 00 00 01 02 80 83 87 8F 91 97 9E A1 A2 ]",
            suback(
                &[],
                &[
                    0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
                ],
            ),
        ),
        writes(
            "SUBACK 3 says 0x80 for any failure",
            V3,
            "90 [ 000A 01 80 80 ]",
            suback(&[], &[1, 0x87, 0xA2]),
        ),
        both(
            "SUBACK with properties",
            V5,
            "90 [ 000A [ 1F 'why' 26 'k' 'v' ] 87 ]",
            suback(
                &[
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                ],
                &[0x87],
            ),
        ),
        forbidden(
            "SUBACK 3 without a return code",
            V3,
            "90 02 000A",
            "MQTT311-3.8.4-5",
        ),
        forbidden(
            "SUBACK 5 without a Reason Code",
            V5,
            "90 03 000A 00",
            "MQTT-3.8.4-6",
        ),
        forbidden(
            "SUBACK 3 with return code 3",
            V3,
            "90 03 000A 03",
            "MQTT311-3.9.3-2",
        ),
        forbidden(
            "SUBACK 3 with a Reason Code of MQTT 5",
            V3,
            "90 03 000A 87",
            "MQTT311-3.9.3-2",
        ),
        forbidden(
            "SUBACK 5 with a Reason Code of UNSUBACK",
            V5,
            "90 05 000A 00 00 11",
            "MQTT-3.9.3-2",
        ),
        forbidden(
            "SUBACK with Packet Identifier 0",
            ALL,
            "90 04 0000 00 00",
            "MQTT-2.2.1-3",
        ),
        malformed("SUBACK without a body", ALL, "90 00", "MQTT5 §2.1.4"),
        malformed(
            "SUBACK 5 without a Property Length",
            V5,
            "90 02 000A",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "SUBACK with a Subscription Identifier",
            V5,
            "90 [ 000A [ 0B 01 ] 00 ]",
            "MQTT5 §2.2.2.2",
        ),
    ]
}

fn unsubscribe_cases() -> Vec<Case> {
    vec![
        both(
            "UNSUBSCRIBE 3",
            V3,
            "A2 [ 000A 'a/b' ]",
            unsubscribe(&[], &["a/b"]),
        ),
        both(
            "UNSUBSCRIBE 5",
            V5,
            "A2 [ 000A 00 'a/b' ]",
            unsubscribe(&[], &["a/b"]),
        ),
        both(
            "UNSUBSCRIBE 3 from three filters",
            V3,
            "A2 [ 000A 'a' '+/b' '#' ]",
            unsubscribe(&[], &["a", "+/b", "#"]),
        ),
        both(
            "UNSUBSCRIBE 5 from three filters",
            V5,
            "A2 [ 000A 00 'a' '+/b' '#' ]",
            unsubscribe(&[], &["a", "+/b", "#"]),
        ),
        both(
            "UNSUBSCRIBE with a User Property",
            V5,
            "A2 [ 000A [ 26 'k' 'v' ] 'a' ]",
            unsubscribe(&[Property::UserProperty("k", "v")], &["a"]),
        ),
        reads(
            "UNSUBSCRIBE 3.1 sent again with DUP",
            V31,
            "AA [ 000A 'a/b' ]",
            unsubscribe(&[], &["a/b"]),
        ),
        forbidden(
            "UNSUBSCRIBE 3 without a filter",
            V3,
            "A2 02 000A",
            "MQTT311-3.10.3-2",
        ),
        forbidden(
            "UNSUBSCRIBE 5 without a filter",
            V5,
            "A2 03 000A 00",
            "MQTT-3.10.3-2",
        ),
        forbidden(
            "UNSUBSCRIBE with Packet Identifier 0",
            ALL,
            "A2 [ 0000 00 'a' ]",
            "MQTT311-2.3.1-1",
        ),
        malformed("UNSUBSCRIBE without a body", ALL, "A2 00", "MQTT5 §2.1.4"),
        malformed(
            "UNSUBSCRIBE 5 without a Property Length",
            V5,
            "A2 02 000A",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "UNSUBSCRIBE whose filter is longer than the packet",
            V3,
            "A2 [ 000A 0009 61 ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "UNSUBSCRIBE with one byte after its end",
            V3,
            "A2 [ 000A 'a' 00 ]",
            "MQTT311 §2.2.3",
        ),
        malformed(
            "UNSUBSCRIBE from a filter with U+0000",
            V3,
            "A2 [ 000A 0001 00 ]",
            "MQTT311-1.5.3-2",
        ),
        malformed(
            "UNSUBSCRIBE from a filter that is not UTF-8",
            V5,
            "A2 [ 000A 00 0002 C0AF ]",
            "MQTT-1.5.4-1",
        ),
        malformed(
            "UNSUBSCRIBE with a Subscription Identifier",
            V5,
            "A2 [ 000A [ 0B 01 ] 'a' ]",
            "MQTT5 §2.2.2.2",
        ),
    ]
}

fn unsuback_cases() -> Vec<Case> {
    vec![
        both("UNSUBACK 3", V3, "B0 02 000A", unsuback(&[], &[])),
        both("UNSUBACK 5", V5, "B0 04 000A 00 00", unsuback(&[], &[0])),
        both(
            "UNSUBACK 5 with each of its Reason Codes",
            V5,
            "B0 [ 000A 00 00 11 80 83 87 8F 91 ]",
            unsuback(&[], &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
        ),
        both(
            "UNSUBACK with properties",
            V5,
            "B0 [ 000A [ 1F 'why' 26 'k' 'v' ] 11 ]",
            unsuback(
                &[
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                ],
                &[0x11],
            ),
        ),
        writes(
            "UNSUBACK 3 has no Reason Codes",
            V3,
            "B0 02 000A",
            unsuback(&[], &[0, 0x11]),
        ),
        malformed(
            "UNSUBACK 3 with a body",
            V3,
            "B0 03 000A 00",
            "MQTT311 §2.2.3",
        ),
        forbidden(
            "UNSUBACK 5 without a Reason Code",
            V5,
            "B0 03 000A 00",
            "MQTT5 §3.11.3",
        ),
        forbidden(
            "UNSUBACK 5 with a Reason Code of SUBACK",
            V5,
            "B0 04 000A 00 01",
            "MQTT-3.11.3-2",
        ),
        forbidden(
            "UNSUBACK with Packet Identifier 0",
            ALL,
            "B0 04 0000 00 00",
            "MQTT-2.2.1-3",
        ),
        malformed("UNSUBACK without a body", ALL, "B0 00", "MQTT5 §2.1.4"),
        malformed(
            "UNSUBACK 5 without a Property Length",
            V5,
            "B0 02 000A",
            "MQTT5 §2.1.4",
        ),
    ]
}

/// The views of a SUBSCRIBE and an UNSUBSCRIBE are read lazily and know their length.
#[test]
fn filters_are_views() {
    let bytes = bytes("82 [ 000A 00 'a' 00 '+/b' 2E ]");
    let Ok(Some(Packet::Subscribe(packet))) = read(V5[0], &bytes) else {
        panic!()
    };
    assert_eq!(
        (packet.filters.len(), packet.filters.is_empty()),
        (2, false)
    );
    let filters: Vec<_> = packet.filters.iter().collect();
    assert_eq!(filters, [("a", QOS_0), ("+/b", EVERYTHING)]);
    let bounds = bytes.as_ptr_range();
    assert!(
        filters
            .iter()
            .all(|(filter, _)| bounds.contains(&filter.as_ptr()))
    );

    let bytes = crate::notation::bytes("A2 [ 000A 00 'a' '+/b' ]");
    let Ok(Some(Packet::Unsubscribe(packet))) = read(V5[0], &bytes) else {
        panic!()
    };
    assert_eq!(
        (packet.filters.len(), packet.filters.is_empty()),
        (2, false)
    );
    assert_eq!(packet.filters.iter().collect::<Vec<_>>(), ["a", "+/b"]);
    assert_eq!(packet.properties, Properties::EMPTY);
}
