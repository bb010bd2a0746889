//! MQTT packets as owned values, and their bytes. Written from the standards and independent of the
//! product's codec.
//!
//! Encoding does not judge: a scenario may build what is forbidden. Reading is strict, because what
//! it reads was sent by the broker under test.

mod bytes;
mod codec;
mod packets;
mod property;
mod reason;

pub use bytes::Bytes;
pub use codec::Packet;
pub use packets::*;
pub use property::Property;
pub use reason::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl Version {
    pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

    pub fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }
}
