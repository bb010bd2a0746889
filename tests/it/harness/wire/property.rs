//! The properties of version 5.

use super::bytes::{Bytes, Input};

// The standard's names.
#[allow(clippy::enum_variant_names)]
#[derive(Clone, Debug, PartialEq)]
pub enum Property {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(String),
    ServerKeepAlive(u16),
    AuthenticationMethod(String),
    AuthenticationData(Vec<u8>),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(u8),
    RetainAvailable(u8),
    UserProperty(String, String),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

impl Property {
    pub fn user(name: &str, value: &str) -> Property {
        Property::UserProperty(name.to_owned(), value.to_owned())
    }

    pub fn put(&self, out: &mut Bytes) {
        use Property::*;
        match self {
            PayloadFormatIndicator(v) => out.u8(0x01).u8(*v),
            MessageExpiryInterval(v) => out.u8(0x02).u32(*v),
            ContentType(v) => out.u8(0x03).string(v),
            ResponseTopic(v) => out.u8(0x08).string(v),
            CorrelationData(v) => out.u8(0x09).binary(v),
            SubscriptionIdentifier(v) => out.u8(0x0b).varint(*v as usize),
            SessionExpiryInterval(v) => out.u8(0x11).u32(*v),
            AssignedClientIdentifier(v) => out.u8(0x12).string(v),
            ServerKeepAlive(v) => out.u8(0x13).u16(*v),
            AuthenticationMethod(v) => out.u8(0x15).string(v),
            AuthenticationData(v) => out.u8(0x16).binary(v),
            RequestProblemInformation(v) => out.u8(0x17).u8(*v),
            WillDelayInterval(v) => out.u8(0x18).u32(*v),
            RequestResponseInformation(v) => out.u8(0x19).u8(*v),
            ResponseInformation(v) => out.u8(0x1a).string(v),
            ServerReference(v) => out.u8(0x1c).string(v),
            ReasonString(v) => out.u8(0x1f).string(v),
            ReceiveMaximum(v) => out.u8(0x21).u16(*v),
            TopicAliasMaximum(v) => out.u8(0x22).u16(*v),
            TopicAlias(v) => out.u8(0x23).u16(*v),
            MaximumQoS(v) => out.u8(0x24).u8(*v),
            RetainAvailable(v) => out.u8(0x25).u8(*v),
            UserProperty(name, value) => out.u8(0x26).string(name).string(value),
            MaximumPacketSize(v) => out.u8(0x27).u32(*v),
            WildcardSubscriptionAvailable(v) => out.u8(0x28).u8(*v),
            SubscriptionIdentifierAvailable(v) => out.u8(0x29).u8(*v),
            SharedSubscriptionAvailable(v) => out.u8(0x2a).u8(*v),
        };
    }

    pub(super) fn read(input: &mut Input<'_>) -> Result<Property, String> {
        use Property::*;
        Ok(match input.u8()? {
            0x01 => PayloadFormatIndicator(input.u8()?),
            0x02 => MessageExpiryInterval(input.u32()?),
            0x03 => ContentType(input.string()?),
            0x08 => ResponseTopic(input.string()?),
            0x09 => CorrelationData(input.binary()?),
            0x0b => SubscriptionIdentifier(input.varint()? as u32),
            0x11 => SessionExpiryInterval(input.u32()?),
            0x12 => AssignedClientIdentifier(input.string()?),
            0x13 => ServerKeepAlive(input.u16()?),
            0x15 => AuthenticationMethod(input.string()?),
            0x16 => AuthenticationData(input.binary()?),
            0x17 => RequestProblemInformation(input.u8()?),
            0x18 => WillDelayInterval(input.u32()?),
            0x19 => RequestResponseInformation(input.u8()?),
            0x1a => ResponseInformation(input.string()?),
            0x1c => ServerReference(input.string()?),
            0x1f => ReasonString(input.string()?),
            0x21 => ReceiveMaximum(input.u16()?),
            0x22 => TopicAliasMaximum(input.u16()?),
            0x23 => TopicAlias(input.u16()?),
            0x24 => MaximumQoS(input.u8()?),
            0x25 => RetainAvailable(input.u8()?),
            0x26 => UserProperty(input.string()?, input.string()?),
            0x27 => MaximumPacketSize(input.u32()?),
            0x28 => WildcardSubscriptionAvailable(input.u8()?),
            0x29 => SubscriptionIdentifierAvailable(input.u8()?),
            0x2a => SharedSubscriptionAvailable(input.u8()?),
            unknown => return Err(format!("unknown property {unknown:#04x}")),
        })
    }
}
