//! Bearer tokens: what somebody shows who has proven before who they are.
//!
//! A token is a JWT (RFC 7519) in the compact form of a JWS (RFC 7515 §3.1), signed with
//! HMAC-SHA-256 and a key that only the broker has. Of the many things that a JWT can be, one is
//! issued and one is taken: `HS256`, with the claims below and no others. There is no choice of
//! algorithm or key by the header, which is where forged tokens come from (RFC 8725 §2.1); and a
//! claim that a later version adds to narrow a token is not ignored by this one.
//!
//! A token says who its user is, not what the user may do: rights are those of the moment in which
//! it is shown. It ends at its time, with its user, and with the user's password, of which it has
//! a fingerprint.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::crypto::{constant_time_eq, hmac, random};
use super::users::User;
use crate::config::show_duration;

/// The longest token that is looked at. User names have up to 64 KiB, so that there are users
/// whose tokens would be longer; they get none.
pub const TOKEN_BYTES_MAX: usize = 4096;

const ISSUER: &str = "tidings";
const ALGORITHM: &str = "HS256";

/// Why a token is not good. The text is for the one who showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of the kind that is issued here, whoever signed it.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Somebody else made it, it was altered, or the key has been replaced since.
    #[error("the token was not signed by this broker, or with a key that it no longer has")]
    BadSignature,
    /// Its `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Its `exp` has come.
    #[error("the token has expired; get another one")]
    Expired,
    /// Its user is not in the password file, or there is none.
    #[error("the token's user does not exist any more")]
    UnknownUser,
    /// Its user has another password than when it was issued.
    #[error("the token's user has changed the password since; get another one")]
    CredentialsChanged,
}

/// Why a token is not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// There is no password file.
    #[error(
        "there are no users, and a token is for a user: name them with access.password_file \
         (`tidings passwd` writes one)"
    )]
    NoUsers,
    /// The password file, as it was last read, has no such user.
    #[error(
        "there is no user {0:?} in access.password_file; one that was added since the broker read \
         it is known to it after SIGHUP"
    )]
    UnknownUser(String),
    /// Shorter than a second, in which tokens count, or longer than `access.token_expires_max`.
    #[error(
        "a token is good for one second at the least, and for {} at the most \
         (access.token_expires_max)",
        show_duration(*max)
    )]
    BadLifetime {
        /// `access.token_expires_max`.
        max: Duration,
    },
    /// The token would have more than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the user's name is too long for a token, which has at most {TOKEN_BYTES_MAX} bytes")]
    NameTooLong,
}

/// The key that tokens are signed with. Whoever has it can be any user.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// A new one, from the system's source of randomness.
    pub fn generate() -> SigningKey {
        let mut key = [0; 32];
        random(&mut key);
        SigningKey(key)
    }

    /// One that was kept; `None` if that is not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<SigningKey> {
        bytes.try_into().ok().map(SigningKey)
    }

    /// For keeping it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Changes whenever [`User::same_credentials`] would say so. Keyed, because a token can be read
    /// by whoever has it, and nobody shall try passwords on what it says.
    fn fingerprint(&self, user: &User) -> String {
        let (hash, scram) = user.credentials();
        // The hash has a form of its own, without a NUL.
        let parts = [b"credentials\0", hash.as_bytes(), b"\0", scram.as_bytes()];
        BASE64.encode(&hmac(&self.0, &parts)[..16])
    }

    fn sign(&self, signed: &[u8]) -> [u8; 32] {
        hmac(&self.0, &[signed])
    }
}

impl fmt::Debug for SigningKey {
    /// Nothing of it: keys have no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// RFC 7515 §4.1. Members that mean nothing here are ignored, as it says.
#[derive(Deserialize)]
struct Header {
    alg: String,
    /// What must be understood, and is not (RFC 7515 §4.1.11).
    crit: Option<serde::de::IgnoredAny>,
}

/// RFC 7519 §4.1; times are whole seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    iss: String,
    /// The name of the user.
    pub sub: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    nbf: Option<u64>,
    exp: u64,
    jti: String,
    /// [`SigningKey::fingerprint`].
    cred: String,
}

impl Claims {
    /// In milliseconds since the Unix epoch.
    pub fn expires_at_ms(&self) -> u64 {
        self.exp.saturating_mul(1000)
    }

    /// Whether the user has the credentials that it had when the token was issued.
    pub fn fits(&self, key: &SigningKey, user: &User) -> bool {
        // Signed, so that nobody can try out what fits.
        self.cred == key.fingerprint(user)
    }
}

/// A token for the user. `lifetime` is a second or more. `None` if it would be too long.
pub(super) fn issue(
    key: &SigningKey,
    user: &User,
    lifetime: Duration,
    now_ms: u64,
) -> Option<String> {
    let mut id = [0; 16];
    random(&mut id);
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    let claims = Claims {
        iss: ISSUER.to_owned(),
        sub: user.name().to_owned(),
        iat: now_ms / 1000,
        nbf: None,
        exp: now_ms.saturating_add(lifetime_ms) / 1000,
        jti: BASE64.encode(id),
        cred: key.fingerprint(user),
    };
    let claims = serde_json::to_vec(&claims).expect("texts and numbers can be written as JSON");
    let token = sign(key, br#"{"alg":"HS256","typ":"JWT"}"#, &claims);
    (token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn sign(key: &SigningKey, header: &[u8], claims: &[u8]) -> String {
    let mut token = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    token
}

/// The claims of a token that this broker signed and that is valid at `now_ms` (milliseconds since
/// the Unix epoch), without any leeway: the clock that judges it is the one that issued it.
pub(super) fn verify(key: &SigningKey, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
    use TokenError::{BadSignature, Expired, Malformed, NotYetValid};
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Malformed("it has more than 4096 bytes"));
    }
    let three = Malformed("it is not three parts with a dot between them");
    let (signed, signature) = token.rsplit_once('.').ok_or(three)?;
    let (header, claims) = signed.split_once('.').ok_or(three)?;
    if claims.contains('.') {
        return Err(three);
    }
    let decode = |part| {
        let bad = Malformed("a part of it is not base64url without padding");
        BASE64.decode(part).map_err(|_| bad)
    };
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let header: Header = serde_json::from_slice(&header)
        .map_err(|_| Malformed("its header is not that of a JWS"))?;
    if header.alg != ALGORITHM {
        return Err(Malformed("its algorithm is not HS256"));
    }
    if header.crit.is_some() {
        return Err(Malformed("its header has \"crit\", which is not supported"));
    }
    // An HMAC of another length is not one of ours, whatever it begins with.
    let signature: [u8; 32] = signature.try_into().map_err(|_| BadSignature)?;
    if !constant_time_eq(&key.sign(signed.as_bytes()), &signature) {
        return Err(BadSignature);
    }
    let claims: Claims = serde_json::from_slice(&claims)
        .map_err(|_| Malformed("its claims are not those of a token of this version"))?;
    if claims.iss != ISSUER {
        return Err(Malformed("its issuer is not \"tidings\""));
    }
    if claims
        .nbf
        .is_some_and(|nbf| now_ms < nbf.saturating_mul(1000))
    {
        return Err(NotYetValid);
    }
    // "On or after which" (RFC 7519 §4.1.4).
    if now_ms >= claims.expires_at_ms() {
        return Err(Expired);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests;
