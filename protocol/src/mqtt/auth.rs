//! AUTH (MQTT 5 §3.15).

use super::fixed_header::AUTH;
use super::properties::Allowed;
use super::reader::Reader;
use super::{Properties, ProtocolError, ReasonCode, Version, writer};

const REASON: ProtocolError = ProtocolError::protocol(
    "[MQTT-3.15.2-1]",
    "the Reason Code of AUTH is not one of those allowed there",
);
const METHOD_MISSING: ProtocolError =
    ProtocolError::protocol("[MQTT5 §3.15.2.2.2]", "AUTH has no Authentication Method");

/// A step in an enhanced authentication. MQTT 3 has no such packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// With an Authentication Method, unless the packet is the empty one that means success.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    /// §3.15.2.1 lets an AUTH for success be empty, and §3.15.2.2.2 wants an Authentication Method
    /// in every AUTH. So the empty one is read, and any other must name its method.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Auth<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            return Ok(Auth {
                reason: ReasonCode::Success,
                properties: Properties::EMPTY,
            });
        }
        let code = reader.u8()?;
        let allowed = matches!(code, 0x00 | 0x18 | 0x19);
        let reason = ReasonCode::from_u8(code)
            .filter(|_| allowed)
            .ok_or(REASON)?;
        let properties = Properties::read(&mut reader, Version::V5, &Allowed::AUTH)?;
        reader.finish()?;
        if properties.authentication_method().is_none() {
            return Err(METHOD_MISSING);
        }
        Ok(Auth { reason, properties })
    }

    /// Appends the packet; nothing in MQTT 3, where it does not exist.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if !version.is_v5() {
            return;
        }
        writer::packet(out, AUTH << 4, |out| {
            if self.reason != ReasonCode::Success || !self.properties.is_empty() {
                out.push(self.reason.as_u8());
                self.properties.write(version, out);
            }
        });
    }
}
