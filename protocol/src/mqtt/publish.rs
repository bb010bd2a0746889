//! PUBLISH (MQTT 5 §3.3): the packet that the broker spends its time on.

use super::fixed_header::{DUP, DUP_QOS_0, PUBLISH, QOS_3, REMAINING_LENGTH_MAX};
use super::properties::Allowed;
use super::reader::Reader;
use super::{PacketId, Properties, ProtocolError, QoS, Version, writer};

const RETAIN: u8 = 0b0001;

const TOPIC_EMPTY: ProtocolError =
    ProtocolError::malformed("[MQTT311-4.7.3-1]", "the Topic Name is empty");
const TOPIC_AND_ALIAS_MISSING: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §3.3.2.1]",
    "the Topic Name is empty and there is no Topic Alias in its place",
);

/// An Application Message on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// True if this may be a message that was sent before.
    pub dup: bool,
    /// The Quality of Service.
    pub qos: QoS,
    /// To a server: keep the message. From a server: the message was kept.
    pub retain: bool,
    /// The Topic Name, without wildcards. Empty only if a Topic Alias stands for it (MQTT 5).
    pub topic: &'a str,
    /// Present exactly if the QoS is 1 or 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
    /// The message itself, any bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(
        version: Version,
        first_byte: u8,
        body: &'a [u8],
    ) -> Result<Publish<'a>, ProtocolError> {
        let qos = QoS::from_u8(first_byte >> 1 & 0b11).ok_or(QOS_3)?;
        let dup = first_byte & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(DUP_QOS_0);
        }
        let mut reader = Reader::new(body);
        let topic = reader.topic_name()?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(reader.packet_id()?),
        };
        let properties = Properties::read(&mut reader, version, &Allowed::PUBLISH)?;
        if topic.is_empty() {
            if !version.is_v5() {
                return Err(TOPIC_EMPTY);
            }
            if properties.topic_alias().is_none() {
                return Err(TOPIC_AND_ALIAS_MISSING);
            }
        }
        Ok(Publish {
            dup,
            qos,
            retain: first_byte & RETAIN != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// The Subscription Identifiers. A client must not send any [MQTT-3.3.4-6]; which side sent
    /// the packet is not known here, so a server asks.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.properties.subscription_identifiers()
    }

    /// How many bytes [`encode`](Publish::encode) appends.
    #[inline]
    pub fn encoded_len(&self, version: Version) -> usize {
        self.encoded_len_with(version, 0)
    }

    /// How many bytes [`encode_with`](Publish::encode_with) appends, with so many bytes of further
    /// properties.
    #[inline]
    pub fn encoded_len_with(&self, version: Version, more_properties: usize) -> usize {
        let remaining = self.remaining_len(version, more_properties);
        1 + writer::variable_len(remaining) + remaining
    }

    #[inline]
    fn remaining_len(&self, version: Version, more_properties: usize) -> usize {
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = if version.is_v5() {
            let len = self.properties.as_bytes().len() + more_properties;
            writer::variable_len(len) + len
        } else {
            0
        };
        2 + writer::bounded(self.topic).len() + packet_id + properties + self.payload.len()
    }

    /// Appends the packet and answers where in `out` its Packet Identifier stands, so that one
    /// encoding can be sent to many receivers; `None` for QoS 0, which has none.
    ///
    /// Without a `packet_id`, two zero bytes take its place for QoS 1 and 2, and must be
    /// overwritten. A packet beyond [`PACKET_SIZE_MAX`](super::PACKET_SIZE_MAX) cannot be said in
    /// MQTT and appends nothing.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Option<usize> {
        self.encode_with(version, Properties::EMPTY, out)
    }

    /// Like [`encode`](Publish::encode), with further properties after those of the message: what
    /// is the receiver's own, such as a Topic Alias or its Subscription Identifiers.
    #[inline]
    pub fn encode_with(
        &self,
        version: Version,
        more: Properties<'_>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if self.remaining_len(version, more.as_bytes().len()) > REMAINING_LENGTH_MAX {
            return None;
        }
        let packet_id_at = self.encode_head(version, more, self.payload.len(), out);
        out.extend_from_slice(self.payload);
        packet_id_at
    }

    /// Like [`encode_with`](Publish::encode_with), but only what stands before the payload, with
    /// room for it in `out`: the payload is appended or sent separately. Nothing is appended when
    /// the packet would be too long; [`encoded_len`](Publish::encoded_len) tells beforehand.
    #[inline]
    pub fn encode_head(
        &self,
        version: Version,
        more: Properties<'_>,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let remaining = self.remaining_len(version, more.as_bytes().len());
        if remaining > REMAINING_LENGTH_MAX {
            return None;
        }
        let first_byte = PUBLISH << 4
            | if self.dup { DUP } else { 0 }
            | self.qos.as_u8() << 1
            | u8::from(self.retain);
        out.reserve(1 + 4 + remaining - self.payload.len() + room);
        if remaining < 0x80 {
            out.extend_from_slice(&[first_byte, remaining as u8]);
        } else {
            out.push(first_byte);
            writer::variable(out, remaining);
        }
        writer::string(out, self.topic);
        let packet_id_at = match self.qos {
            QoS::AtMostOnce => None,
            _ => {
                let at = out.len();
                writer::u16(out, self.packet_id.map_or(0, PacketId::get));
                Some(at)
            }
        };
        if version.is_v5() {
            let (own, more) = (self.properties.as_bytes(), more.as_bytes());
            match own.len() + more.len() {
                0 => out.push(0),
                len => {
                    writer::variable(out, len);
                    out.extend_from_slice(own);
                    out.extend_from_slice(more);
                }
            }
        }
        packet_id_at
    }
}
