//! MQTT packets as owned values, and their bytes. Written from the standards and independent of the product's codec.
//!
//! Encoding does not judge: a scenario may build what is forbidden. Reading is strict, because what it reads was sent
//! by the broker under test.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl Version {
    pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

    fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }
}

/// A reason code of MQTT 5, or a return code of MQTT 3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($name:ident = $value:literal,)*) => {
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

    fn read(input: &mut Input<'_>) -> Result<Property, String> {
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

/// Bytes under construction, for whole packets and for the broken ones of `malformed.rs`.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Bytes {
        Bytes::default()
    }

    pub fn u8(&mut self, value: u8) -> &mut Bytes {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Bytes {
        self.raw(&value.to_be_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Bytes {
        self.raw(&value.to_be_bytes())
    }

    pub fn varint(&mut self, mut value: usize) -> &mut Bytes {
        loop {
            let digit = (value % 128) as u8;
            value /= 128;
            self.0.push(if value > 0 { digit | 0x80 } else { digit });
            if value == 0 {
                return self;
            }
        }
    }

    pub fn string(&mut self, value: &str) -> &mut Bytes {
        self.binary(value.as_bytes())
    }

    pub fn binary(&mut self, value: &[u8]) -> &mut Bytes {
        let length = u16::try_from(value.len()).expect("a string of at most 65,535 bytes");
        self.u16(length).raw(value)
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Bytes {
        self.0.extend_from_slice(value);
        self
    }

    pub fn properties(&mut self, properties: &[Property]) -> &mut Bytes {
        let mut section = Bytes::new();
        properties
            .iter()
            .for_each(|property| property.put(&mut section));
        self.varint(section.0.len()).raw(&section.0)
    }

    /// The packet with these bytes behind its fixed header.
    pub fn packet(&self, first_byte: u8) -> Vec<u8> {
        let mut packet = Bytes::new();
        packet.u8(first_byte).varint(self.0.len()).raw(&self.0);
        packet.0
    }
}

struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        if self.bytes.len() < length {
            return Err(format!(
                "{length} bytes expected, {} left",
                self.bytes.len()
            ));
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(
            self.take(2)?.try_into().expect("two bytes"),
        ))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(
            self.take(4)?.try_into().expect("four bytes"),
        ))
    }

    fn varint(&mut self) -> Result<usize, String> {
        let mut value = 0;
        for position in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return if position > 0 && byte == 0 {
                    Err("a length not minimally encoded".into())
                } else {
                    Ok(value)
                };
            }
        }
        Err("a length of more than four bytes".into())
    }

    fn binary(&mut self) -> Result<Vec<u8>, String> {
        let length = self.u16()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }

    fn string(&mut self) -> Result<String, String> {
        let text =
            String::from_utf8(self.binary()?).map_err(|error| format!("invalid UTF-8: {error}"))?;
        if text.contains('\0') {
            Err(format!("U+0000 in {text:?}"))
        } else {
            Ok(text)
        }
    }

    fn properties(&mut self) -> Result<Vec<Property>, String> {
        let length = self.varint()?;
        let mut section = Input {
            bytes: self.take(length)?,
        };
        let mut properties = Vec::new();
        while !section.bytes.is_empty() {
            properties.push(Property::read(&mut section)?);
        }
        Ok(properties)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).to_vec()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<Property>,
}

impl Will {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Will {
        Will {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            properties: Vec::new(),
        }
    }

    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }

    pub fn property(mut self, property: Property) -> Will {
        self.properties.push(property);
        self
    }

    pub fn delay(self, seconds: u32) -> Will {
        self.property(Property::WillDelayInterval(seconds))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    pub version: Version,
    pub clean_start: bool,
    pub keep_alive_secs: u16,
    pub client_id: String,
    pub will: Option<Will>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub properties: Vec<Property>,
}

impl Connect {
    /// A clean session that ends with its connection.
    pub fn new(version: Version, client_id: &str) -> Connect {
        Connect {
            version,
            clean_start: true,
            keep_alive_secs: 300,
            client_id: client_id.to_owned(),
            will: None,
            username: None,
            password: None,
            properties: Vec::new(),
        }
    }

    pub fn v5(client_id: &str) -> Connect {
        Connect::new(Version::V5, client_id)
    }

