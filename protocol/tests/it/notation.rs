//! How the tests write packets down, and what they all need.

use tidings_protocol::mqtt::{
    PACKET_SIZE_MAX, Packet, PacketId, Properties, PropertiesBuilder, Property, ProtocolError,
    Version, decode, fixed_header,
};

pub const V3: &[Version] = &[Version::V31, Version::V311];
pub const V31: &[Version] = &[Version::V31];
pub const V311: &[Version] = &[Version::V311];
pub const V5: &[Version] = &[Version::V5];
pub const V311_V5: &[Version] = &[Version::V311, Version::V5];
pub const ALL: &[Version] = &[Version::V31, Version::V311, Version::V5];

/// Bytes from their notation:
///
/// - `0A3c`: hexadecimal bytes;
/// - `'text'`: a UTF-8 Encoded String, that is, its length in two bytes and the text;
/// - `~text~`: the text alone;
/// - `[ … ]`: what is inside, with its length in front as a Variable Byte Integer.
pub fn bytes(notation: &str) -> Vec<u8> {
    let mut open = vec![Vec::new()];
    let mut rest = notation.trim_start();
    while let Some(first) = rest.chars().next() {
        let top = open.last_mut().expect("brackets are balanced");
        match first {
            '\'' | '~' => {
                let (text, after) = rest[1..].split_once(first).expect("text is closed");
                if first == '\'' {
                    top.extend((text.len() as u16).to_be_bytes());
                }
                top.extend(text.as_bytes());
                rest = after;
            }
            '[' => {
                open.push(Vec::new());
                rest = &rest[1..];
            }
            ']' => {
                let inner = open.pop().expect("brackets are balanced");
                let outer = open.last_mut().expect("brackets are balanced");
                outer.extend(variable(inner.len()));
                outer.extend(inner);
                rest = &rest[1..];
            }
            _ => {
                top.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
        }
        rest = rest.trim_start();
    }
    assert_eq!(open.len(), 1, "brackets are balanced in {notation}");
    open.remove(0)
}

/// A Variable Byte Integer, written independently of the crate.
pub fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 128);
    }
}

/// Properties that live as long as the test process, so that tables can hold packets.
pub fn properties(list: &[Property<'_>]) -> Properties<'static> {
    let mut builder = PropertiesBuilder::new();
    for property in list {
        builder.push(*property);
    }
    Box::leak(Box::new(builder)).as_properties()
}

pub fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("tests use valid identifiers")
}

/// Frames and decodes one packet at the start of `bytes`; `None` if it is not complete.
pub fn read(version: Version, bytes: &[u8]) -> Result<Option<Packet<'_>>, ProtocolError> {
    let Some(header) = fixed_header(bytes, PACKET_SIZE_MAX)? else {
        return Ok(None);
    };
    let Some(packet) = bytes.get(..header.total_len()) else {
        return Ok(None);
    };
    decode(version, header, packet).map(Some)
}

pub fn write(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

#[test]
fn notation_means_what_it_says() {
    assert_eq!(
        bytes("10 [ 'ab' [ 0102 ] ~c~ ]"),
        b"\x10\x08\x00\x02ab\x02\x01\x02c"
    );
    assert_eq!(variable(0), [0]);
    assert_eq!(variable(128), [0x80, 0x01]);
    assert_eq!(variable(268_435_455), [0xFF, 0xFF, 0xFF, 0x7F]);
}
