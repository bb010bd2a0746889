//! Quality of Service levels.

/// The Quality of Service of an Application Message or of a Subscription (MQTT 5 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: sent until acknowledged, so it may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: a four-step exchange, so that it arrives once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level for a number on the wire; `None` above 2.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// The number on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}