    pub fn v311(client_id: &str) -> Connect {
        Connect::new(Version::V311, client_id)
    }

    pub fn v31(client_id: &str) -> Connect {
        Connect::new(Version::V31, client_id)
    }

    /// Asks for the existing session, and one that outlives the connection: by an hour in version 5.
    pub fn persistent(self) -> Connect {
        let connect = self.resume();
        if connect.version == Version::V5 {
            connect.session_expiry(3600)
        } else {
            connect
        }
    }

    /// Clean Start (clean session) 0.
    pub fn resume(mut self) -> Connect {
        self.clean_start = false;
        self
    }

    pub fn clean_start(mut self) -> Connect {
        self.clean_start = true;
        self
    }

    pub fn session_expiry(mut self, seconds: u32) -> Connect {
        self.properties
            .retain(|property| !matches!(property, Property::SessionExpiryInterval(_)));
        self.property(Property::SessionExpiryInterval(seconds))
    }

    pub fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive_secs = seconds;
        self
    }

    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    pub fn username(mut self, username: &str) -> Connect {
        self.username = Some(username.to_owned());
        self
    }

    pub fn password(mut self, password: impl AsRef<[u8]>) -> Connect {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    pub fn property(mut self, property: Property) -> Connect {
        self.properties.push(property);
        self
    }

    /// The variable header and payload, for a scenario that breaks them before it sends them.
    pub fn body(&self) -> Bytes {
        let (name, level) = self.version.name_and_level();
        let will_flags = self
            .will
            .as_ref()
            .map_or(0, |will| 0x04 | will.qos << 3 | u8::from(will.retain) << 5);
        let flags = u8::from(self.clean_start) << 1
            | will_flags
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7;
        let mut out = Bytes::new();
        out.string(name)
            .u8(level)
            .u8(flags)
            .u16(self.keep_alive_secs);
        if self.version == Version::V5 {
            out.properties(&self.properties);
        }
        out.string(&self.client_id);
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                out.properties(&will.properties);
            }
            out.string(&will.topic).binary(&will.payload);
        }
        if let Some(username) = &self.username {
            out.string(username);
        }
        if let Some(password) = &self.password {
            out.binary(password);
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.body().packet(0x10)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    pub session_present: bool,
    pub reason: Reason,
    pub properties: Vec<Property>,
}

#[derive(Clone, PartialEq)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub payload: Vec<u8>,
}

