//! JSON strings (RFC 8259 §7) and base64 (RFC 4648 §4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Appends a text as a JSON string, quotation marks included.
///
/// Only what must be escaped is: `"`, `\` and the control characters below U+0020. What lies
/// between two of them is copied in one go.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = find_escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends bytes as a JSON string in base64: the standard alphabet, with padding.
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    // A slice is at most isize::MAX bytes long; four thirds of that fit into a usize.
    let len = bytes.len().div_ceil(3) * 4;
    out.resize(start + len, 0);
    let written = BASE64.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(len));
    out.push(b'"');
}

/// Appends `"name":` with a comma in front, unless it is the first member of its object. The name
/// must need no escaping.
pub(crate) fn write_member(name: &str, out: &mut Vec<u8>) {
    if out.last().is_some_and(|byte| *byte != b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a whole number.
pub(crate) fn write_integer(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cold]
fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Where the first byte is that must be escaped; looks at eight bytes at a time.
#[inline]
fn find_escaped(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = escaped_bits(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = tail
        .iter()
        .position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

/// The upper bit of each of eight bytes that must be escaped. Above the first such byte, seen from
/// the lowest, bits may be wrong, because a subtraction borrows; the first is always right.
#[inline]
const fn escaped_bits(word: u64) -> u64 {
    const fn repeat(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let control = word.wrapping_sub(repeat(0x20));
    let quote = (word ^ repeat(b'"')).wrapping_sub(repeat(1));
    let backslash = (word ^ repeat(b'\\')).wrapping_sub(repeat(1));
    // Each constant is below 0x80, so a byte whose upper bit was set is none of these.
    (control | quote | backslash) & !word & repeat(0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> String {
        let mut out = Vec::new();
        write_string(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_ascii_character_at_every_place() {
        for byte in 0..0x80_u8 {
            for before in 0..17 {
                let text = format!("{}{}é", "x".repeat(before), char::from(byte));
                let json = string(&text);
                assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
                assert!(json.bytes().all(|byte| byte >= 0x20));
                assert_eq!(json, serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn integers() {
        for value in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            write_integer(value, &mut out);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    proptest! {
        #[test]
        fn strings_are_as_another_library_writes_them(text in any::<String>(), dense in "[a\"\\\\\n\u{1}\u{7f}\u{2028}é]{0,40}") {
            for text in [text, dense] {
                prop_assert_eq!(string(&text), serde_json::to_string(&text).unwrap());
            }
        }

        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            write_base64(&bytes, &mut out);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(BASE64.decode(text).unwrap(), bytes);
        }
    }
}
