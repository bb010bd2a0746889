//! What a webhook says: Standard Webhooks 1.0.0, CloudEvents 1.0 over HTTP, W3C Trace Context.
//!
//! [`Secret`] and [`SigningKey`] sign an attempt, [`CloudEvent`] is a body and its headers,
//! [`Schedule`] says when the next attempt is due, [`TraceParent`] ties it to a trace. Connections,
//! queues, the clock and randomness are the edge's.

mod cloud_event;
mod retry_after;
mod schedule;
mod secret;
mod signing_key;
mod trace_parent;

pub use cloud_event::{
    BATCH_CONTENT_TYPE, CloudEvent, Extension, ExtensionError, STRUCTURED_CONTENT_TYPE, write_batch,
};
pub use retry_after::{RetryAfterError, parse_retry_after};
pub use schedule::{DELAY_MAX, RETRIES_MAX, Schedule, ScheduleError};
pub use secret::{KEY_BYTES_MAX, KEY_BYTES_MIN, Secret};
pub use signing_key::{PublicKey, SigningKey};
pub use trace_parent::{TraceParent, TraceParentError};

use std::fmt;

/// The header with the identifier of the message: the same over all attempts.
pub const HEADER_ID: &str = "webhook-id";
/// The header with the time of this attempt, in whole seconds since 1970.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures, separated by spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";

/// How many bytes a message identifier may have.
pub const MESSAGE_ID_MAX: usize = 64;

/// Whether a text can be a `webhook-id`: 1 to [`MESSAGE_ID_MAX`] bytes, each of `[A-Za-z0-9_-]`.
///
/// No dot above all: dots separate the identifier from the timestamp, and that from the body, in
/// the text that is signed, so one inside it would let the same signature fit another split.
pub fn is_message_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MESSAGE_ID_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

/// The value of [`HEADER_SIGNATURE`]: one signature for each secret, then one for each key.
///
/// While a secret is rotated the old and the new one sign, and a receiver accepts if either fits.
/// The public verifiers know `v1` alone, so there should always be a secret.
pub fn signature_header(
    secrets: &[Secret],
    keys: &[SigningKey],
    id: &str,
    timestamp_secs: u64,
    body: &[u8],
) -> String {
    let v1 = secrets
        .iter()
        .map(|secret| secret.sign_v1(id, timestamp_secs, body));
    let v1a = keys
        .iter()
        .map(|key| key.sign_v1a(id, timestamp_secs, body));
    let signatures: Vec<String> = v1.chain(v1a).collect();
    signatures.join(" ")
}

/// The signatures of one version in a `webhook-signature` header, in base64.
fn signatures_of<'a>(header: &'a str, version: &'a str) -> impl Iterator<Item = &'a str> {
    header
        .split(' ')
        .filter_map(|signature| signature.split_once(','))
        .filter(move |(name, _)| *name == version)
        .map(|(_, base64)| base64)
}

/// Why a text is not a secret or key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Does not begin with this prefix.
    Prefix(&'static str),
    /// What follows the prefix is not base64 of the standard alphabet with padding.
    Base64,
    /// The key has this many bytes, which is not as many as it must have.
    Length {
        /// How many it has.
        bytes: usize,
        /// What is allowed, for a person.
        allowed: &'static str,
    },
    /// The two halves of a private key do not belong together, or a public key is no point of the
    /// curve.
    NotAKey,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Prefix(prefix) => {
                write!(
                    f,
                    "it must begin with {prefix}, followed by the key in base64"
                )
            }
            KeyError::Base64 => f.write_str(
                "what follows the prefix must be base64 of the standard alphabet (+ and /, not - \
                 and _), with its padding",
            ),
            KeyError::Length { bytes, allowed } => {
                write!(f, "the key has {bytes} bytes, and must have {allowed}")
            }
            KeyError::NotAKey => f.write_str("the bytes are not an ed25519 key"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_messages() {
        let long = "x".repeat(MESSAGE_ID_MAX + 1);
        assert!(is_message_id("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert!(is_message_id(&long[1..]));
        for id in ["", "a.b", "a b", "a\n", "é", &long] {
            assert!(!is_message_id(id), "{id:?}");
        }
    }

    #[test]
    fn old_and_new_secrets_and_keys_sign_during_a_rotation() {
        let secrets = [Secret::from_random([1; 32]), Secret::from_random([2; 32])];
        let keys = [SigningKey::from_random([3; 32])];
        let header = signature_header(&secrets, &keys, "m", 1, b"body");
        assert_eq!(header.split(' ').count(), 3);
        for secret in &secrets {
            assert!(secret.verify_v1("m", 1, b"body", &header));
        }
        assert!(keys[0].public_key().verify_v1a("m", 1, b"body", &header));
        assert!(!Secret::from_random([9; 32]).verify_v1("m", 1, b"body", &header));
    }
}
