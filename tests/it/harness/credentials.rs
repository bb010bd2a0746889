//! Users for a password file, and the client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677).

use argon2::password_hash::PasswordHasher;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub const METHOD: &str = "SCRAM-SHA-256";
const ITERATIONS: u32 = 4096;

/// A line of the password file with the cheapest argon2id there is, and a SCRAM verifier.
pub fn user(name: &str, password: &str) -> String {
    let salt = format!("salt of {name}");
    let salted = salted_password(password, salt.as_bytes(), ITERATIONS);
    let stored_key = sha256(&hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "{}:{METHOD}${ITERATIONS}${}${}${}\n",
        user_without_scram(name, password).trim_end(),
        BASE64.encode(salt),
        BASE64.encode(stored_key),
        BASE64.encode(server_key),
    )
}

/// A user who can log in with the password only.
pub fn user_without_scram(name: &str, password: &str) -> String {
    let cheap = argon2::Params::new(8, 1, 1, None).expect("the minimum");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap);
    let hash: argon2::password_hash::phc::PasswordHash = argon2
        .hash_password(password.as_bytes())
        .expect("a password can be hashed");
    format!("{name}:{hash}\n")
}

/// One SCRAM exchange, as a client.
pub struct Scram {
    password: String,
    first_bare: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Scram {
    /// The exchange, and the client-first-message.
    pub fn begin(user: &str, password: &str) -> (Scram, Vec<u8>) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let nonce = format!(
            "nonce{}",
            COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        );
        let first_bare = format!("n={user},r={nonce}");
        let message = format!("n,,{first_bare}").into_bytes();
        (
            Scram {
                password: password.to_owned(),
                first_bare,
                nonce,
                server_signature: Vec::new(),
            },
            message,
        )
    }

    /// The client-final-message that answers the server-first-message.
    pub fn answer(&mut self, server_first: &[u8]) -> Vec<u8> {
        let server_first =
            std::str::from_utf8(server_first).expect("the server-first-message is text");
        let field = |name: &str| {
            let mut fields = server_first.split(',');
            fields
                .find_map(|field| field.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name} in {server_first}"))
        };
        let nonce = field("r=");
        assert!(
            nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(),
            "{nonce} adds to {}",
            self.nonce
        );
        let salt = BASE64.decode(field("s=")).expect("the salt is base64");
        let iterations = field("i=").parse().expect("the iterations are a number");
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare);
        let signature = hmac(&sha256(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = hmac(&salted, b"Server Key");
        self.server_signature = hmac(&server_key, message.as_bytes()).to_vec();
        format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()
    }

    /// Whether the server-final-message proves that the server knows the user.
    pub fn server_is_genuine(&self, server_final: &[u8]) -> bool {
        let expected = format!("v={}", BASE64.encode(&self.server_signature));
        !self.server_signature.is_empty() && server_final == expected.as_bytes()
    }
}

/// `Hi` of RFC 5802, which is PBKDF2 with one block.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = hmac(password.as_bytes(), &[salt, &1u32.to_be_bytes()].concat());
    let mut result = block;
    for _ in 1..iterations {
        block = hmac(password.as_bytes(), &block);
        result
            .iter_mut()
            .zip(block)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    result
}

pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
