//! SUBSCRIBE and SUBACK (MQTT 5 §3.8, §3.9).

use super::fixed_header::{SUBACK, SUBSCRIBE};
use super::properties::Allowed;
use super::reader::Reader;
use super::{PacketId, Properties, ProtocolError, QoS, Version, writer};

const NO_FILTERS: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.8.3-2] [MQTT311-3.8.3-3]",
    "SUBSCRIBE has no Topic Filter",
);
const RESERVED_BITS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.8.3-5] [MQTT311-3-8.3-4]",
    "reserved bits of the Subscription Options are set",
);
const QOS_3: ProtocolError =
    ProtocolError::protocol("[MQTT5 §3.8.3.1]", "the Maximum QoS of a subscription is 3");
const QOS_3_V3: ProtocolError = ProtocolError::malformed(
    "[MQTT311-3-8.3-4]",
    "the requested QoS of a subscription is 3",
);
const RETAIN_HANDLING_3: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §3.8.3.1]",
    "the Retain Handling of a subscription is 3",
);
const NO_LOCAL_SHARED: ProtocolError =
    ProtocolError::protocol("[MQTT-3.8.3-4]", "No Local is set on a Shared Subscription");
const NO_REASONS: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.8.4-6] [MQTT311-3.8.4-5]",
    "SUBACK has no Reason Code",
);
const REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.9.3-2] [MQTT311-3.9.3-2]",
    "a Reason Code of SUBACK is not one of those allowed there",
);

/// The request to receive what matches the given Topic Filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// The identifier that SUBACK repeats.
    pub packet_id: PacketId,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
    /// At least one Topic Filter with its options.
    pub filters: Filters<'a>,
}

/// How retained messages are sent when a subscription is made (MQTT 5 §3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: each time the client subscribes, as always in MQTT 3.
    #[default]
    Send = 0,
    /// 1: if the subscription did not exist.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// The Subscription Options of a Topic Filter. MQTT 3 has the QoS only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SubscriptionOptions {
    /// The highest QoS at which the server may send.
    pub qos: QoS,
    /// Do not send what this same client published.
    pub no_local: bool,
    /// Forward RETAIN as it was published, not as 0.
    pub retain_as_published: bool,
    /// How retained messages are sent now.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    const NO_LOCAL: u8 = 0b0000_0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
    const RETAIN_HANDLING_SHIFT: u8 = 4;

    fn from_byte(version: Version, byte: u8) -> Result<SubscriptionOptions, ProtocolError> {
        let reserved = if version.is_v5() {
            0b1100_0000
        } else {
            0b1111_1100
        };
        if byte & reserved != 0 {
            return Err(RESERVED_BITS);
        }
        let qos =
            QoS::from_u8(byte & 0b11).ok_or(if version.is_v5() { QOS_3 } else { QOS_3_V3 })?;
        let retain_handling = match byte >> Self::RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(RETAIN_HANDLING_3),
        };
        Ok(SubscriptionOptions {
            qos,
            no_local: byte & Self::NO_LOCAL != 0,
            retain_as_published: byte & Self::RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    /// As they are written in SUBSCRIBE (MQTT 5 §3.8.3.1).
    pub const fn as_byte(self) -> u8 {
        self.qos.as_u8()
            | if self.no_local { Self::NO_LOCAL } else { 0 }
            | if self.retain_as_published {
                Self::RETAIN_AS_PUBLISHED
            } else {
                0
            }
            | (self.retain_handling as u8) << Self::RETAIN_HANDLING_SHIFT
    }

    /// What [`as_byte`](SubscriptionOptions::as_byte) gave earlier, for instance from a
    /// subscription that was stored; none if the byte is none of those.
    pub fn from_stored(byte: u8) -> Option<SubscriptionOptions> {
        SubscriptionOptions::from_byte(Version::V5, byte).ok()
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Subscribe<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(&mut reader, version, &Allowed::SUBSCRIBE)?;
        let filters = Filters::decode(version, reader)?;
        Ok(Subscribe {
            packet_id,
            properties,
            filters,
        })
    }

    /// Appends the packet. MQTT 3 gets the QoS only of the options.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, SUBSCRIBE << 4 | 0b0010, |out| {
            writer::u16(out, self.packet_id.get());
            self.properties.write(version, out);
            for (filter, options) in self.filters {
                writer::string(out, filter);
                let options = options.as_byte();
                out.push(if version.is_v5() {
                    options
                } else {
                    options & 0b11
                });
            }
        });
    }
}

