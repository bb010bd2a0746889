//! What is wrong with a packet.

use super::ReasonCode;

/// A rule of the specification that a packet breaks.
///
/// Every value is a constant beside the code that checks the rule, so an error costs nothing to
/// make and says the same thing each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtocolError {
    /// What to tell an MQTT 5 peer in CONNACK or DISCONNECT.
    pub reason: ReasonCode,
    /// The clause that was broken: `[MQTT-…]` is of MQTT 5.0, `[MQTT311-…]` of MQTT 3.1.1.
    pub clause: &'static str,
    /// A sentence for the person who wrote the client.
    pub message: &'static str,
}

impl ProtocolError {
    /// An error with any Reason Code.
    pub const fn new(reason: ReasonCode, clause: &'static str, message: &'static str) -> Self {
        ProtocolError {
            reason,
            clause,
            message,
        }
    }

    /// 0x81: the packet cannot be parsed according to the specification (MQTT 5 §1.2).
    pub const fn malformed(clause: &'static str, message: &'static str) -> Self {
        ProtocolError::new(ReasonCode::MalformedPacket, clause, message)
    }

    /// 0x82: the packet was parsed and contains what the protocol does not allow (MQTT 5 §1.2).
    pub const fn protocol(clause: &'static str, message: &'static str) -> Self {
        ProtocolError::new(ReasonCode::ProtocolError, clause, message)
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.reason, self.message, self.clause)
    }
}

impl std::error::Error for ProtocolError {}
