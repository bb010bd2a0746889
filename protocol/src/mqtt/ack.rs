//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5 §3.4 to §3.7), which share one form.

use super::fixed_header::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use super::properties::Allowed;
use super::reader::Reader;
use super::{PacketId, Properties, ProtocolError, ReasonCode, Version, writer};

const PUBACK_REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.4.2-1]",
    "the Reason Code of PUBACK is not one of those allowed there",
);
const PUBREC_REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.5.2-1]",
    "the Reason Code of PUBREC is not one of those allowed there",
);
const PUBREL_REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.6.2-1]",
    "the Reason Code of PUBREL is not one of those allowed there",
);
const PUBCOMP_REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.7.2-1]",
    "the Reason Code of PUBCOMP is not one of those allowed there",
);

/// Which of the four packets an [`Ack`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum AckKind {
    /// Answers a PUBLISH with QoS 1.
    PubAck = PUBACK,
    /// Answers a PUBLISH with QoS 2.
    PubRec = PUBREC,
    /// Answers PUBREC.
    PubRel = PUBREL,
    /// Answers PUBREL.
    PubComp = PUBCOMP,
}

impl AckKind {
    /// The first byte of the packet; PUBREL has a reserved flag set [MQTT-3.6.1-1].
    #[inline]
    const fn first_byte(self) -> u8 {
        match self {
            AckKind::PubRel => PUBREL << 4 | 0b0010,
            kind => (kind as u8) << 4,
        }
    }

    /// The Reason Code in a packet of this kind.
    fn reason(self, byte: u8) -> Result<ReasonCode, ProtocolError> {
        let allowed = match self {
            AckKind::PubAck | AckKind::PubRec => {
                matches!(
                    byte,
                    0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
                )
            }
            AckKind::PubRel | AckKind::PubComp => matches!(byte, 0x00 | 0x92),
        };
        ReasonCode::from_u8(byte)
            .filter(|_| allowed)
            .ok_or(match self {
                AckKind::PubAck => PUBACK_REASON,
                AckKind::PubRec => PUBREC_REASON,
                AckKind::PubRel => PUBREL_REASON,
                AckKind::PubComp => PUBCOMP_REASON,
            })
    }
}

/// A step in the acknowledgement of a PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH [MQTT-2.2.1-5].
    pub packet_id: PacketId,
    /// Always [`ReasonCode::Success`] in MQTT 3.
    pub reason: ReasonCode,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement of success.
    #[inline]
    pub const fn new(packet_id: PacketId) -> Ack<'static> {
        Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }
    }

    #[inline]
    pub(crate) fn decode(
        kind: AckKind,
        version: Version,
        body: &'a [u8],
    ) -> Result<Ack<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if reader.is_empty() {
            return Ok(Ack::new(packet_id));
        }
        Ack::decode_rest(kind, version, packet_id, reader)
    }

    /// Reason Code and Property Length may be left out from the end (MQTT 5 §3.4.2.1, §3.4.2.2.1).
    fn decode_rest(
        kind: AckKind,
        version: Version,
        packet_id: PacketId,
        mut reader: Reader<'a>,
    ) -> Result<Ack<'a>, ProtocolError> {
        let mut ack = Ack::new(packet_id);
        if version.is_v5() {
            ack.reason = kind.reason(reader.u8()?)?;
            if !reader.is_empty() {
                ack.properties = Properties::read(&mut reader, version, &Allowed::ACK)?;
            }
        }
        reader.finish()?;
        Ok(ack)
    }

    /// Appends the packet in its shortest form.
    #[inline]
    pub fn encode(&self, kind: AckKind, version: Version, out: &mut Vec<u8>) {
        let [high, low] = self.packet_id.to_be_bytes();
        let short = self.reason == ReasonCode::Success && self.properties.is_empty();
        if short || !version.is_v5() {
            out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
        } else if self.properties.is_empty() {
            out.extend_from_slice(&[kind.first_byte(), 3, high, low, self.reason.as_u8()]);
        } else {
            writer::packet(out, kind.first_byte(), |out| {
                out.extend_from_slice(&[high, low, self.reason.as_u8()]);
                self.properties.write(version, out);
            });
        }
    }
}
