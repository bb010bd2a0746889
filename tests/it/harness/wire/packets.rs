//! What the packets carry, and how scenarios build them.

use std::fmt;

use super::{Bytes, Property, Reason, Version};

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

    /// Asks for the existing session, and one that outlives the connection: by an hour in version
    /// 5.
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
    /// QoS 0, not retained. [`Client::publish`](super::Client::publish) chooses the packet
    /// identifier if it is 0.
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
