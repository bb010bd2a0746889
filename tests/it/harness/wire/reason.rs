//! Reason codes by their names.

use std::fmt;

/// A reason code of MQTT 5, or a return code of MQTT 3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($name:ident = $value:literal,)*) => {
        // The standard's table, whether or not a scenario needs each of them.
        #[allow(dead_code)]
        impl Reason { $(pub const $name: Reason = Reason($value);)* }
        impl Reason {
            fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "?" }
            }
        }
    };
}

reasons! {
    SUCCESS = 0x00,
    GRANTED_QOS_1 = 0x01,
    GRANTED_QOS_2 = 0x02,
    DISCONNECT_WITH_WILL = 0x04,
    NO_MATCHING_SUBSCRIBERS = 0x10,
    NO_SUBSCRIPTION_EXISTED = 0x11,
    CONTINUE_AUTHENTICATION = 0x18,
    RE_AUTHENTICATE = 0x19,
    UNSPECIFIED_ERROR = 0x80,
    MALFORMED_PACKET = 0x81,
    PROTOCOL_ERROR = 0x82,
    IMPLEMENTATION_SPECIFIC = 0x83,
    UNSUPPORTED_PROTOCOL_VERSION = 0x84,
    CLIENT_IDENTIFIER_NOT_VALID = 0x85,
    BAD_USER_NAME_OR_PASSWORD = 0x86,
    NOT_AUTHORIZED = 0x87,
    SERVER_UNAVAILABLE = 0x88,
    SERVER_BUSY = 0x89,
    BANNED = 0x8a,
    SERVER_SHUTTING_DOWN = 0x8b,
    BAD_AUTHENTICATION_METHOD = 0x8c,
    KEEP_ALIVE_TIMEOUT = 0x8d,
    SESSION_TAKEN_OVER = 0x8e,
    TOPIC_FILTER_INVALID = 0x8f,
    TOPIC_NAME_INVALID = 0x90,
    PACKET_IDENTIFIER_IN_USE = 0x91,
    PACKET_IDENTIFIER_NOT_FOUND = 0x92,
    RECEIVE_MAXIMUM_EXCEEDED = 0x93,
    TOPIC_ALIAS_INVALID = 0x94,
    PACKET_TOO_LARGE = 0x95,
    MESSAGE_RATE_TOO_HIGH = 0x96,
    QUOTA_EXCEEDED = 0x97,
    ADMINISTRATIVE_ACTION = 0x98,
    PAYLOAD_FORMAT_INVALID = 0x99,
    RETAIN_NOT_SUPPORTED = 0x9a,
    QOS_NOT_SUPPORTED = 0x9b,
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9e,
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xa2,
}

impl Reason {
    pub fn is_error(self) -> bool {
        self.0 >= 0x80
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.name())
    }
}
