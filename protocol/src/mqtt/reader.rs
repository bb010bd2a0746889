//! A cursor over the bytes of one packet: the data types of MQTT 5 §1.5.

use super::{PacketId, ProtocolError, text};

pub(crate) const TRUNCATED: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.1.4] [MQTT311 §2.2.3]",
    "the packet ends in the middle of a field",
);
const TRAILING: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.1.4] [MQTT311 §2.2.3]",
    "there are bytes after the last field of the packet",
);
const VARIABLE_TOO_LONG: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §1.5.5]",
    "a Variable Byte Integer takes more than four bytes",
);
const VARIABLE_NOT_MINIMAL: ProtocolError = ProtocolError::malformed(
    "[MQTT-1.5.5-1]",
    "a Variable Byte Integer is not in its shortest form",
);
const PACKET_ID_ZERO: ProtocolError = ProtocolError::protocol(
    "[MQTT-2.2.1-3] [MQTT311-2.3.1-1]",
    "the Packet Identifier is 0, and must be 1 to 65535",
);

/// What has not been read yet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        let (&byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, ProtocolError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, ProtocolError> {
        PacketId::new(self.u16()?).ok_or(PACKET_ID_ZERO)
    }

    /// A Variable Byte Integer (MQTT 5 §1.5.5).
    #[inline]
    pub(crate) fn variable(&mut self) -> Result<u32, ProtocolError> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let minimal = byte != 0 || index == 0;
                return if minimal {
                    Ok(value)
                } else {
                    Err(VARIABLE_NOT_MINIMAL)
                };
            }
        }
        Err(VARIABLE_TOO_LONG)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Binary Data (MQTT 5 §1.5.6): two bytes of length, then the bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], ProtocolError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// A UTF-8 Encoded String (MQTT 5 §1.5.4).
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, ProtocolError> {
        text::string(self.binary()?)
    }

    /// A string that names a topic: no wildcards. It may be empty, which the caller judges.
    #[inline]
    pub(crate) fn topic_name(&mut self) -> Result<&'a str, ProtocolError> {
        text::topic_name(self.binary()?)
    }

    /// Refuses what is left over.
    #[inline]
    pub(crate) fn finish(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(TRAILING)
        }
    }
}
