//! What is kept of a password for SCRAM-SHA-256 (RFC 5802 §3): enough to verify a proof, not
//! enough to make one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::crypto::{hmac, pbkdf2, sha256};

pub(super) const METHOD: &str = "SCRAM-SHA-256";

/// RFC 7677 asks for at least 4096 and names 15000 as what a machine of its day took a tenth
/// of a second for. It is the client that spends it, at each login.
pub const ITERATIONS_DEFAULT: u32 = 15_000;
pub const ITERATIONS_MIN: u32 = 4096;
const ITERATIONS_MAX: u32 = 10_000_000;
pub(super) const SALT_BYTES: usize = 16;

/// What a server keeps instead of the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Derives the verifier of a password. Takes as long as the iterations make it.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&hmac(&salted, &[b"Client Key"])),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("the SCRAM verifier {what}");
        let fields: Vec<&str> = text.split('$').collect();
        let [METHOD, iterations, salt, stored_key, server_key] = fields[..] else {
            return Err(bad(
                "is not of the form SCRAM-SHA-256$iterations$salt$StoredKey$ServerKey",
            ));
        };
        let iterations = iterations
            .parse()
            .ok()
            .filter(|iterations| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(iterations))
            .ok_or_else(|| {
                bad(&format!(
                    "has no iteration count from {ITERATIONS_MIN} to {ITERATIONS_MAX}"
                ))
            })?;
        let salt = BASE64.decode(salt).ok().filter(|salt| salt.len() >= 8);
        let key = |text| {
            BASE64
                .decode(text)
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        };
        Ok(Verifier {
            iterations,
            salt: salt.ok_or_else(|| bad("has no salt of at least eight bytes in base64"))?,
            stored_key: key(stored_key)
                .ok_or_else(|| bad("has no StoredKey of 32 bytes in base64"))?,
            server_key: key(server_key)
                .ok_or_else(|| bad("has no ServerKey of 32 bytes in base64"))?,
        })
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub fn stored_key(&self) -> &[u8; 32] {
        &self.stored_key
    }

    pub fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }

    /// For a user that does not exist, or has no verifier: to a client it looks like one, and
    /// each time like the same one, but no proof fits it. `like` lends its iteration count.
    pub fn pretend(key: &[u8; 32], user: &str, like: Option<&Verifier>) -> Self {
        let salt = hmac(key, &[b"scram salt", user.as_bytes()]);
        Verifier {
            iterations: like.map_or(ITERATIONS_DEFAULT, |verifier| verifier.iterations),
            salt: salt[..like
                .map_or(SALT_BYTES, |verifier| verifier.salt.len())
                .min(salt.len())]
                .to_vec(),
            stored_key: hmac(key, &[b"scram stored key", user.as_bytes()]),
            server_key: hmac(key, &[b"scram server key", user.as_bytes()]),
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "{METHOD}${}${salt}${stored}${server}", self.iterations)
    }
}

/// `SaltedPassword` of RFC 5802.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    // What SASLprep does not take is used as it is, as other servers do.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    pbkdf2(prepared.as_bytes(), salt, iterations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677 §3 is tested where exchanges are; this is the same verifier as
    /// PostgreSQL keeps it.
    const PENCIL: &str = "SCRAM-SHA-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_derived_shown_and_read() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt, 4096);
        assert_eq!(verifier.to_string(), PENCIL);
        assert!(Verifier::parse(PENCIL) == Ok(verifier));
    }

    #[test]
    fn a_damaged_verifier_is_none() {
        for (good, bad) in [
            ("SCRAM-SHA-256", "SCRAM-SHA-1"),
            ("$4096", "$4095"),
            ("$4096", "$-1"),
            ("$4096", "$99999999999"),
            ("$4096", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaJ0S"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaJ0SNY7soEsUEjb6gQ"),
            ("WG5d8", "WG5d"),
            ("wfPLw", "!fPLw"),
            ("l2dU=", "l2dU=$x"),
            ("l2dU=", ""),
        ] {
            let damaged = PENCIL.replacen(good, bad, 1);
            assert!(Verifier::parse(&damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn passwords_are_prepared() {
        let key = |password| Verifier::derive(password, b"saltsalt", 4096).stored_key;
        // RFC 4013 §3: a soft hyphen maps to nothing, the roman numeral nine to two letters.
        assert!(key("I\u{AD}X") == key("IX") && key("\u{2168}") == key("IX"));
        // Forbidden by SASLprep (RFC 4013 §3), taken as it is.
        assert!(key("\u{7}") != key(""));
    }

    #[test]
    fn a_pretended_verifier_is_stable_and_no_other_users() {
        let pretend = |key, user| Verifier::pretend(key, user, None);
        assert!(pretend(&[1; 32], "bob") == pretend(&[1; 32], "bob"));
        assert!(pretend(&[1; 32], "bob").salt != pretend(&[1; 32], "eve").salt);
        assert!(pretend(&[1; 32], "bob").salt != pretend(&[2; 32], "bob").salt);
        assert_eq!(pretend(&[1; 32], "bob").salt.len(), SALT_BYTES);
    }
}
