//! Any bytes, framed and decoded in every version.
//!
//! `cargo +nightly fuzz run decode` from `protocol/`. The invariants are those of the tests: no
//! panic, no view outside of the packet, and what is accepted means the same after it was encoded
//! and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_protocol::mqtt::Version;

#[path = "../../tests/it/invariants.rs"]
mod invariants;

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V31, Version::V311, Version::V5] {
        invariants::check_stream(version, bytes);
        // Most mutations break the Remaining Length; here it always fits.
        if let [first_byte, body @ ..] = bytes {
            let mut length = body.len();
            let mut framed = vec![*first_byte];
            while length >= 0x80 {
                framed.push(length as u8 | 0x80);
                length >>= 7;
            }
            framed.push(length as u8);
            framed.extend_from_slice(body);
            invariants::check_stream(version, &framed);
        }
    }
});
