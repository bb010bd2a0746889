//! Topic aliases that a client set in its PUBLISH packets.

use std::sync::Arc;

use tidings_protocol::mqtt::{ProtocolError, ReasonCode};

const ALIAS_TOO_HIGH: ProtocolError = ProtocolError::new(
    ReasonCode::TopicAliasInvalid,
    "[MQTT-3.2.2-17]",
    "the Topic Alias is higher than the Topic Alias Maximum that CONNACK named",
);
const ALIAS_UNKNOWN: ProtocolError = ProtocolError::new(
    ReasonCode::ProtocolError,
    "[MQTT5 §3.3.2.3.4]",
    "the Topic Alias was not set on this connection",
);

/// The aliases of one connection; they end with it [MQTT-3.3.2-7].
#[derive(Default)]
pub struct Aliases {
    topics: Vec<Option<Arc<str>>>,
}

impl Aliases {
    /// The topic of a PUBLISH with an alias: set by it, or set before.
    pub fn resolve(
        &mut self,
        alias: u16,
        topic: &str,
        maximum: u16,
    ) -> Result<Arc<str>, ProtocolError> {
        if alias > maximum {
            return Err(ALIAS_TOO_HIGH);
        }
        let at = usize::from(alias);
        if topic.is_empty() {
            return self
                .topics
                .get(at)
                .and_then(|known| known.as_ref().map(Arc::clone))
                .ok_or(ALIAS_UNKNOWN);
        }
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        let known = &mut self.topics[at];
        match known {
            Some(known) if **known == *topic => Ok(Arc::clone(known)),
            _ => {
                let topic: Arc<str> = topic.into();
                *known = Some(Arc::clone(&topic));
                Ok(topic)
            }
        }
    }
}
