//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.
//!
//! The client proves that it knows the password without sending it, and the server that it
//! knows the verifier. Nothing here takes long: the hashing is the client's work.

use std::fmt;

use ::hmac::{Hmac, KeyInit, Mac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::{Access, AuthError, Exchange, Step};

pub(super) const METHOD: &str = "SCRAM-SHA-256";

/// RFC 7677 asks for at least 4096 and names 15000 as what a machine of its day took a tenth
/// of a second for. It is the client that spends it, at each login.
pub const ITERATIONS_DEFAULT: u32 = 15_000;
pub const ITERATIONS_MIN: u32 = 4096;
const ITERATIONS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;

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

    /// For a user that does not exist, or has no verifier: to a client it looks like one, and
    /// each time like the same one, but no proof fits it. `like` lends its iteration count.
    fn pretend(key: &[u8; 32], user: &str, like: Option<&Verifier>) -> Self {
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

/// The server's side of one authentication.
pub(super) struct Server {
    access: Access,
    client_id: Box<str>,
    /// The part of the nonce that is ours. Drawn at the start, so that tests can give it.
    nonce: String,
    stage: Stage,
}

enum Stage {
    /// `asked`: the client began without data and was asked for its first message.
    ClientFirst {
        asked: bool,
    },
    ClientFinal(Box<Challenge>),
    Over,
}

/// What was sent to the client and has to be answered.
struct Challenge {
    user: String,
    /// Whether such a user exists. The proof is checked all the same.
    exists: bool,
    verifier: Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Server {
    pub fn new(access: Access, client_id: &str) -> Self {
        let mut nonce = [0; 18];
        super::random(&mut nonce);
        Self::with_nonce(access, client_id, BASE64.encode(nonce))
    }

    fn with_nonce(access: Access, client_id: &str, nonce: String) -> Self {
        Server {
            access,
            client_id: client_id.into(),
            nonce,
            stage: Stage::ClientFirst { asked: false },
        }
    }

    /// `n,,n=user,r=nonce`
    fn client_first(&mut self, message: &str) -> Result<Step, AuthError> {
        let malformed = AuthError::Malformed;
        let (binding, rest) = message.split_once(',').ok_or(malformed("no GS2 header"))?;
        let (authzid, bare) = rest.split_once(',').ok_or(malformed("no GS2 header"))?;
        match binding {
            // "y": the client could bind to the channel and thinks that we cannot. We cannot.
            "n" | "y" => {}
            _ if binding.starts_with("p=") => {
                return Err(malformed("channel binding is not offered"));
            }
            _ => return Err(malformed("an unknown GS2 header")),
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|user| user.strip_prefix("n="));
        let user = unescape(user.ok_or(malformed(
            "no user name, or an extension that must be known",
        ))?)?;
        if !authzid.is_empty()
            && Some(&user)
                != authzid
                    .strip_prefix("a=")
                    .map(unescape)
                    .transpose()?
                    .as_ref()
        {
            return Err(AuthError::NotAuthorized);
        }
        let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let client_nonce = client_nonce
            .filter(|nonce| nonce_is_valid(nonce))
            .ok_or(malformed("no nonce"))?;

        let (known, like) = self.access.scram_verifier(&user);
        let verifier = match &known {
            Some(verifier) => verifier.clone(),
            None => Verifier::pretend(self.access.key(), &user, like.as_ref()),
        };
        let nonce = format!("{client_nonce}{}", self.nonce);
        let server_first = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        );
        let reply = server_first.clone().into_bytes();
        self.stage = Stage::ClientFinal(Box::new(Challenge {
            user,
            exists: known.is_some(),
            verifier,
            gs2_header: format!("{binding},{authzid},"),
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
        }));
        Ok(Step::Continue(reply))
    }

    /// `c=biws,r=nonce,p=proof`
    fn client_final(&self, challenge: &Challenge, message: &str) -> Result<Step, AuthError> {
        let malformed = AuthError::Malformed;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed("no proof"))?;
        let proof = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(malformed("the proof is not 32 bytes in base64"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|binding| binding.strip_prefix("c="));
        if binding != Some(&BASE64.encode(&challenge.gs2_header)) {
            return Err(malformed("the GS2 header is not repeated"));
        }
        if attributes.next().and_then(|nonce| nonce.strip_prefix("r=")) != Some(&challenge.nonce) {
            return Err(malformed("the nonce is not repeated"));
        }

        let Challenge {
            verifier,
            client_first_bare,
            server_first,
            ..
        } = challenge;
        let auth_message = format!("{client_first_bare},{server_first},{without_proof}");
        let signature = hmac(&verifier.stored_key, &[auth_message.as_bytes()]);
        let client_key = xor(&proof, &signature);
        let proven = constant_time_eq(&sha256(&client_key), &verifier.stored_key);
        if !(proven && challenge.exists) {
            return Err(AuthError::BadCredentials);
        }
        // The user may have gone, or have another password, since the challenge.
        let principal = self
            .access
            .scram_principal(&self.client_id, &challenge.user, verifier)?;
        let server_signature = hmac(&verifier.server_key, &[auth_message.as_bytes()]);
        let data = format!("v={}", BASE64.encode(server_signature)).into_bytes();
        Ok(Step::Done { principal, data })
    }
}

impl Exchange for Server {
    fn step(&mut self, data: &[u8]) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Ok(message) = std::str::from_utf8(data) else {
            return Step::Failed(AuthError::Malformed("a message that is not UTF-8"));
        };
        let step = match stage {
            Stage::ClientFirst { asked: false } if message.is_empty() => {
                self.stage = Stage::ClientFirst { asked: true };
                Ok(Step::Continue(Vec::new()))
            }
            Stage::ClientFirst { .. } => self.client_first(message),
            Stage::ClientFinal(challenge) => self.client_final(&challenge, message),
            Stage::Over => Err(AuthError::Malformed(
                "a message after the end of the exchange",
            )),
        };
        step.unwrap_or_else(Step::Failed)
    }
}

/// A saslname: `=2C` and `=3D` stand for comma and equals sign, and no other `=` occurs.
fn unescape(name: &str) -> Result<String, AuthError> {
    let mut parts = name.split('=');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(AuthError::Malformed("a user name with a bare equals sign")),
        };
        unescaped.push(c);
        unescaped.push_str(rest);
    }
    match unescaped.is_empty() {
        true => Err(AuthError::Malformed("an empty user name")),
        false => Ok(unescaped),
    }
}

/// Printable ASCII without the comma.
fn nonce_is_valid(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// `Hi` of RFC 5802: PBKDF2 with HMAC-SHA-256 and one block.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    // What SASLprep does not take is used as it is, as other servers do.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    let keyed = keyed(prepared.as_bytes());
    let mut block: [u8; 32] = keyed
        .clone()
        .chain_update(salt)
        .chain_update(1_u32.to_be_bytes())
        .finalize()
        .into_bytes()
        .into();
    let mut result = block;
    for _ in 1..iterations {
        block = keyed
            .clone()
            .chain_update(block)
            .finalize()
            .into_bytes()
            .into();
        result = xor(&result, &block);
    }
    result
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = parts
        .iter()
        .fold(keyed(key), |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Compares without telling by its duration where the first difference is.
pub(super) fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = std::hint::black_box(xor(a, b))
        .iter()
        .fold(0, |all, byte| all | byte);
    std::hint::black_box(difference) == 0
}