impl Publish {
    /// QoS 0, not retained. [`Client::publish`](super::Client::publish) chooses the packet identifier if it is 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        Publish {
            dup: false,
            qos: 0,
            retain: false,
            topic: topic.to_owned(),
            packet_id: 0,
            properties: Vec::new(),
            payload: payload.as_ref().to_vec(),
        }
    }

    pub fn qos(mut self, qos: u8) -> Publish {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    pub fn id(mut self, packet_id: u16) -> Publish {
        self.packet_id = packet_id;
        self
    }

    pub fn property(mut self, property: Property) -> Publish {
        self.properties.push(property);
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of text")
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publish {{ {:?} qos {}", self.topic, self.qos)?;
        if self.qos > 0 {
            write!(f, " id {}", self.packet_id)?;
        }
        if self.dup {
            write!(f, " dup")?;
        }
        if self.retain {
            write!(f, " retain")?;
        }
        if !self.properties.is_empty() {
            write!(f, " {:?}", self.properties)?;
        }
        match std::str::from_utf8(&self.payload) {
            Ok(text) if text.len() <= 80 => write!(f, " {text:?} }}"),
            _ => write!(f, " {} bytes }}", self.payload.len()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    pub packet_id: u16,
    pub reason: Reason,
    pub properties: Vec<Property>,
}

impl Ack {
    pub fn new(packet_id: u16) -> Ack {
        Ack {
            packet_id,
            reason: Reason::SUCCESS,
            properties: Vec::new(),
        }
    }

    pub fn reason(mut self, reason: Reason) -> Ack {
        self.reason = reason;
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub filter: String,
    pub options: u8,
}

impl Subscription {
    pub fn new(filter: &str, qos: u8) -> Subscription {
        Subscription {
            filter: filter.to_owned(),
            options: qos,
        }
    }

    pub fn no_local(mut self) -> Subscription {
        self.options |= 0x04;
        self
    }

    pub fn retain_as_published(mut self) -> Subscription {
        self.options |= 0x08;
        self
    }

    pub fn retain_handling(mut self, handling: u8) -> Subscription {
        self.options |= handling << 4;
        self
    }
}

impl From<(&str, u8)> for Subscription {
    fn from((filter, qos): (&str, u8)) -> Subscription {
        Subscription::new(filter, qos)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub subscriptions: Vec<Subscription>,
}

impl Subscribe {
    pub fn new<S: Into<Subscription>>(subscriptions: impl IntoIterator<Item = S>) -> Subscribe {
        Subscribe {
            packet_id: 0,
            properties: Vec::new(),
            subscriptions: subscriptions.into_iter().map(Into::into).collect(),
        }
    }

    pub fn identifier(self, identifier: u32) -> Subscribe {
        self.property(Property::SubscriptionIdentifier(identifier))
    }

    pub fn property(mut self, property: Property) -> Subscribe {
        self.properties.push(property);
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct SubAck {
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub filters: Vec<String>,
}

impl Unsubscribe {
    pub fn new(filters: &[&str]) -> Unsubscribe {
        Unsubscribe {
            packet_id: 0,
            properties: Vec::new(),
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck {
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect {
    pub reason: Reason,
    pub properties: Vec<Property>,
}

impl Disconnect {
    pub fn new(reason: Reason) -> Disconnect {
        Disconnect {
            reason,
            properties: Vec::new(),
        }
    }

    pub fn property(mut self, property: Property) -> Disconnect {
        self.properties.push(property);
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    pub reason: Reason,
    pub properties: Vec<Property>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    Connect(Connect),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

macro_rules! into_packet {
    ($($name:ident),*) => { $(impl From<$name> for Packet {
        fn from(packet: $name) -> Packet { Packet::$name(packet) }
    })* };
}
into_packet!(
    Connect,
    ConnAck,
    Publish,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth
);

impl Packet {
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let v5 = version == Version::V5;
        let mut out = Bytes::new();
        let first_byte = match self {
            Packet::Connect(connect) => return connect.bytes(),
            Packet::ConnAck(ack) => {
                out.u8(u8::from(ack.session_present)).u8(ack.reason.0);
                if v5 {
                    out.properties(&ack.properties);
                }
                0x20
            }
            Packet::Publish(publish) => {
                out.string(&publish.topic);
                if publish.qos > 0 {
                    out.u16(publish.packet_id);
                }
                if v5 {
                    out.properties(&publish.properties);
                }
                out.raw(&publish.payload);
                0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                out.u16(ack.packet_id);
                if v5 && (ack.reason != Reason::SUCCESS || !ack.properties.is_empty()) {
                    out.u8(ack.reason.0);
                    if !ack.properties.is_empty() {
                        out.properties(&ack.properties);
                    }
                }
                match self {
                    Packet::PubAck(_) => 0x40,
                    Packet::PubRec(_) => 0x50,
                    Packet::PubRel(_) => 0x62,
                    _ => 0x70,
                }
            }
            Packet::Subscribe(subscribe) => {
                out.u16(subscribe.packet_id);
                if v5 {
                    out.properties(&subscribe.properties);
                }
                for subscription in &subscribe.subscriptions {
                    out.string(&subscription.filter).u8(subscription.options);
                }
                0x82
            }
            Packet::Unsubscribe(unsubscribe) => {
                out.u16(unsubscribe.packet_id);
                if v5 {
                    out.properties(&unsubscribe.properties);
                }
                for filter in &unsubscribe.filters {
                    out.string(filter);
                }
                0xa2
            }
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons,
            })
            | Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons,
            }) => {
                out.u16(*packet_id);
                if v5 {
                    out.properties(properties);
                }
                reasons.iter().for_each(|reason| {
                    out.u8(reason.0);
                });
                if matches!(self, Packet::SubAck(_)) {
                    0x90
                } else {
                    0xb0
                }
            }
            Packet::PingReq => 0xc0,
            Packet::PingResp => 0xd0,
            Packet::Disconnect(Disconnect { reason, properties })
            | Packet::Auth(Auth { reason, properties }) => {
                if v5 && (*reason != Reason::SUCCESS || !properties.is_empty()) {
                    out.u8(reason.0).properties(properties);
                }
                if matches!(self, Packet::Disconnect(_)) {
                    0xe0
                } else {
                    0xf0
                }
            }
        };
        out.packet(first_byte)
    }

    /// The first packet of `buffer` and its length, or `None` if more bytes are needed.
    pub fn read(version: Version, buffer: &[u8]) -> Result<Option<(Packet, usize)>, String> {
        let Some((&first_byte, after)) = buffer.split_first() else {
            return Ok(None);
        };
        let mut header = Input { bytes: after };
        let length = match header.varint() {
            Ok(length) => length,
            Err(_) if after.len() < 4 && after.iter().all(|byte| byte & 0x80 != 0) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if header.bytes.len() < length {
            return Ok(None);
        }
        let total = buffer.len() - header.bytes.len() + length;
        let mut body = Input {
            bytes: &header.bytes[..length],
        };
        let packet = Packet::read_body(version, first_byte, &mut body)?;
        if !body.bytes.is_empty() {
            return Err(format!(
                "{} bytes after the end of {packet:?}",
                body.bytes.len()
            ));
        }
        Ok(Some((packet, total)))
    }

    fn read_body(version: Version, first_byte: u8, body: &mut Input<'_>) -> Result<Packet, String> {
        let v5 = version == Version::V5;
        let flags = first_byte & 0x0f;
        let expected_flags = match first_byte >> 4 {
            3 => flags,
            6 => 2,
            _ => 0,
        };
        if flags != expected_flags {
            return Err(format!("reserved flags of first byte {first_byte:#04x}"));
        }
        let properties = |body: &mut Input<'_>| {
            if v5 {
                body.properties()
            } else {
                Ok(Vec::new())
            }
        };
        Ok(match first_byte >> 4 {
            2 => {
                let flags = body.u8()?;
                if flags > 1 {
                    return Err(format!("acknowledge flags {flags:#04x}"));
                }
                let reason = Reason(body.u8()?);
                Packet::ConnAck(ConnAck {
                    session_present: flags == 1,
                    reason,
                    properties: properties(body)?,
                })
            }
            3 => {
                let qos = flags >> 1 & 3;
                let dup = flags & 8 != 0;
                if qos == 3 || (qos == 0 && dup) {
                    return Err(format!("flags of PUBLISH {first_byte:#04x}"));
                }
                let topic = body.string()?;
                let packet_id = if qos > 0 { body.u16()? } else { 0 };
                if qos > 0 && packet_id == 0 {
                    return Err("packet identifier 0".into());
                }
                let properties = properties(body)?;
                Packet::Publish(Publish {
                    dup,
                    qos,
                    retain: flags & 1 != 0,
                    topic,
                    packet_id,
                    properties,
                    payload: body.rest(),
                })
            }
            kind @ 4..=7 => {
                let mut ack = Ack::new(body.u16()?);
                if v5 && !body.bytes.is_empty() {
                    ack.reason = Reason(body.u8()?);
                    if !body.bytes.is_empty() {
                        ack.properties = body.properties()?;
                    }
                }
                match kind {
                    4 => Packet::PubAck(ack),
                    5 => Packet::PubRec(ack),
                    6 => Packet::PubRel(ack),
                    _ => Packet::PubComp(ack),
                }
            }
            kind @ (9 | 11) => {
                let packet_id = body.u16()?;
                let properties = properties(body)?;
                let reasons = body.rest().into_iter().map(Reason).collect();
                match kind {
                    9 => Packet::SubAck(SubAck {
                        packet_id,
                        properties,
                        reasons,
                    }),
                    _ => Packet::UnsubAck(UnsubAck {
                        packet_id,
                        properties,
                        reasons,
                    }),
                }
            }
            13 => Packet::PingResp,
            kind @ (14 | 15) if v5 => {
                let mut reason = Reason::SUCCESS;
                let mut properties = Vec::new();
                if !body.bytes.is_empty() {
                    reason = Reason(body.u8()?);
                    if !body.bytes.is_empty() {
                        properties = body.properties()?;
                    }
                }
                if kind == 14 {
                    Packet::Disconnect(Disconnect { reason, properties })
                } else {
                    Packet::Auth(Auth { reason, properties })
                }
            }
            _ => return Err(format!("first byte {first_byte:#04x} from a server")),
        })
    }
}
