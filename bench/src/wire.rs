//! The few MQTT packets that a load generator sends and reads, written by hand.
//!
//! This is not the codec of the broker on purpose: a generator that shared the broker's codec would
//! share its mistakes, and would get slower or faster together with what it measures. Nothing is
//! validated beyond what is needed to find the next packet; a broker that sends rubbish is reported
//! as a protocol failure of that connection.

use anyhow::{Result, bail, ensure};

/// The protocol level on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        match text {
            "3.1.1" | "4" => Ok(Version::V311),
            "5" | "5.0" => Ok(Version::V5),
            _ => Err("expected 3.1.1 or 5".to_owned()),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        })
    }
}

pub const CONNECT: u8 = 1;
pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBSCRIBE: u8 = 8;
pub const SUBACK: u8 = 9;
pub const DISCONNECT: u8 = 14;

pub const DISCONNECT_PACKET: [u8; 2] = [0xE0, 0];

/// Seconds. Long enough that no run needs a PINGREQ, and not 0, which some brokers refuse.
const KEEP_ALIVE_SECS: u16 = 3600;

/// Seconds that a version 5 session outlives its connection, where a durable one is asked for.
const SESSION_EXPIRY_SECS: u32 = 86_400;

fn put_len(out: &mut Vec<u8>, mut len: usize) {
    loop {
        let byte = (len & 0x7F) as u8;
        len >>= 7;
        if len == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_packet(out: &mut Vec<u8>, first_byte: u8, body: &[u8]) {
    out.push(first_byte);
    put_len(out, body.len());
    out.extend_from_slice(body);
}

pub fn connect(out: &mut Vec<u8>, version: Version, client_id: &str, durable: bool) {
    let mut body = Vec::with_capacity(32 + client_id.len());
    put_str(&mut body, "MQTT");
    body.push(match version {
        Version::V311 => 4,
        Version::V5 => 5,
    });
    body.push(if durable { 0x00 } else { 0x02 });
    body.extend_from_slice(&KEEP_ALIVE_SECS.to_be_bytes());
    if version == Version::V5 {
        if durable {
            body.push(5);
            body.push(0x11);
            body.extend_from_slice(&SESSION_EXPIRY_SECS.to_be_bytes());
        } else {
            body.push(0);
        }
    }
    put_str(&mut body, client_id);
    put_packet(out, 0x10, &body);
}

pub fn subscribe<'a>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: impl IntoIterator<Item = &'a str>,
    qos: u8,
) {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(&packet_id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        put_str(&mut body, filter);
        body.push(qos);
    }
    put_packet(out, 0x82, &body);
}

/// A PUBLISH whose packet identifier and payload can be patched in a copy of its bytes.
#[derive(Clone, Debug)]
pub struct Template {
    pub bytes: Vec<u8>,
    /// Where the packet identifier is; 0 for QoS 0.
    pub packet_id_at: usize,
    pub payload_at: usize,
    /// The payload has to be text.
    pub text: bool,
}

pub fn publish(version: Version, qos: u8, retain: bool, topic: &str, payload: &[u8]) -> Template {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 8);
    put_str(&mut body, topic);
    let mut packet_id_at = body.len();
    if qos > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    if version == Version::V5 {
        body.push(0);
    }
    let mut payload_at = body.len();
    body.extend_from_slice(payload);
    let mut bytes = Vec::with_capacity(body.len() + 5);
    put_packet(&mut bytes, 0x30 | (qos << 1) | u8::from(retain), &body);
    let header = bytes.len() - body.len();
    packet_id_at = if qos > 0 { packet_id_at + header } else { 0 };
    payload_at += header;
    Template {
        bytes,
        packet_id_at,
        payload_at,
        text: false,
    }
}

/// `packet_type` with its flags, two bytes long, with a packet identifier and nothing else: success
/// in both versions.
pub fn ack(out: &mut Vec<u8>, first_byte: u8, packet_id: [u8; 2]) {
    out.extend_from_slice(&[first_byte, 2, packet_id[0], packet_id[1]]);
}

/// One whole packet at the beginning of `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub first_byte: u8,
    pub body: &'a [u8],
    pub total_len: usize,
}

impl Raw<'_> {
    pub fn kind(&self) -> u8 {
        self.first_byte >> 4
    }
}

/// The length of a variable byte integer and its value; `None` when bytes are missing.
#[inline]
pub fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, value)));
        }
    }
    ensure!(bytes.len() < 4, "a length of more than four bytes");
    Ok(None)
}

#[inline]
pub fn next_packet(bytes: &[u8]) -> Result<Option<Raw<'_>>> {
    let Some((&first_byte, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((len_bytes, len)) = variable(rest)? else {
        return Ok(None);
    };
    let Some(body) = rest.get(len_bytes..len_bytes + len) else {
        return Ok(None);
    };
    Ok(Some(Raw {
        first_byte,
        body,
        total_len: 1 + len_bytes + len,
    }))
}

/// What a receiver needs of a PUBLISH.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub qos: u8,
    pub packet_id: [u8; 2],
    pub payload: &'a [u8],
}

