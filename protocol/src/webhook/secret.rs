//! Symmetric signatures, `v1` (Standard Webhooks, "Signature scheme").

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{KeyError, signatures_of};

const PREFIX: &str = "whsec_";

/// How many bytes the key of a secret must have at least.
pub const KEY_BYTES_MIN: usize = 24;
/// How many bytes the key of a secret may have at most.
pub const KEY_BYTES_MAX: usize = 64;

/// A secret that signs and verifies `v1` signatures: `whsec_` and 24 to 64 bytes in base64.
///
/// It is shown by [`reveal`](Secret::reveal) alone: neither `Debug` nor an error tells it.
#[derive(Clone)]
pub struct Secret {
    key: Vec<u8>,
    /// Keyed once, because deriving the inner and outer state costs two of SHA-256's rounds.
    mac: Hmac<Sha256>,
}

impl Secret {
    /// A secret of random bytes that the caller took from the operating system.
    pub fn from_random(random: [u8; 32]) -> Secret {
        Secret::from_key(random.to_vec())
    }

    fn from_key(key: Vec<u8>) -> Secret {
        let mac = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Secret { key, mac }
    }

    /// The text that a receiver is given.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.key))
    }

    /// `v1,<base64>`: the signature over `{id}.{timestamp}.{body}`.
    ///
    /// The id should be one that [`is_message_id`](super::is_message_id) accepts; the timestamp is
    /// that of this attempt.
    pub fn sign_v1(&self, id: &str, timestamp_secs: u64, body: &[u8]) -> String {
        let signature = self.mac_of(id, timestamp_secs, body).finalize();
        format!("v1,{}", BASE64.encode(signature.into_bytes()))
    }

    /// Whether one of the `v1` signatures in a `webhook-signature` header fits. Each is compared in
    /// constant time; how old the timestamp may be is the caller's question.
    pub fn verify_v1(&self, id: &str, timestamp_secs: u64, body: &[u8], header: &str) -> bool {
        let mac = self.mac_of(id, timestamp_secs, body);
        signatures_of(header, "v1")
            .filter_map(|base64| BASE64.decode(base64).ok())
            .any(|signature| mac.clone().verify_slice(&signature).is_ok())
    }

    fn mac_of(&self, id: &str, timestamp_secs: u64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp_secs}.").as_bytes());
        mac.update(body);
        mac
    }
}

impl FromStr for Secret {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Secret, KeyError> {
        let base64 = text.strip_prefix(PREFIX).ok_or(KeyError::Prefix(PREFIX))?;
        let key = BASE64.decode(base64).map_err(|_| KeyError::Base64)?;
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(KeyError::Length {
                bytes: key.len(),
                allowed: "24 to 64",
            });
        }
        Ok(Secret::from_key(key))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Secret, id, timestamp, body, signature: published by the authors of the specification.
    const VECTORS: [(&str, &str, u64, &[u8], &str); 2] = [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            br#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ];

    #[test]
    fn published_vectors() {
        for (secret, id, timestamp, body, signature) in VECTORS {
            let parsed: Secret = secret.parse().unwrap();
            assert_eq!(parsed.sign_v1(id, timestamp, body), signature);
            assert_eq!(parsed.reveal(), secret);
            let header = format!("v2,x v1,AAAA v1, {signature}");
            assert!(parsed.verify_v1(id, timestamp, body, &header));
            assert!(!parsed.verify_v1(id, timestamp + 1, body, &header));
            assert!(!parsed.verify_v1("msg_other", timestamp, body, &header));
            assert!(!parsed.verify_v1(id, timestamp, b"other", &header));
            let asymmetric = signature.replace("v1,", "v1a,");
            assert!(!parsed.verify_v1(id, timestamp, body, &asymmetric));
        }
    }

    #[test]
    fn bad_secrets_get_their_reason_and_are_not_told() {
        let of = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![7; bytes]));
        let length = |bytes| KeyError::Length {
            bytes,
            allowed: "24 to 64",
        };
        for (text, error) in [
            (String::new(), KeyError::Prefix("whsec_")),
            ("MfKQ9r8GKYqr".to_owned(), KeyError::Prefix("whsec_")),
            ("whsec_".to_owned(), length(0)),
            (of(23), length(23)),
            (of(65), length(65)),
            (of(25).trim_end_matches('=').to_owned(), KeyError::Base64),
            (of(24).replace('B', "-"), KeyError::Base64),
            (format!("{} ", of(24)), KeyError::Base64),
        ] {
            assert_eq!(text.parse::<Secret>().err(), Some(error), "{text}");
        }
        assert!(of(24).parse::<Secret>().is_ok());
        assert!(of(64).parse::<Secret>().is_ok());
        assert_eq!(format!("{:?}", Secret::from_random([7; 32])), "Secret(…)");
    }

    proptest! {
        /// The verifiers that receivers use are of the same authors as this library.
        #[test]
        fn the_public_library_signs_alike(
            key in vec(any::<u8>(), KEY_BYTES_MIN..=KEY_BYTES_MAX),
            id in "[A-Za-z0-9_-]{1,64}",
            timestamp in 0..=4_000_000_000_u64,
            body in any::<String>(),
        ) {
            let secret = Secret::from_key(key);
            let other = standardwebhooks::Webhook::new(&secret.reveal()).unwrap();
            prop_assert_eq!(
                secret.sign_v1(&id, timestamp, body.as_bytes()),
                other.sign(&id, timestamp as i64, body.as_bytes()).unwrap()
            );
        }

        #[test]
        fn no_text_panics(text in any::<String>(), base64 in "[A-Za-z0-9+/=]{0,100}", header in any::<String>()) {
            let _ = text.parse::<Secret>();
            let _ = format!("whsec_{base64}").parse::<Secret>();
            prop_assert!(!Secret::from_random([1; 32]).verify_v1("m", 1, b"", &header));
        }
    }
}
