//! The 27 properties of MQTT 5 (§2.2.2.2, table 2-4): one value each, and which packet may carry it.

use super::reader::Reader;
use super::{ProtocolError, QoS, ReasonCode, text, writer};

pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 1;
pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 2;
pub(crate) const CONTENT_TYPE: u8 = 3;
pub(crate) const RESPONSE_TOPIC: u8 = 8;
pub(crate) const CORRELATION_DATA: u8 = 9;
pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 11;
pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 17;
pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 18;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
pub(crate) const AUTHENTICATION_METHOD: u8 = 21;
pub(crate) const AUTHENTICATION_DATA: u8 = 22;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
pub(crate) const WILL_DELAY_INTERVAL: u8 = 24;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
pub(crate) const RESPONSE_INFORMATION: u8 = 26;
pub(crate) const SERVER_REFERENCE: u8 = 28;
pub(crate) const REASON_STRING: u8 = 31;
pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
pub(crate) const TOPIC_ALIAS: u8 = 35;
pub(crate) const MAXIMUM_QOS: u8 = 36;
pub(crate) const RETAIN_AVAILABLE: u8 = 37;
pub(crate) const USER_PROPERTY: u8 = 38;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;
pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 40;
pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 41;
pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 42;

pub(crate) const UNKNOWN_PROPERTY: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.2.2.2]",
    "a property has an identifier that does not exist",
);
const NOT_A_FLAG: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §2.2.2.2]",
    "a property that must be 0 or 1 has another value",
);
const SUBSCRIPTION_IDENTIFIER_ZERO: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §3.8.2.1.2]",
    "the Subscription Identifier is 0, and must be 1 to 268435455",
);
const RECEIVE_MAXIMUM_ZERO: ProtocolError =
    ProtocolError::protocol("[MQTT5 §3.1.2.11.3]", "the Receive Maximum is 0");
const MAXIMUM_PACKET_SIZE_ZERO: ProtocolError =
    ProtocolError::protocol("[MQTT5 §3.1.2.11.4]", "the Maximum Packet Size is 0");
const TOPIC_ALIAS_ZERO: ProtocolError = ProtocolError::new(
    ReasonCode::TopicAliasInvalid,
    "[MQTT-3.3.2-8]",
    "the Topic Alias is 0",
);
const RESPONSE_TOPIC_WILDCARD: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.3.2-14]",
    "the Response Topic contains a wildcard character, + or #",
);
const RESPONSE_TOPIC_EMPTY: ProtocolError =
    ProtocolError::malformed("[MQTT-4.7.3-1]", "the Response Topic is empty");

