//! What must hold for any bytes whatsoever. The fuzz targets use this file, too.

use tidings_protocol::mqtt::{
    AckKind, FixedHeader, PACKET_SIZE_MAX, Packet, Properties, PropertiesBuilder, Property,
    Publish, Version, decode, fixed_header,
};

/// Frames and decodes all packets at the start of `bytes`, and checks each. Returns how many there
/// are before the first that is incomplete or refused.
pub fn check_stream(version: Version, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut packets = 0;
    while let Ok(Some(header)) = fixed_header(rest, PACKET_SIZE_MAX) {
        assert!((2..=5).contains(&header.header_len));
        // Fewer bytes never give another answer, only none.
        for end in 0..header.header_len {
            assert_eq!(fixed_header(&rest[..end], PACKET_SIZE_MAX), Ok(None));
        }
        assert_eq!(fixed_header(rest, header.total_len()), Ok(Some(header)));
        assert!(fixed_header(rest, header.total_len() - 1).is_err());
        let Some((packet, after)) = rest.split_at_checked(header.total_len()) else {
            break;
        };
        if !check_packet(version, header, packet) {
            break;
        }
        packets += 1;
        rest = after;
    }
    packets
}

/// Decodes one packet. If it is accepted, everything in it lies inside of it, can be read to its
/// end, and means the same after it was encoded and decoded again. Returns whether it is accepted.
pub fn check_packet(version: Version, header: FixedHeader, bytes: &[u8]) -> bool {
    let packet = match decode(version, header, bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(error.reason.is_error() && !error.clause.is_empty());
            return false;
        }
    };
    check_views(&packet, bytes);
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    // Only DISCONNECT is written in a longer form than it may have been read in.
    assert!(out.len() <= bytes.len() + 2, "{packet:?}");
    let again = fixed_header(&out, PACKET_SIZE_MAX).expect("what we write has a header");
    let again = decode(version, again.expect("what we write is complete"), &out);
    assert_eq!(again, Ok(packet));
    if let Packet::Publish(publish) = &packet {
        assert_eq!(out, bytes, "a PUBLISH has one form only");
        assert_eq!(publish.encoded_len(version), out.len());
        check_forwarding(version, publish);
    }
    // No version may make the encoder panic.
    for other in [Version::V31, Version::V311, Version::V5] {
        packet.encode(other, &mut out);
    }
    true
}

/// What a subscriber gets is a valid PUBLISH without what belongs to one connection.
fn check_forwarding(version: Version, publish: &Publish<'_>) {
    let mut scratch = PropertiesBuilder::new();
    let properties = publish.properties.forwardable(&mut scratch);
    assert!(properties.is_forwardable());
    let kept = publish.properties.iter().filter(|property| {
        !matches!(
            property,
            Property::TopicAlias(_)
                | Property::MessageExpiryInterval(_)
                | Property::SubscriptionIdentifier(_)
        )
    });
    assert!(properties.iter().eq(kept));
    assert_eq!(Properties::from_stored(properties.as_bytes()), properties);
    let topic = if publish.topic.is_empty() {
        "t"
    } else {
        publish.topic
    };
    let forwarded = Publish {
        topic,
        properties,
        ..*publish
    };
    let mut out = Vec::new();
    let at = forwarded.encode(version, &mut out);
    assert_eq!(
        at.map(|at| [out[at], out[at + 1]]),
        publish.packet_id.map(|packet_id| packet_id.to_be_bytes())
    );
    let header = fixed_header(&out, PACKET_SIZE_MAX)
        .expect("valid")
        .expect("complete");
    assert_eq!(
        decode(version, header, &out),
        Ok(Packet::Publish(forwarded))
    );
}

/// Every view points into `bytes`.
fn check_views(packet: &Packet<'_>, bytes: &[u8]) {
    let inside = |view: &[u8]| {
        let bounds = bytes.as_ptr_range();
        let view = view.as_ptr_range();
        // An empty view may point anywhere: there is nothing to read.
        assert!(
            view.is_empty() || (bounds.start <= view.start && view.end <= bounds.end),
            "{packet:?}"
        );
    };
    let text = |view: &str| {
        assert!(!view.contains('\0'));
        inside(view.as_bytes());
    };
    let topic = |view: &str| {
        assert!(!view.contains(['+', '#']));
        text(view);
    };
    let check_properties = |properties: &Properties<'_>| {
        inside(properties.as_bytes());
        let mut len = 0;
        let mut builder = PropertiesBuilder::new();
        for property in properties.iter() {
            builder.push(property);
            match property {
                Property::ResponseTopic(value) => topic(value),
                Property::ContentType(value)
                | Property::AssignedClientIdentifier(value)
                | Property::AuthenticationMethod(value)
                | Property::ResponseInformation(value)
                | Property::ServerReference(value)
                | Property::ReasonString(value) => text(value),
                Property::CorrelationData(value) | Property::AuthenticationData(value) => {
                    inside(value)
                }
                Property::UserProperty(name, value) => {
                    text(name);
                    text(value);
                }
                _ => {}
            }
            assert!(properties.contains(property.identifier()));
            len += 1;
        }
        // The iterator reaches the end of the section, and a property has one form only.
        assert_eq!(builder.as_properties(), *properties);
        assert!(properties.user_property_count() <= len);
    };
    match packet {
        Packet::Connect(packet) => {
            text(packet.client_id);
            packet.username.into_iter().for_each(text);
            packet.password.into_iter().for_each(inside);
            check_properties(&packet.properties);
            if let Some(will) = &packet.will {
                topic(will.topic);
                assert!(!will.topic.is_empty());
                inside(will.payload);
                check_properties(&will.properties);
            }
        }
        Packet::ConnAck(packet) => check_properties(&packet.properties),
        Packet::Publish(packet) => {
            topic(packet.topic);
            inside(packet.payload);
            check_properties(&packet.properties);
            assert!(!packet.topic.is_empty() || packet.properties.topic_alias().is_some());
            assert_eq!(packet.packet_id.is_some(), packet.qos.as_u8() > 0);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            check_properties(&ack.properties);
            // The four share one form, so each can be written as any other.
            for kind in [
                AckKind::PubAck,
                AckKind::PubRec,
                AckKind::PubRel,
                AckKind::PubComp,
            ] {
                ack.encode(kind, Version::V5, &mut Vec::new());
            }
        }
        Packet::Subscribe(packet) => {
            check_properties(&packet.properties);
            assert_eq!(packet.filters.iter().count(), packet.filters.len());
            assert!(!packet.filters.is_empty());
            packet.filters.iter().for_each(|(filter, _)| text(filter));
        }
        Packet::Unsubscribe(packet) => {
            check_properties(&packet.properties);
            assert_eq!(packet.filters.iter().count(), packet.filters.len());
            assert!(!packet.filters.is_empty());
            packet.filters.iter().for_each(text);
        }
        Packet::SubAck(packet) => {
            check_properties(&packet.properties);
            inside(packet.reasons);
        }
        Packet::UnsubAck(packet) => {
            check_properties(&packet.properties);
            inside(packet.reasons);
        }
        Packet::Disconnect(packet) => check_properties(&packet.properties),
        Packet::Auth(packet) => check_properties(&packet.properties),
        Packet::PingReq | Packet::PingResp => {}
    }
}
