//! DISCONNECT (MQTT 5 §3.14).

use super::fixed_header::DISCONNECT;
use super::properties::Allowed;
use super::reader::Reader;
use super::{Properties, ProtocolError, ReasonCode, Version, writer};

const REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.14.2-1]",
    "the Reason Code of DISCONNECT is not one of those allowed there",
);

/// The last packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why; always [`ReasonCode::NORMAL_DISCONNECTION`] in MQTT 3.
    pub reason: ReasonCode,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Reason Code and Property Length may be left out from the end (MQTT 5 §3.14.2.1,
    /// §3.14.2.2.1).
    pub(crate) fn decode(
        version: Version,
        body: &'a [u8],
    ) -> Result<Disconnect<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Disconnect {
            reason: ReasonCode::NORMAL_DISCONNECTION,
            properties: Properties::EMPTY,
        };
        if version.is_v5() && !reader.is_empty() {
            disconnect.reason = reason(reader.u8()?).ok_or(REASON)?;
            if !reader.is_empty() {
                disconnect.properties =
                    Properties::read(&mut reader, version, &Allowed::DISCONNECT)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    /// Appends the packet. In MQTT 5 always with Reason Code and Property Length: clients exist
    /// that take the form with the Reason Code alone for a normal disconnection. In MQTT 3, where
    /// only a client sends it, it has no body.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, DISCONNECT << 4, |out| {
            if version.is_v5() {
                out.push(self.reason.as_u8());
                self.properties.write(version, out);
            }
        });
    }
}

/// The Reason Codes that MQTT 5 table 2-6 gives to DISCONNECT. It includes 0x8C, which a failed
/// re-authentication needs, and which the table of §3.14.2.1 leaves out.
fn reason(code: u8) -> Option<ReasonCode> {
    let allowed = matches!(
        code,
        0x00 | 0x04
            | 0x80..=0x83
            | 0x87
            | 0x89
            | 0x8B..=0x90
            | 0x93..=0xA2
    );
    ReasonCode::from_u8(code).filter(|_| allowed)
}
