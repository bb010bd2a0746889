//! UNSUBSCRIBE and UNSUBACK (MQTT 5 §3.10, §3.11).

use super::fixed_header::{UNSUBACK, UNSUBSCRIBE};
use super::properties::Allowed;
use super::reader::Reader;
use super::{PacketId, Properties, ProtocolError, Version, writer};

const NO_FILTERS: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.10.3-2] [MQTT311-3.10.3-2]",
    "UNSUBSCRIBE has no Topic Filter",
);
const NO_REASONS: ProtocolError =
    ProtocolError::protocol("[MQTT5 §3.11.3]", "UNSUBACK has no Reason Code");
const REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.11.3-2]",
    "a Reason Code of UNSUBACK is not one of those allowed there",
);

/// The request to end subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// The identifier that UNSUBACK repeats.
    pub packet_id: PacketId,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
    /// At least one Topic Filter.
    pub filters: FilterNames<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(
        version: Version,
        body: &'a [u8],
    ) -> Result<Unsubscribe<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(&mut reader, version, &Allowed::UNSUBSCRIBE)?;
        let bytes = reader.rest();
        let mut len = 0;
        while !reader.is_empty() {
            reader.string()?;
            len += 1;
        }
        if len == 0 {
            return Err(NO_FILTERS);
        }
        Ok(Unsubscribe {
            packet_id,
            properties,
            filters: FilterNames { bytes, len },
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, UNSUBSCRIBE << 4 | 0b0010, |out| {
            writer::u16(out, self.packet_id.get());
            self.properties.write(version, out);
            out.extend_from_slice(self.filters.bytes);
        });
    }
}

/// The Topic Filters of an UNSUBSCRIBE: UTF-8 without U+0000, but of any grammar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FilterNames<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> FilterNames<'a> {
    /// How many there are: a peer decides, so a server bounds it.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True if there are none, which no decoded packet says.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The filters in their order.
    pub fn iter(&self) -> FilterNameIter<'a> {
        FilterNameIter {
            rest: Reader::new(self.bytes),
        }
    }
}

impl<'a> IntoIterator for FilterNames<'a> {
    type Item = &'a str;
    type IntoIter = FilterNameIter<'a>;

    fn into_iter(self) -> FilterNameIter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for FilterNames<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The filters of an UNSUBSCRIBE, decoded one by one.
#[derive(Clone, Copy)]
pub struct FilterNameIter<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for FilterNameIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest.string().ok()
    }
}

/// Collects Topic Filters for an UNSUBSCRIBE to send.
#[derive(Clone, Default, Debug)]
pub struct FilterNamesBuilder {
    buf: Vec<u8>,
    len: usize,
}

impl FilterNamesBuilder {
    /// An empty builder; allocates nothing.
    pub const fn new() -> FilterNamesBuilder {
        FilterNamesBuilder {
            buf: Vec::new(),
            len: 0,
        }
    }

    /// Appends a filter.
    pub fn push(&mut self, filter: &str) -> &mut FilterNamesBuilder {
        writer::string(&mut self.buf, filter);
        self.len += 1;
        self
    }

    /// What was pushed.
    pub fn as_filters(&self) -> FilterNames<'_> {
        FilterNames {
            bytes: &self.buf,
            len: self.len,
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.len = 0;
    }
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE [MQTT-3.10.4-5].
    pub packet_id: PacketId,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
    /// One [`ReasonCode`](super::ReasonCode) for each Topic Filter, in order [MQTT-3.11.3-1];
    /// empty in MQTT 3, which has none.
    pub reasons: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<UnsubAck<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if !version.is_v5() {
            reader.finish()?;
            return Ok(UnsubAck {
                packet_id,
                properties: Properties::EMPTY,
                reasons: &[],
            });
        }
        let properties = Properties::read(&mut reader, version, &Allowed::ACK)?;
        let reasons = reader.rest();
        if reasons.is_empty() {
            return Err(NO_REASONS);
        }
        let allowed = |code: &u8| matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91);
        if !reasons.iter().all(allowed) {
            return Err(REASON);
        }
        Ok(UnsubAck {
            packet_id,
            properties,
            reasons,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, UNSUBACK << 4, |out| {
            writer::u16(out, self.packet_id.get());
            if version.is_v5() {
                self.properties.write(version, out);
                out.extend_from_slice(self.reasons);
            }
        });
    }
}
