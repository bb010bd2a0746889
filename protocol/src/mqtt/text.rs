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
    if bytes.iter().fold(false, |found, &byte| found | (byte == 0)) {
        return Err(NULL_CHARACTER);
    }
    Ok(text)
}

/// A string without wildcards. The scan has no early exit, so that it can be vectorised.
#[inline]
pub(crate) fn topic_name(bytes: &[u8]) -> Result<&str, ProtocolError> {
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
    let forbidden = |byte: u8| (byte == 0) | (byte == b'+') | (byte == b'#');
    if bytes
        .iter()
        .fold(false, |found, &byte| found | forbidden(byte))
    {
        return Err(if bytes.contains(&0) {
            NULL_CHARACTER
        } else {
            WILDCARD_IN_NAME
        });
    }
    Ok(text)
}
