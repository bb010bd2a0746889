//! Values to bytes: the data types of MQTT 5 §1.5, appended to a `Vec<u8>` that the caller reuses.

use super::fixed_header::REMAINING_LENGTH_MAX;

/// Appends a Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
#[inline]
pub(crate) fn variable(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= REMAINING_LENGTH_MAX);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`variable`] takes.
#[inline]
pub(crate) const fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[inline]
pub(crate) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends Binary Data. What exceeds 65,535 bytes cannot be said in MQTT and is cut off, so that
/// the packet stays well-formed; nothing that was decoded is ever that long.
#[inline]
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// Appends a UTF-8 Encoded String, cut at a character if it exceeds 65,535 bytes.
#[inline]
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    binary(out, bounded(text).as_bytes());
}

/// The part of a string that fits into a UTF-8 Encoded String: nearly always all of it.
#[inline]
pub(crate) fn bounded(text: &str) -> &str {
    let mut end = usize::from(u16::MAX);
    if text.len() <= end {
        return text;
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a packet whose body `write` appends: the length is put in afterwards.
///
/// A body that exceeds what a Remaining Length can say leaves `out` as it was.
pub(crate) fn packet(out: &mut Vec<u8>, first_byte: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[first_byte, 0]);
    let body = out.len();
    write(out);
    let len = out.len() - body;
    match len {
        0..0x80 => out[body - 1] = len as u8,
        0x80..=REMAINING_LENGTH_MAX => {
            let more = variable_len(len) - 1;
            out.resize(out.len() + more, 0);
            out.copy_within(body..body + len, body + more);
            let mut value = len;
            for byte in &mut out[body - 1..body + more] {
                *byte = value as u8 | 0x80;
                value >>= 7;
            }
            out[body + more - 1] &= 0x7F;
        }
        _ => out.truncate(start),
    }
}
