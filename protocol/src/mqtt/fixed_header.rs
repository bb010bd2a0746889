//! The fixed header: packet type, flags and Remaining Length (MQTT 5 §2.1).
//!
//! This is where a byte stream is cut into packets, so it judges as early as it can: a wrong first
//! byte is refused before a second one arrives, and a packet that is too large before any of it.

use super::{ProtocolError, ReasonCode};

/// The largest size of a packet: five bytes of fixed header and 268,435,455 after it.
pub const PACKET_SIZE_MAX: usize = 5 + REMAINING_LENGTH_MAX;

/// The largest Remaining Length that four bytes can say (MQTT 5 §1.5.5).
pub(crate) const REMAINING_LENGTH_MAX: usize = 268_435_455;

pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;
pub(crate) const AUTH: u8 = 15;

/// The DUP flag of PUBLISH, and in MQTT 3.1 also of PUBREL, SUBSCRIBE and UNSUBSCRIBE.
pub(crate) const DUP: u8 = 0b1000;

const TYPE_ZERO: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.1.2] [MQTT311 §2.2.1]",
    "packet type 0 is reserved and must not be sent",
);
pub(crate) const QOS_3: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.3.1-4] [MQTT311-3.3.1-4]",
    "PUBLISH has both QoS bits set, and there is no QoS 3",
);
pub(crate) const DUP_QOS_0: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.3.1-2] [MQTT311-3.3.1-2]",
    "PUBLISH has DUP set with QoS 0, but a QoS 0 message is never sent again",
);
const PUBREL_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.6.1-1] [MQTT311-3.6.1-1]",
    "the flags in the first byte of PUBREL must be 0010",
);
const SUBSCRIBE_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.8.1-1] [MQTT311-3.8.1-1]",
    "the flags in the first byte of SUBSCRIBE must be 0010",
);
const UNSUBSCRIBE_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.10.1-1] [MQTT311-3.10.1-1]",
    "the flags in the first byte of UNSUBSCRIBE must be 0010",
);
const DISCONNECT_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.14.1-1] [MQTT311-3.14.1-1]",
    "the flags in the first byte of DISCONNECT must be 0000",
);
const AUTH_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.15.1-1]",
    "the flags in the first byte of AUTH must be 0000",
);
const RESERVED_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-2.1.3-1] [MQTT311-2.2.2-1]",
    "the flags in the first byte must be 0000 for this packet type",
);
const LENGTH_TOO_LONG: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §1.5.5] [MQTT311 §2.2.3]",
    "the Remaining Length takes more than four bytes",
);
const LENGTH_NOT_MINIMAL: ProtocolError = ProtocolError::malformed(
    "[MQTT-1.5.5-1]",
    "the Remaining Length is not in its shortest form",
);
const TOO_LARGE: ProtocolError = ProtocolError::new(
    ReasonCode::PacketTooLarge,
    "[MQTT-3.2.2-15]",
    "the packet is larger than the Maximum Packet Size of this server",
);

/// A fixed header that was read: where the packet's body begins and where it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedHeader {
    /// Packet type in the upper four bits, flags in the lower four.
    pub first_byte: u8,
    /// Bytes of the fixed header itself, 2 to 5.
    pub header_len: usize,
    /// Bytes after the fixed header.
    pub remaining_len: usize,
}

impl FixedHeader {
    /// Bytes of the whole packet.
    #[inline]
    pub const fn total_len(self) -> usize {
        self.header_len + self.remaining_len
    }

    /// The packet type, 1 (CONNECT) to 15 (AUTH).
    #[inline]
    pub const fn packet_type(self) -> u8 {
        self.first_byte >> 4
    }

    /// True for CONNECT, the only packet that may come first [MQTT-3.1.0-1].
    #[inline]
    pub const fn is_connect(self) -> bool {
        self.packet_type() == CONNECT
    }
}

/// Reads the fixed header at the start of `buf`; `None` means that more bytes are needed.
///
/// `max_packet_size` bounds the whole packet, fixed header included, as Maximum Packet Size does
/// (MQTT 5 §3.1.2.11.4).
#[inline]
pub fn fixed_header(
    buf: &[u8],
    max_packet_size: usize,
) -> Result<Option<FixedHeader>, ProtocolError> {
    let [first_byte, rest @ ..] = buf else {
        return Ok(None);
    };
    check_first_byte(*first_byte)?;
    let (header_len, remaining_len) = match rest {
        [] => return Ok(None),
        [length, ..] if *length < 0x80 => (2, usize::from(*length)),
        _ => match long_length(rest)? {
            Some((length_bytes, value)) => (1 + length_bytes, value),
            None => return Ok(None),
        },
    };
    let header = FixedHeader {
        first_byte: *first_byte,
        header_len,
        remaining_len,
    };
    if header.total_len() > max_packet_size {
        return Err(TOO_LARGE);
    }
    Ok(Some(header))
}

/// A Remaining Length of two to four bytes: how many, and the value.
fn long_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(LENGTH_NOT_MINIMAL);
            }
            return Ok(Some((index + 1, value)));
        }
    }
    // The fourth byte already says that a fifth would follow: no need to wait for it.
    if bytes.len() >= 4 {
        Err(LENGTH_TOO_LONG)
    } else {
        Ok(None)
    }
}

/// Judges packet type and flags.
///
/// MQTT 3.1 allows DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE. The version is not known here, so
/// these pass, and `check_version` refuses them for the other versions.
#[inline]
fn check_first_byte(byte: u8) -> Result<(), ProtocolError> {
    if byte >> 4 == PUBLISH {
        return match byte & 0b1110 {
            0b0110 | 0b1110 => Err(QOS_3),
            0b1000 => Err(DUP_QOS_0),
            _ => Ok(()),
        };
    }
    check_flags(byte, DUP)
}

/// Judges what only the version can tell: DUP outside PUBLISH (MQTT 3.1 only), AUTH (5.0 only).
pub(crate) fn check_version(version: super::Version, byte: u8) -> Result<(), ProtocolError> {
    use super::Version;
    const AUTH_BEFORE_V5: ProtocolError = ProtocolError::malformed(
        "[MQTT311 §2.2.1]",
        "packet type 15 is reserved before MQTT 5",
    );
    if byte >> 4 == AUTH && version != Version::V5 {
        return Err(AUTH_BEFORE_V5);
    }
    check_flags(byte, if version == Version::V31 { DUP } else { 0 })
}

fn check_flags(byte: u8, ignored: u8) -> Result<(), ProtocolError> {
    let flags = byte & 0x0F;
    let (wanted, ignored, error) = match byte >> 4 {
        0 => return Err(TYPE_ZERO),
        PUBLISH => return Ok(()),
        PUBREL => (0b0010, ignored, PUBREL_FLAGS),
        SUBSCRIBE => (0b0010, ignored, SUBSCRIBE_FLAGS),
        UNSUBSCRIBE => (0b0010, ignored, UNSUBSCRIBE_FLAGS),
        DISCONNECT => (0, 0, DISCONNECT_FLAGS),
        AUTH => (0, 0, AUTH_FLAGS),
        _ => (0, 0, RESERVED_FLAGS),
    };
    if flags & !ignored == wanted {
        Ok(())
    } else {
        Err(error)
    }
}
