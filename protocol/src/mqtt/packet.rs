//! Any packet: from the fixed header to the decoder of its type, and back.

use super::fixed_header::{self as header, check_version};
use super::reader::{Reader, TRUNCATED};
use super::{
    Ack, AckKind, Auth, ConnAck, Connect, Disconnect, FixedHeader, ProtocolError, Publish, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version,
};

/// An MQTT Control Packet that borrows from the bytes it was decoded from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs)] // The names are the specification's.
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Decodes one packet.
///
/// `packet` is exactly the [`total_len`](FixedHeader::total_len) bytes that `header` speaks of,
/// the fixed header among them. `version` is what the CONNECT of the connection said; for a
/// CONNECT itself it is ignored, since that packet names its own.
#[inline]
pub fn decode(
    version: Version,
    header: FixedHeader,
    packet: &[u8],
) -> Result<Packet<'_>, ProtocolError> {
    let body = packet
        .get(header.header_len..header.total_len())
        .ok_or(TRUNCATED)?;
    let first_byte = header.first_byte;
    // What comes once for each message is kept apart from what comes once in a while. For the
    // latter the flags are judged again, since only now the version is known.
    let ack = |kind| Ack::decode(kind, version, body);
    match first_byte {
        0x30..=0x3F => Ok(Packet::Publish(Publish::decode(version, first_byte, body)?)),
        0x40 => Ok(Packet::PubAck(ack(AckKind::PubAck)?)),
        0x50 => Ok(Packet::PubRec(ack(AckKind::PubRec)?)),
        0x62 => Ok(Packet::PubRel(ack(AckKind::PubRel)?)),
        0x70 => Ok(Packet::PubComp(ack(AckKind::PubComp)?)),
        _ => decode_other(version, first_byte, body),
    }
}

fn decode_other(
    version: Version,
    first_byte: u8,
    body: &[u8],
) -> Result<Packet<'_>, ProtocolError> {
    check_version(version, first_byte)?;
    let packet_type = first_byte >> 4;
    Ok(match packet_type {
        header::CONNECT => Packet::Connect(Connect::decode(body)?),
        header::CONNACK => Packet::ConnAck(ConnAck::decode(version, body)?),
        // With other flags than these, only MQTT 3.1 comes this far.
        header::PUBREL => Packet::PubRel(Ack::decode(AckKind::PubRel, version, body)?),
        header::SUBSCRIBE => Packet::Subscribe(Subscribe::decode(version, body)?),
        header::SUBACK => Packet::SubAck(SubAck::decode(version, body)?),
        header::UNSUBSCRIBE => Packet::Unsubscribe(Unsubscribe::decode(version, body)?),
        header::UNSUBACK => Packet::UnsubAck(UnsubAck::decode(version, body)?),
        header::DISCONNECT => Packet::Disconnect(Disconnect::decode(version, body)?),
        header::AUTH => Packet::Auth(Auth::decode(body)?),
        _ => {
            Reader::new(body).finish()?;
            match packet_type {
                header::PINGREQ => Packet::PingReq,
                _ => Packet::PingResp,
            }
        }
    })
}

impl Packet<'_> {
    /// Appends the packet. A CONNECT is written in its own version. What `version` has no words
    /// for is left out: properties and Reason Codes in MQTT 3, AUTH altogether.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(packet) => packet.encode(out),
            Packet::ConnAck(packet) => packet.encode(version, out),
            Packet::Publish(packet) => {
                packet.encode(version, out);
            }
            Packet::PubAck(packet) => packet.encode(AckKind::PubAck, version, out),
            Packet::PubRec(packet) => packet.encode(AckKind::PubRec, version, out),
            Packet::PubRel(packet) => packet.encode(AckKind::PubRel, version, out),
            Packet::PubComp(packet) => packet.encode(AckKind::PubComp, version, out),
            Packet::Subscribe(packet) => packet.encode(version, out),
            Packet::SubAck(packet) => packet.encode(version, out),
            Packet::Unsubscribe(packet) => packet.encode(version, out),
            Packet::UnsubAck(packet) => packet.encode(version, out),
            Packet::PingReq => out.extend_from_slice(&[header::PINGREQ << 4, 0]),
            Packet::PingResp => out.extend_from_slice(&[header::PINGRESP << 4, 0]),
            Packet::Disconnect(packet) => packet.encode(version, out),
            Packet::Auth(packet) => packet.encode(version, out),
        }
    }

    /// The name of the packet type as the specification writes it.
    pub const fn name(&self) -> &'static str {
        match self {
            Packet::Connect(_) => "CONNECT",
            Packet::ConnAck(_) => "CONNACK",
            Packet::Publish(_) => "PUBLISH",
            Packet::PubAck(_) => "PUBACK",
            Packet::PubRec(_) => "PUBREC",
            Packet::PubRel(_) => "PUBREL",
            Packet::PubComp(_) => "PUBCOMP",
            Packet::Subscribe(_) => "SUBSCRIBE",
            Packet::SubAck(_) => "SUBACK",
            Packet::Unsubscribe(_) => "UNSUBSCRIBE",
            Packet::UnsubAck(_) => "UNSUBACK",
            Packet::PingReq => "PINGREQ",
            Packet::PingResp => "PINGRESP",
            Packet::Disconnect(_) => "DISCONNECT",
            Packet::Auth(_) => "AUTH",
        }
    }
}