#[inline]
pub fn received<'a>(version: Version, packet: &Raw<'a>) -> Result<Received<'a>> {
    let short = || anyhow::anyhow!("a PUBLISH that is too short");
    let body = packet.body;
    let qos = (packet.first_byte >> 1) & 3;
    let len = body.first_chunk::<2>().ok_or_else(short)?;
    let topic_end = 2 + usize::from(u16::from_be_bytes(*len));
    let mut rest = body.get(topic_end..).ok_or_else(short)?;
    let mut packet_id = [0; 2];
    if qos > 0 {
        let (id, after) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        packet_id = *id;
        rest = after;
    }
    if version == Version::V5 {
        let (len_bytes, len) = variable(rest)?.ok_or_else(short)?;
        rest = rest.get(len_bytes + len..).ok_or_else(short)?;
    }
    Ok(Received {
        qos,
        packet_id,
        payload: rest,
    })
}

/// What a client must know of a CONNACK.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connected {
    pub session_present: bool,
    /// PUBLISH packets of QoS 1 and 2 that the broker takes before it has answered the first.
    pub receive_maximum: u16,
}

pub fn connack(version: Version, packet: &Raw<'_>) -> Result<Connected> {
    ensure!(
        packet.kind() == CONNACK && packet.body.len() >= 2,
        "expected a CONNACK, got packet type {}",
        packet.kind()
    );
    let code = packet.body[1];
    if code != 0 {
        bail!("connection refused with code {code} (0x{code:02X})");
    }
    let mut connected = Connected {
        session_present: packet.body[0] & 1 != 0,
        receive_maximum: u16::MAX,
    };
    if version == Version::V5
        && let Some((len_bytes, len)) = variable(&packet.body[2..])?
    {
        let properties = packet.body.get(2 + len_bytes..2 + len_bytes + len);
        connected.receive_maximum = properties.and_then(receive_maximum).unwrap_or(u16::MAX);
    }
    Ok(connected)
}

/// Walks the properties that a CONNACK can have up to Receive Maximum.
fn receive_maximum(mut properties: &[u8]) -> Option<u16> {
    while let Some((&id, rest)) = properties.split_first() {
        let len = match id {
            0x21 => return Some(u16::from_be_bytes(*rest.first_chunk::<2>()?)),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => {
                2 + usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?))
            }
            0x26 => {
                let name = 2 + usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?));
                let value = rest.get(name..)?.first_chunk::<2>()?;
                name + 2 + usize::from(u16::from_be_bytes(*value))
            }
            _ => return None,
        };
        properties = rest.get(len..)?;
    }
    None
}

/// Refuses a SUBACK in which a filter failed.
pub fn suback(version: Version, packet: &Raw<'_>) -> Result<()> {
    ensure!(
        packet.kind() == SUBACK && packet.body.len() >= 3,
        "expected a SUBACK, got packet type {}",
        packet.kind()
    );
    let mut codes = &packet.body[2..];
    if version == Version::V5 {
        let (len_bytes, len) = variable(codes)?.unwrap_or((0, 0));
        codes = codes.get(len_bytes + len..).unwrap_or_default();
    }
    if let Some(code) = codes.iter().find(|code| **code >= 0x80) {
        bail!("subscription refused with code 0x{code:02X}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_can_be_read_back() {
        for version in [Version::V311, Version::V5] {
            for qos in 0..3 {
                let payload = vec![7; 200];
                let mut template = publish(version, qos, false, "a/b", &payload);
                if qos > 0 {
                    let at = template.packet_id_at;
                    template.bytes[at..at + 2].copy_from_slice(&[0x12, 0x34]);
                }
                template.bytes[template.payload_at] = 9;
                let packet = next_packet(&template.bytes).unwrap().unwrap();
                assert_eq!(packet.kind(), PUBLISH);
                assert_eq!(packet.total_len, template.bytes.len());
                let got = received(version, &packet).unwrap();
                assert_eq!(got.qos, qos);
                assert_eq!(got.payload[0], 9);
                assert_eq!(got.payload.len(), 200);
                assert_eq!(got.packet_id, if qos > 0 { [0x12, 0x34] } else { [0, 0] });
                let cut = &template.bytes[..template.bytes.len() - 1];
                assert!(next_packet(cut).unwrap().is_none());
            }
        }
    }

    #[test]
    fn the_receive_maximum_is_found_behind_other_properties() {
        let properties = [
            0x24, 1, 0x12, 0, 2, b'i', b'd', 0x26, 0, 1, b'a', 0, 1, b'b', 0x21, 0, 20,
        ];
        let mut body = vec![0, 0, properties.len() as u8];
        body.extend_from_slice(&properties);
        let mut bytes = Vec::new();
        put_packet(&mut bytes, 0x20, &body);
        let packet = next_packet(&bytes).unwrap().unwrap();
        assert_eq!(connack(Version::V5, &packet).unwrap().receive_maximum, 20);
    }

    #[test]
    fn a_refused_filter_is_an_error() {
        let bytes = [0x90, 4, 0, 1, 0, 0x80];
        let packet = next_packet(&bytes).unwrap().unwrap();
        assert!(suback(Version::V311, &packet).is_err());
    }
}
