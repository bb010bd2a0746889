//! Will Messages: what a session has published for it when its connection ends badly.

use std::sync::Arc;

use tidings_protocol::mqtt::{self, Properties, PropertiesBuilder, Property, QoS};

use super::clock::Millis;
use super::message::{Message, MessageParts};
use crate::store;

/// A will, from CONNECT until it is published or cancelled.
#[derive(Debug, Clone)]
pub struct Will {
    /// Its message; the Message Expiry Interval starts when it is published.
    pub message: Arc<Message>,
    /// Its properties as published, the Message Expiry Interval among them.
    properties: Box<[u8]>,
    /// Will Delay Interval in seconds [MQTT-3.1.3-9].
    pub delay_secs: u32,
}

impl Will {
    /// The will that a CONNECT carries.
    pub fn new(will: &mqtt::Will<'_>, publisher: u64, now: Millis) -> Will {
        let mut message = Message::new(
            &MessageParts {
                topic: will.topic,
                properties: will.properties,
                payload: will.payload,
                shared_payload: None,
                qos: will.qos,
                retain: will.retain,
                publisher,
                held_from_all: false,
                bell: None,
            },
            now,
        );
        message.expires_at = None;
        let mut properties = PropertiesBuilder::new();
        for property in will.properties.iter() {
            if !matches!(property, Property::WillDelayInterval(_)) {
                properties.push(property);
            }
        }
        Will {
            message: Arc::new(message),
            properties: properties.as_properties().as_bytes().into(),
            delay_secs: will.properties.will_delay_interval().unwrap_or(0),
        }
    }

    /// The will that was kept.
    pub fn from_stored(stored: &store::Will, publisher: u64) -> Will {
        let properties = Properties::from_stored(&stored.properties);
        let mut message = Message::new(
            &MessageParts {
                topic: &stored.topic,
                properties,
                payload: &stored.payload,
                shared_payload: None,
                qos: QoS::from_u8(stored.qos).unwrap_or(QoS::ExactlyOnce),
                retain: stored.retain,
                publisher,
                held_from_all: false,
                bell: None,
            },
            Millis(0),
        );
        message.expires_at = None;
        Will {
            message: Arc::new(message),
            properties: stored.properties.clone(),
            delay_secs: stored.delay_secs,
        }
    }

    /// The properties to publish it with.
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_stored(&self.properties)
    }
}
