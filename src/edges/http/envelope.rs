//! Publications as JSON: the envelope that a client sends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_protocol::mqtt::{PropertiesBuilder, Property, QoS};
use tidings_protocol::topic;

use super::Edge;
use super::problem::Problem;

/// A message that a client wants to publish.
pub(super) struct Outgoing {
    pub topic: String,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    pub properties: Properties,
}

/// The properties of a publication, as any way of saying them gives them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Properties {
    pub payload_format_indicator: Option<u8>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    /// In base64.
    pub correlation_data: Option<String>,
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    pub user_properties: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    topic: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    qos: Option<u8>,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    properties: Properties,
    /// What a received envelope has besides; nobody but the server says it.
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "time")]
    _time: Option<String>,
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::bad_request(
        "invalid-message",
        "Not a message that can be published",
        detail,
    )
}

/// What is wrong with a JSON text, with its place.
pub(super) fn json_problem(error: &serde_json::Error) -> Problem {
    Problem::bad_request(
        "invalid-json",
        "Not the JSON that is wanted here",
        error.to_string(),
    )
}

/// A QoS as a number.
pub(super) fn parse_qos(qos: u8) -> Result<QoS, Problem> {
    QoS::from_u8(qos).ok_or_else(|| invalid(format!("qos is {qos}; there are 0, 1 and 2")))
}

/// Reads one envelope. A payload that is no string is published as its JSON text.
pub(super) fn read(text: &str) -> Result<Outgoing, Problem> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|it| json_problem(&it))?;
    let mut properties = envelope.properties;
    let payload = match (envelope.payload, envelope.payload_base64) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "there is a payload and a payload_base64; send one of them",
            ));
        }
        (None, None) => Bytes::new(),
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(decoded) => Bytes::from(decoded),
            Err(error) => return Err(invalid(format!("payload_base64 is not base64: {error}"))),
        },
        (Some(raw), None) => {
            let raw = raw.get();
            if raw.starts_with('"') {
                let text: String = serde_json::from_str(raw).map_err(|it| json_problem(&it))?;
                Bytes::from(text)
            } else {
                if properties.content_type.is_none() {
                    properties.content_type = Some("application/json".to_owned());
                }
                Bytes::copy_from_slice(raw.as_bytes())
            }
        }
    };
    Ok(Outgoing {
        topic: envelope.topic,
        payload,
        qos: parse_qos(envelope.qos.unwrap_or(1))?,
        retain: envelope.retain,
        properties,
    })
}

impl Outgoing {
    /// The properties as MQTT has them.
    ///
    /// # Errors
    /// For what MQTT does not allow, or the configuration does not.
    pub(super) fn check(&self, edge: &Edge) -> Result<PropertiesBuilder, Problem> {
        let broker = &edge.broker;
        let limits = broker.topic_limits();
        let name = |what: &str, name: &str| {
            topic::name_is_valid(name, &limits)
                .map_err(|error| invalid(format!("{what} {name:?}: {}", error.as_str())))
        };
        name("topic", &self.topic)?;
        if self.qos.as_u8() > broker.mqtt().max_qos {
            let detail = format!("qos is at most {}: mqtt.max_qos", broker.mqtt().max_qos);
            return Err(invalid(detail));
        }
        if self.retain && !broker.mqtt().retain_available {
            return Err(invalid(
                "messages cannot be retained here: mqtt.retain_available",
            ));
        }
        let given = &self.properties;
        let mut built = PropertiesBuilder::new();
        if let Some(indicator) = given.payload_format_indicator {
            if indicator > 1 {
                return Err(invalid("payload_format_indicator is 0 or 1"));
            }
            if indicator == 1 && std::str::from_utf8(&self.payload).is_err() {
                return Err(invalid(
                    "payload_format_indicator is 1, and the payload is not UTF-8",
                ));
            }
            built.push(Property::PayloadFormatIndicator(indicator));
        }
        if let Some(seconds) = given.message_expiry_interval {
            built.push(Property::MessageExpiryInterval(seconds));
        }
        if let Some(content_type) = &given.content_type {
            built.push(Property::ContentType(utf8("content_type", content_type)?));
        }
        if let Some(response_topic) = &given.response_topic {
            name("response_topic", response_topic)?;
            built.push(Property::ResponseTopic(response_topic));
        }
        if let Some(encoded) = &given.correlation_data {
            let decoded = STANDARD
                .decode(encoded)
                .map_err(|error| invalid(format!("correlation_data is not base64: {error}")))?;
            if decoded.len() > usize::from(u16::MAX) {
                return Err(invalid("correlation_data has more than 65535 bytes"));
            }
            built.push(Property::CorrelationData(&decoded));
        }
        if given.user_properties.len() > broker.limits().user_properties_max {
            return Err(invalid(
                "there are more user properties than limits.user_properties_max",
            ));
        }
        for (name, value) in &given.user_properties {
            built.push(Property::UserProperty(
                utf8("a user property", name)?,
                utf8("a user property", value)?,
            ));
        }
        Ok(built)
    }
}

/// A string as MQTT can carry it [MQTT-1.5.4-2].
fn utf8<'t>(what: &str, text: &'t str) -> Result<&'t str, Problem> {
    if text.len() > usize::from(u16::MAX) {
        return Err(invalid(format!("{what} has more than 65535 bytes")));
    }
    if text.contains('\0') {
        return Err(invalid(format!(
            "{what} contains U+0000, which MQTT does not allow"
        )));
    }
    Ok(text)
}
