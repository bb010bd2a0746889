//! Packet Identifiers.

use std::num::NonZeroU16;

/// A Packet Identifier: never zero [MQTT-2.2.1-3] [MQTT311-2.3.1-1].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest identifier, 1.
    pub const MIN: PacketId = PacketId(NonZeroU16::MIN);
    /// The largest identifier, 65,535.
    pub const MAX: PacketId = PacketId(NonZeroU16::MAX);

    /// `None` for zero.
    #[inline]
    pub const fn new(value: u16) -> Option<PacketId> {
        match NonZeroU16::new(value) {
            Some(value) => Some(PacketId(value)),
            None => None,
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier in the two bytes of a packet; `None` for zero.
    #[inline]
    pub const fn from_be_bytes(bytes: [u8; 2]) -> Option<PacketId> {
        PacketId::new(u16::from_be_bytes(bytes))
    }

    /// The two bytes for a packet, as written at the position that [`Publish::encode`] answers.
    ///
    /// [`Publish::encode`]: super::Publish::encode
    #[inline]
    pub const fn to_be_bytes(self) -> [u8; 2] {
        self.get().to_be_bytes()
    }

    /// The identifier after this one; 1 follows 65,535.
    #[inline]
    pub const fn next(self) -> PacketId {
        match self.0.checked_add(1) {
            Some(value) => PacketId(value),
            None => PacketId::MIN,
        }
    }
}

impl std::fmt::Display for PacketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
