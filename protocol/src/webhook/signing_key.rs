//! Asymmetric signatures, `v1a`: ed25519 (Standard Webhooks, "Signature scheme").
//!
//! A receiver that only has the public key can verify, but not sign.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer;

use super::{KeyError, signatures_of};

const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";

/// A private key: `whsk_` and, in base64, the 32 bytes of its seed, followed by the 32 bytes of its
/// public key or by nothing.
///
/// It is shown by [`reveal`](SigningKey::reveal) alone: neither `Debug` nor an error tells it.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

/// A public key: `whpk_` and 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl SigningKey {
    /// A key of a random seed that the caller took from the operating system.
    pub fn from_random(seed: [u8; 32]) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The private key as text: seed and public key.
    pub fn reveal(&self) -> String {
        format!("{PRIVATE}{}", BASE64.encode(self.0.to_keypair_bytes()))
    }

    /// The key that a receiver is given.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// `v1a,<base64>`: the signature over `{id}.{timestamp}.{body}`.
    pub fn sign_v1a(&self, id: &str, timestamp_secs: u64, body: &[u8]) -> String {
        let signature = self.0.sign(&signed_text(id, timestamp_secs, body));
        format!("v1a,{}", BASE64.encode(signature.to_bytes()))
    }
}

impl PublicKey {
    /// Whether one of the `v1a` signatures in a `webhook-signature` header fits; how old the
    /// timestamp may be is the caller's question.
    pub fn verify_v1a(&self, id: &str, timestamp_secs: u64, body: &[u8], header: &str) -> bool {
        let text = signed_text(id, timestamp_secs, body);
        signatures_of(header, "v1a")
            .filter_map(|base64| BASE64.decode(base64).ok())
            .filter_map(|bytes| ed25519_dalek::Signature::from_slice(&bytes).ok())
            .any(|signature| self.0.verify_strict(&text, &signature).is_ok())
    }
}

/// ed25519 reads what it signs twice, so it must be in one piece.
fn signed_text(id: &str, timestamp_secs: u64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{timestamp_secs}.").as_bytes(), body].concat()
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<SigningKey, KeyError> {
        let base64 = text
            .strip_prefix(PRIVATE)
            .ok_or(KeyError::Prefix(PRIVATE))?;
        let bytes = BASE64.decode(base64).map_err(|_| KeyError::Base64)?;
        if let Ok(seed) = bytes.as_slice().try_into() {
            return Ok(SigningKey(ed25519_dalek::SigningKey::from_bytes(seed)));
        }
        let pair = bytes.as_slice().try_into().map_err(|_| KeyError::Length {
            bytes: bytes.len(),
            allowed: "32 or 64",
        })?;
        ed25519_dalek::SigningKey::from_keypair_bytes(pair)
            .map(SigningKey)
            .map_err(|_| KeyError::NotAKey)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        let base64 = text.strip_prefix(PUBLIC).ok_or(KeyError::Prefix(PUBLIC))?;
        let bytes = BASE64.decode(base64).map_err(|_| KeyError::Base64)?;
        let key = bytes.as_slice().try_into().map_err(|_| KeyError::Length {
            bytes: bytes.len(),
            allowed: "32",
        })?;
        ed25519_dalek::VerifyingKey::from_bytes(key)
            .map(PublicKey)
            .map_err(|_| KeyError::NotAKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const SIGNATURE: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    /// Published by the authors of the specification.
    #[test]
    fn published_vector() {
        let (id, timestamp, body) = (
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#.as_slice(),
        );
        let key: SigningKey = KEY.parse().unwrap();
        assert_eq!(key.sign_v1a(id, timestamp, body), SIGNATURE);
        assert_eq!(key.reveal(), KEY);

        let public: PublicKey = key.public_key().to_string().parse().unwrap();
        assert_eq!(public, key.public_key());
        let header = format!("v1,AAAA v1a,AAAA {SIGNATURE}");
        assert!(public.verify_v1a(id, timestamp, body, &header));
        assert!(!public.verify_v1a(id, timestamp + 1, body, &header));
        assert!(!public.verify_v1a(id, timestamp, b"other", &header));
        let symmetric = SIGNATURE.replace("v1a,", "v1,");
        assert!(!public.verify_v1a(id, timestamp, body, &symmetric));
        assert!(!format!("{key:?}").contains("whsk_"));
    }

    #[test]
    fn a_seed_alone_is_a_key() {
        let key = SigningKey::from_random([5; 32]);
        let seed: SigningKey = format!("whsk_{}", BASE64.encode([5; 32])).parse().unwrap();
        assert_eq!(seed.reveal(), key.reveal());
    }

    #[test]
    fn bad_keys_get_their_reason() {
        let private = |bytes: &[u8]| {
            format!("whsk_{}", BASE64.encode(bytes))
                .parse::<SigningKey>()
                .err()
        };
        let length = |bytes, allowed| Some(KeyError::Length { bytes, allowed });
        assert_eq!(private(&[1; 33]), length(33, "32 or 64"));
        assert_eq!(private(&[]), length(0, "32 or 64"));
        assert_eq!(private(&[1; 64]), Some(KeyError::NotAKey));
        let prefix = KEY.replace("whsk_", "whsec_").parse::<SigningKey>().err();
        assert_eq!(prefix, Some(KeyError::Prefix("whsk_")));
        let url_alphabet = KEY.replace('/', "_").parse::<SigningKey>().err();
        assert_eq!(url_alphabet, Some(KeyError::Base64));

        let public = |bytes: &[u8]| {
            format!("whpk_{}", BASE64.encode(bytes))
                .parse::<PublicKey>()
                .err()
        };
        assert_eq!(public(&[1; 31]), length(31, "32"));
        assert_eq!(public(&[2; 32]), Some(KeyError::NotAKey));
        let private_for_public = KEY.parse::<PublicKey>().err();
        assert_eq!(private_for_public, Some(KeyError::Prefix("whpk_")));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), base64 in "[A-Za-z0-9+/]{42}(A=|[A-Za-z0-9+/]{44}==)", header in any::<String>()) {
            let _ = text.parse::<SigningKey>();
            let _ = text.parse::<PublicKey>();
            let _ = format!("whsk_{base64}").parse::<SigningKey>();
            let _ = format!("whpk_{base64}").parse::<PublicKey>();
            let public = SigningKey::from_random([1; 32]).public_key();
            prop_assert!(!public.verify_v1a("m", 1, b"", &header));
        }
    }
}
