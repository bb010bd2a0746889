//! All packets, to bytes and from bytes.

use super::bytes::Input;
use super::*;

#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    Connect(Connect),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

macro_rules! into_packet {
    ($($name:ident),*) => { $(impl From<$name> for Packet {
        fn from(packet: $name) -> Packet { Packet::$name(packet) }
    })* };
}
into_packet!(
    Connect,
    ConnAck,
    Publish,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth
);

impl Packet {
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let v5 = version == Version::V5;
        let mut out = Bytes::new();
        let first_byte = match self {
            Packet::Connect(connect) => return connect.bytes(),
            Packet::ConnAck(ack) => {
                out.u8(u8::from(ack.session_present)).u8(ack.reason.0);
                if v5 {
                    out.properties(&ack.properties);
                }
                0x20
            }
            Packet::Publish(publish) => {
                out.string(&publish.topic);
                if publish.qos > 0 {
                    out.u16(publish.packet_id);
                }
                if v5 {
                    out.properties(&publish.properties);
                }
                out.raw(&publish.payload);
                0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                out.u16(ack.packet_id);
                if v5 && (ack.reason != Reason::SUCCESS || !ack.properties.is_empty()) {
                    out.u8(ack.reason.0);
                    if !ack.properties.is_empty() {
                        out.properties(&ack.properties);
                    }
                }
                match self {
                    Packet::PubAck(_) => 0x40,
                    Packet::PubRec(_) => 0x50,
                    Packet::PubRel(_) => 0x62,
                    _ => 0x70,
                }
            }
            Packet::Subscribe(subscribe) => {
                out.u16(subscribe.packet_id);
                if v5 {
                    out.properties(&subscribe.properties);
                }
                for subscription in &subscribe.subscriptions {
                    out.string(&subscription.filter).u8(subscription.options);
                }
                0x82
            }
            Packet::Unsubscribe(unsubscribe) => {
                out.u16(unsubscribe.packet_id);
                if v5 {
                    out.properties(&unsubscribe.properties);
                }
                for filter in &unsubscribe.filters {
                    out.string(filter);
                }
                0xa2
            }
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons,
            })
            | Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons,
            }) => {
                out.u16(*packet_id);
                if v5 {
                    out.properties(properties);
                }
                reasons.iter().for_each(|reason| {
                    out.u8(reason.0);
                });
                if matches!(self, Packet::SubAck(_)) {
                    0x90
                } else {
                    0xb0
                }
            }
            Packet::PingReq => 0xc0,
            Packet::PingResp => 0xd0,
            Packet::Disconnect(Disconnect { reason, properties })
            | Packet::Auth(Auth { reason, properties }) => {
                if v5 && (*reason != Reason::SUCCESS || !properties.is_empty()) {
                    out.u8(reason.0).properties(properties);
                }
                if matches!(self, Packet::Disconnect(_)) {
                    0xe0
                } else {
                    0xf0
                }
            }
        };
        out.packet(first_byte)
    }

    /// The first packet of `buffer` and its length, or `None` if more bytes are needed.
    pub fn read(version: Version, buffer: &[u8]) -> Result<Option<(Packet, usize)>, String> {
        let Some((&first_byte, after)) = buffer.split_first() else {
            return Ok(None);
        };
        let mut header = Input { bytes: after };
        let length = match header.varint() {
            Ok(length) => length,
            Err(_) if after.len() < 4 && after.iter().all(|byte| byte & 0x80 != 0) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if header.bytes.len() < length {
            return Ok(None);
        }
        let total = buffer.len() - header.bytes.len() + length;
        let mut body = Input {
            bytes: &header.bytes[..length],
        };
        let packet = Packet::read_body(version, first_byte, &mut body)?;
        if !body.bytes.is_empty() {
            return Err(format!(
                "{} bytes after the end of {packet:?}",
                body.bytes.len()
            ));
        }
        Ok(Some((packet, total)))
    }

    fn read_body(version: Version, first_byte: u8, body: &mut Input<'_>) -> Result<Packet, String> {
        let v5 = version == Version::V5;
        let flags = first_byte & 0x0f;
        let expected_flags = match first_byte >> 4 {
            3 => flags,
            6 => 2,
            _ => 0,
        };
        if flags != expected_flags {
            return Err(format!("reserved flags of first byte {first_byte:#04x}"));
        }
        let properties = |body: &mut Input<'_>| {
            if v5 {
                body.properties()
            } else {
                Ok(Vec::new())
            }
        };
        Ok(match first_byte >> 4 {
            2 => {
                let flags = body.u8()?;
                if flags > 1 {
                    return Err(format!("acknowledge flags {flags:#04x}"));
                }
                let reason = Reason(body.u8()?);
                Packet::ConnAck(ConnAck {
                    session_present: flags == 1,
                    reason,
                    properties: properties(body)?,
                })
            }
            3 => {
                let qos = flags >> 1 & 3;
                let dup = flags & 8 != 0;
                if qos == 3 || (qos == 0 && dup) {
                    return Err(format!("flags of PUBLISH {first_byte:#04x}"));
                }
                let topic = body.string()?;
                let packet_id = if qos > 0 { body.u16()? } else { 0 };
                if qos > 0 && packet_id == 0 {
                    return Err("packet identifier 0".into());
                }
                let properties = properties(body)?;
                Packet::Publish(Publish {
                    dup,
                    qos,
                    retain: flags & 1 != 0,
                    topic,
                    packet_id,
                    properties,
                    payload: body.rest(),
                })
            }
            kind @ 4..=7 => {
                let mut ack = Ack::new(body.u16()?);
                if v5 && !body.bytes.is_empty() {
                    ack.reason = Reason(body.u8()?);
                    if !body.bytes.is_empty() {
                        ack.properties = body.properties()?;
                    }
                }
                match kind {
                    4 => Packet::PubAck(ack),
                    5 => Packet::PubRec(ack),
                    6 => Packet::PubRel(ack),
                    _ => Packet::PubComp(ack),
                }
            }
            kind @ (9 | 11) => {
                let packet_id = body.u16()?;
                let properties = properties(body)?;
                let reasons = body.rest().into_iter().map(Reason).collect();
                match kind {
                    9 => Packet::SubAck(SubAck {
                        packet_id,
                        properties,
                        reasons,
                    }),
                    _ => Packet::UnsubAck(UnsubAck {
                        packet_id,
                        properties,
                        reasons,
                    }),
                }
            }
            13 => Packet::PingResp,
            kind @ (14 | 15) if v5 => {
                let mut reason = Reason::SUCCESS;
                let mut properties = Vec::new();
                if !body.bytes.is_empty() {
                    reason = Reason(body.u8()?);
                    if !body.bytes.is_empty() {
                        properties = body.properties()?;
                    }
                }
                if kind == 14 {
                    Packet::Disconnect(Disconnect { reason, properties })
                } else {
                    Packet::Auth(Auth { reason, properties })
                }
            }
            _ => return Err(format!("first byte {first_byte:#04x} from a server")),
        })
    }
}