/// A property with its value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs)] // The names are the specification's.
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    /// QoS 0 or 1: QoS 2 is said by leaving the property out.
    MaximumQoS(QoS),
    RetainAvailable(bool),
    /// Name and value; the only property that may occur several times in any packet.
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Reads one property, identifier first, and checks all that concerns it alone.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Property<'a>, ProtocolError> {
        // The identifier is a Variable Byte Integer, but none takes more than one byte.
        Ok(match reader.u8()? {
            PAYLOAD_FORMAT_INDICATOR => Property::PayloadFormatIndicator(u8::from(flag(reader)?)),
            MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiryInterval(reader.u32()?),
            CONTENT_TYPE => Property::ContentType(reader.string()?),
            RESPONSE_TOPIC => match reader.topic_name() {
                Ok("") => return Err(RESPONSE_TOPIC_EMPTY),
                Ok(topic) => Property::ResponseTopic(topic),
                Err(text::WILDCARD_IN_NAME) => return Err(RESPONSE_TOPIC_WILDCARD),
                Err(error) => return Err(error),
            },
            CORRELATION_DATA => Property::CorrelationData(reader.binary()?),
            SUBSCRIPTION_IDENTIFIER => match reader.variable()? {
                0 => return Err(SUBSCRIPTION_IDENTIFIER_ZERO),
                id => Property::SubscriptionIdentifier(id),
            },
            SESSION_EXPIRY_INTERVAL => Property::SessionExpiryInterval(reader.u32()?),
            ASSIGNED_CLIENT_IDENTIFIER => Property::AssignedClientIdentifier(reader.string()?),
            SERVER_KEEP_ALIVE => Property::ServerKeepAlive(reader.u16()?),
            AUTHENTICATION_METHOD => Property::AuthenticationMethod(reader.string()?),
            AUTHENTICATION_DATA => Property::AuthenticationData(reader.binary()?),
            REQUEST_PROBLEM_INFORMATION => Property::RequestProblemInformation(flag(reader)?),
            WILL_DELAY_INTERVAL => Property::WillDelayInterval(reader.u32()?),
            REQUEST_RESPONSE_INFORMATION => Property::RequestResponseInformation(flag(reader)?),
            RESPONSE_INFORMATION => Property::ResponseInformation(reader.string()?),
            SERVER_REFERENCE => Property::ServerReference(reader.string()?),
            REASON_STRING => Property::ReasonString(reader.string()?),
            RECEIVE_MAXIMUM => match reader.u16()? {
                0 => return Err(RECEIVE_MAXIMUM_ZERO),
                maximum => Property::ReceiveMaximum(maximum),
            },
            TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16()?),
            TOPIC_ALIAS => match reader.u16()? {
                0 => return Err(TOPIC_ALIAS_ZERO),
                alias => Property::TopicAlias(alias),
            },
            MAXIMUM_QOS => Property::MaximumQoS(match flag(reader)? {
                false => QoS::AtMostOnce,
                true => QoS::AtLeastOnce,
            }),
            RETAIN_AVAILABLE => Property::RetainAvailable(flag(reader)?),
            USER_PROPERTY => {
                let name = reader.string()?;
                Property::UserProperty(name, reader.string()?)
            }
            MAXIMUM_PACKET_SIZE => match reader.u32()? {
                0 => return Err(MAXIMUM_PACKET_SIZE_ZERO),
                size => Property::MaximumPacketSize(size),
            },
            WILDCARD_SUBSCRIPTION_AVAILABLE => {
                Property::WildcardSubscriptionAvailable(flag(reader)?)
            }
            SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                Property::SubscriptionIdentifierAvailable(flag(reader)?)
            }
            SHARED_SUBSCRIPTION_AVAILABLE => Property::SharedSubscriptionAvailable(flag(reader)?),
            _ => return Err(UNKNOWN_PROPERTY),
        })
    }

    /// Appends the property, identifier first.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.push(self.identifier());
        match self {
            Property::PayloadFormatIndicator(value) => out.push(value),
            Property::MaximumQoS(qos) => out.push(qos.as_u8()),
            Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => out.push(u8::from(value)),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => writer::u16(out, value),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => writer::u32(out, value),
            Property::SubscriptionIdentifier(value) => writer::variable(out, value as usize),
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => {
                writer::binary(out, bytes)
            }
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => writer::string(out, text),
            Property::UserProperty(name, value) => {
                writer::string(out, name);
                writer::string(out, value);
            }
        }
    }

    /// The number of the property in the specification.
    pub const fn identifier(self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => PAYLOAD_FORMAT_INDICATOR,
            Property::MessageExpiryInterval(_) => MESSAGE_EXPIRY_INTERVAL,
            Property::ContentType(_) => CONTENT_TYPE,
            Property::ResponseTopic(_) => RESPONSE_TOPIC,
            Property::CorrelationData(_) => CORRELATION_DATA,
            Property::SubscriptionIdentifier(_) => SUBSCRIPTION_IDENTIFIER,
            Property::SessionExpiryInterval(_) => SESSION_EXPIRY_INTERVAL,
            Property::AssignedClientIdentifier(_) => ASSIGNED_CLIENT_IDENTIFIER,
            Property::ServerKeepAlive(_) => SERVER_KEEP_ALIVE,
            Property::AuthenticationMethod(_) => AUTHENTICATION_METHOD,
            Property::AuthenticationData(_) => AUTHENTICATION_DATA,
            Property::RequestProblemInformation(_) => REQUEST_PROBLEM_INFORMATION,
            Property::WillDelayInterval(_) => WILL_DELAY_INTERVAL,
            Property::RequestResponseInformation(_) => REQUEST_RESPONSE_INFORMATION,
            Property::ResponseInformation(_) => RESPONSE_INFORMATION,
            Property::ServerReference(_) => SERVER_REFERENCE,
            Property::ReasonString(_) => REASON_STRING,
            Property::ReceiveMaximum(_) => RECEIVE_MAXIMUM,
            Property::TopicAliasMaximum(_) => TOPIC_ALIAS_MAXIMUM,
            Property::TopicAlias(_) => TOPIC_ALIAS,
            Property::MaximumQoS(_) => MAXIMUM_QOS,
            Property::RetainAvailable(_) => RETAIN_AVAILABLE,
            Property::UserProperty(..) => USER_PROPERTY,
            Property::MaximumPacketSize(_) => MAXIMUM_PACKET_SIZE,
            Property::WildcardSubscriptionAvailable(_) => WILDCARD_SUBSCRIPTION_AVAILABLE,
            Property::SubscriptionIdentifierAvailable(_) => SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            Property::SharedSubscriptionAvailable(_) => SHARED_SUBSCRIPTION_AVAILABLE,
        }
    }
}

/// A byte that must be 0 or 1.
fn flag(reader: &mut Reader<'_>) -> Result<bool, ProtocolError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(NOT_A_FLAG),
    }
}

impl std::fmt::Debug for Property<'_> {
    /// Authentication Data is a secret and stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        macro_rules! show {
            ($($name:ident)*) => {
                match self {
                    $(Property::$name(value) => {
                        f.debug_tuple(stringify!($name)).field(value).finish()
                    })*
                    Property::UserProperty(name, value) => {
                        f.debug_tuple("UserProperty").field(name).field(value).finish()
                    }
                    Property::AuthenticationData(bytes) => {
                        write!(f, "AuthenticationData({} bytes)", bytes.len())
                    }
                }
            };
        }
        show!(PayloadFormatIndicator MessageExpiryInterval ContentType ResponseTopic
            CorrelationData SubscriptionIdentifier SessionExpiryInterval AssignedClientIdentifier
            ServerKeepAlive AuthenticationMethod RequestProblemInformation WillDelayInterval
            RequestResponseInformation ResponseInformation ServerReference ReasonString
            ReceiveMaximum TopicAliasMaximum TopicAlias MaximumQoS RetainAvailable
            MaximumPacketSize WildcardSubscriptionAvailable SubscriptionIdentifierAvailable
            SharedSubscriptionAvailable)
    }
}
