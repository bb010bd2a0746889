//! The few primitives that access is built of.

use ::hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = parts
        .iter()
        .fold(keyed(key), |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// PBKDF2 with HMAC-SHA-256 and a single block, which is `Hi` of RFC 5802.
pub(super) fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = keyed(password);
    let first = keyed
        .clone()
        .chain_update(salt)
        .chain_update(1_u32.to_be_bytes());
    let mut block: [u8; 32] = first.finalize().into_bytes().into();
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

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(super) fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Compares without telling by its duration where the first difference is.
pub(super) fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = std::hint::black_box(xor(a, b))
        .iter()
        .fold(0, |all, byte| all | byte);
    std::hint::black_box(difference) == 0
}

/// Fills the buffer from the system's source of randomness.
pub(super) fn random(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("a broker without randomness must not let anyone in");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 4231 §4.3 (test case 2).
    #[test]
    fn hmac_test_vector() {
        let expected = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(
            hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]),
            *expected
        );
    }

    /// The first 32 bytes of RFC 7914 §11.
    #[test]
    fn pbkdf2_test_vectors() {
        let expected = hex("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
        assert_eq!(pbkdf2(b"passwd", b"salt", 1), *expected);
        let expected = hex("4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56");
        assert_eq!(pbkdf2(b"Password", b"NaCl", 80_000), *expected);
    }

    #[test]
    fn equality() {
        let a: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert!(constant_time_eq(&a, &a));
        for i in 0..32 {
            let mut b = a;
            b[i] ^= 0x80;
            assert!(!constant_time_eq(&a, &b), "byte {i}");
        }
    }
}
