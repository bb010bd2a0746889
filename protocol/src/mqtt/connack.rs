//! CONNACK (MQTT 5 §3.2).

use super::fixed_header::CONNACK;
use super::properties::Allowed;
use super::reader::Reader;
use super::{Properties, ProtocolError, ReasonCode, Version, writer};

const RESERVED_FLAGS: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.2.2-1] [MQTT311 §3.2.2.1]",
    "bits 7 to 1 of the Connect Acknowledge Flags must be 0",
);
const REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.2.2-8] [MQTT311 §3.2.2.3]",
    "the Reason Code of CONNACK is not one of those allowed there",
);
const PRESENT_AND_REFUSED: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.2.2-6] [MQTT311-3.2.2-4]",
    "CONNACK says Session Present and refuses the connection",
);

/// The answer to CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnAck<'a> {
    /// True if the server continues an earlier Session. MQTT 3.1 cannot say so.
    pub session_present: bool,
    /// Success, or why the connection is refused.
    pub reason: ReasonCode,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<ConnAck<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        // MQTT 3.1 reserves the whole byte and asks nothing of it.
        if flags & !1 != 0 && version != Version::V31 {
            return Err(RESERVED_FLAGS);
        }
        let session_present = flags & 1 != 0 && version != Version::V31;
        let code = reader.u8()?;
        let reason = if version.is_v5() {
            v5_reason(code)
        } else {
            ReasonCode::from_return_code(code)
        };
        let reason = reason.ok_or(REASON)?;
        if session_present && reason != ReasonCode::Success {
            return Err(PRESENT_AND_REFUSED);
        }
        let properties = Properties::read(&mut reader, version, &Allowed::CONNACK)?;
        reader.finish()?;
        Ok(ConnAck {
            session_present,
            reason,
            properties,
        })
    }

    /// Appends the packet. In MQTT 5 the Property Length is always there (MQTT 5 §3.2.2.3.1); in
    /// MQTT 3 the reason becomes the return code that is nearest in meaning.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let present =
            self.session_present && self.reason == ReasonCode::Success && version != Version::V31;
        let code = if version.is_v5() {
            self.reason.as_u8()
        } else {
            self.reason.as_return_code()
        };
        writer::packet(out, CONNACK << 4, |out| {
            out.extend_from_slice(&[u8::from(present), code]);
            self.properties.write(version, out);
        });
    }
}

/// The Reason Codes of MQTT 5 table 3-1.
fn v5_reason(code: u8) -> Option<ReasonCode> {
    let allowed = matches!(
        code,
        0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
    );
    ReasonCode::from_u8(code).filter(|_| allowed)
}