/// The Topic Filters of a SUBSCRIBE: UTF-8 without U+0000, but of any grammar, which
/// [`topic::Filter::parse`](crate::topic::Filter::parse) judges so that SUBACK can answer each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Filters<'a> {
    fn decode(version: Version, mut reader: Reader<'a>) -> Result<Filters<'a>, ProtocolError> {
        let bytes = reader.rest();
        let mut len = 0;
        while !reader.is_empty() {
            let filter = reader.string()?;
            let options = SubscriptionOptions::from_byte(version, reader.u8()?)?;
            if options.no_local && filter.starts_with("$share/") {
                return Err(NO_LOCAL_SHARED);
            }
            len += 1;
        }
        if len == 0 {
            Err(NO_FILTERS)
        } else {
            Ok(Filters { bytes, len })
        }
    }

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
    pub fn iter(&self) -> FilterIter<'a> {
        FilterIter {
            rest: Reader::new(self.bytes),
        }
    }
}

impl<'a> IntoIterator for Filters<'a> {
    type Item = (&'a str, SubscriptionOptions);
    type IntoIter = FilterIter<'a>;

    fn into_iter(self) -> FilterIter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The filters of a SUBSCRIBE, decoded one by one.
#[derive(Clone, Copy)]
pub struct FilterIter<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for FilterIter<'a> {
    type Item = (&'a str, SubscriptionOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.rest.string().ok()?;
        let options = SubscriptionOptions::from_byte(Version::V5, self.rest.u8().ok()?).ok()?;
        Some((filter, options))
    }
}

/// Collects Topic Filters for a SUBSCRIBE to send.
#[derive(Clone, Default, Debug)]
pub struct FiltersBuilder {
    buf: Vec<u8>,
    len: usize,
}

impl FiltersBuilder {
    /// An empty builder; allocates nothing.
    pub const fn new() -> FiltersBuilder {
        FiltersBuilder {
            buf: Vec::new(),
            len: 0,
        }
    }

    /// Appends a filter.
    pub fn push(&mut self, filter: &str, options: SubscriptionOptions) -> &mut FiltersBuilder {
        writer::string(&mut self.buf, filter);
        self.buf.push(options.as_byte());
        self.len += 1;
        self
    }

    /// What was pushed.
    pub fn as_filters(&self) -> Filters<'_> {
        Filters {
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

/// The answer to SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE [MQTT-3.8.4-2].
    pub packet_id: PacketId,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
    /// One [`ReasonCode`](super::ReasonCode) for each Topic Filter, in order [MQTT-3.9.3-1].
    pub reasons: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<SubAck<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(&mut reader, version, &Allowed::ACK)?;
        let reasons = reader.rest();
        if reasons.is_empty() {
            return Err(NO_REASONS);
        }
        // MQTT 3.1 knows no 0x80, but servers send it there too: it is all they can say.
        let allowed = |code: &u8| match version {
            Version::V31 | Version::V311 => matches!(code, 0..=2 | 0x80),
            Version::V5 => matches!(
                code,
                0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
        };
        if !reasons.iter().all(allowed) {
            return Err(REASON);
        }
        Ok(SubAck {
            packet_id,
            properties,
            reasons,
        })
    }

    /// Appends the packet. In MQTT 3 every failure is 0x80.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, SUBACK << 4, |out| {
            writer::u16(out, self.packet_id.get());
            self.properties.write(version, out);
            match version {
                Version::V5 => out.extend_from_slice(self.reasons),
                _ => out.extend(self.reasons.iter().map(|&code| code.min(0x80))),
            }
        });
    }
}
