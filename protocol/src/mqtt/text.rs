//! UTF-8 Encoded Strings (MQTT 5 §1.5.4) and Topic Names (MQTT 5 §4.7).

use super::ProtocolError;

const NOT_UTF8: ProtocolError = ProtocolError::malformed(
    "[MQTT-1.5.4-1] [MQTT311-1.5.3-1]",
    "a string is not well-formed UTF-8",
);
const NULL_CHARACTER: ProtocolError = ProtocolError::malformed(
    "[MQTT-1.5.4-2] [MQTT311-1.5.3-2]",
    "a string contains the null character U+0000",
);
pub(crate) const WILDCARD_IN_NAME: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT311-3.3.2-2] [MQTT311-4.7.1-1]",
    "a Topic Name contains a wildcard character, + or #",
);

/// `from_utf8` refuses surrogates and overlong forms; only U+0000 is left to look for.
#[inline]
pub(crate) fn string(bytes: &[u8]) -> Result<&str, ProtocolError> {
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
    if any(bytes, has_zero) {
        return Err(NULL_CHARACTER);
    }
    Ok(text)
}

/// A string without wildcards.
#[inline]
pub(crate) fn topic_name(bytes: &[u8]) -> Result<&str, ProtocolError> {
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
    if any(bytes, |word| has_zero(word) | has_wildcard(word)) {
        let null = bytes.contains(&0);
        return Err(if null {
            NULL_CHARACTER
        } else {
            WILDCARD_IN_NAME
        });
    }
    Ok(text)
}

/// Whether `found` says so of any eight bytes.
///
/// Topics are short, so this is not worth a loop over vectors, and yet too much for a loop over
/// bytes: a word at a time, the last word overlapping the one before it. Fewer than eight bytes are
/// filled up with one that no caller looks for.
#[inline]
fn any(bytes: &[u8], found: impl Fn(u64) -> bool) -> bool {
    const FILL: u8 = b' ';
    let Some(last) = bytes.last_chunk() else {
        let mut word = [FILL; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        return found(u64::from_ne_bytes(word));
    };
    let (words, _) = bytes.as_chunks();
    words
        .iter()
        .fold(found(u64::from_ne_bytes(*last)), |any, word| {
            any | found(u64::from_ne_bytes(*word))
        })
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether one of eight bytes is zero: only a zero byte borrows into its upper bit without having
/// had it set.
#[inline]
const fn has_zero(word: u64) -> bool {
    word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80) != 0
}

/// Whether one of eight bytes is `+` or `#`, which differ in one bit.
#[inline]
const fn has_wildcard(word: u64) -> bool {
    const BIT: u8 = b'+' ^ b'#';
    const { assert!(BIT.is_power_of_two()) }
    has_zero((word | repeat(BIT)) ^ repeat(b'+' | BIT))
}
