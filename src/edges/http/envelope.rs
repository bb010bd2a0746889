//! Publications as JSON: the envelope that a client sends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidings_protocol::mqtt::{PropertiesBuilder, Property, QoS};
use tidings_protocol::topic;

use super::Edge;
use super::problem::Problem;
use crate::broker::stats::Drop as Dropped;

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
    #[serde(borrow, default, deserialize_with = "given")]
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

/// Null is a value: whoever says it does not mean that there is none.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Why a message cannot be published.
pub(super) struct Unfit {
    pub problem: Problem,
    /// What it is counted as, if it is.
    pub counted: Option<Dropped>,
}

impl From<Problem> for Unfit {
    fn from(problem: Problem) -> Unfit {
        Unfit {
            problem,
            counted: None,
        }
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::bad_request(
        "invalid-message",
        "Not a message that can be published",
        detail,
    )
}

/// What is wrong with a JSON text, with its place in the body that it is a part of, or the whole.
pub(super) fn json_problem(error: &serde_json::Error, text: &str, body: &str) -> Problem {
    let at = text.as_ptr().addr().checked_sub(body.as_ptr().addr());
    let before = at.and_then(|at| body.get(..at)).unwrap_or("");
    let said = error.to_string();
    let detail = match said.rsplit_once(" at line ") {
        Some((what, _)) => {
            let line = before.matches('\n').count() + error.line();
            let mut column = error.column();
            if error.line() == 1 {
                column += before.len() - before.rfind('\n').map_or(0, |at| at + 1);
            }
            format!("{what} at line {line} column {column}")
        }
        None => said,
    };
    Problem::bad_request("invalid-json", "Not the JSON that is wanted here", detail)
}

/// A QoS as a number.
pub(super) fn parse_qos(qos: u8) -> Result<QoS, Problem> {
    QoS::from_u8(qos).ok_or_else(|| invalid(format!("qos is {qos}; there are 0, 1 and 2")))
}

/// Reads one envelope. A payload that is no string is published as its JSON text.
pub(super) fn read(text: &str) -> Result<Outgoing, Problem> {
    read_within(text, text)
}

/// Whether a JSON text is an object. What is read into fields would be taken from an array as well, by
/// their order, which is nobody's business.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads one envelope, which is a part of a body.
pub(super) fn read_within(body: &str, text: &str) -> Result<Outgoing, Problem> {
    if !is_object(text) && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Err(invalid(
            "a message is an object, such as {\"topic\":\"a/b\",\"payload\":\"hello\"}",
        ));
    }
    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(|it| json_problem(&it, text, body))?;
    let mut properties = envelope.properties;
    let payload = match (envelope.payload, envelope.payload_base64) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "there is a payload and a payload_base64; send one of them",
            ));
        }
        // Neither an omission nor null may clear a retained message.
        (None, None) => return Err(no_payload("there is no payload")),
        (Some(raw), None) if raw.get() == "null" => return Err(no_payload("payload is null")),
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(decoded) => Bytes::from(decoded),
            Err(error) => return Err(invalid(format!("payload_base64 is not base64: {error}"))),
        },
        (Some(raw), None) => {
            let raw = raw.get();
            if raw.starts_with('"') {
                let text: Result<String, _> = serde_json::from_str(raw);
                Bytes::from(text.map_err(|it| json_problem(&it, raw, body))?)
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

fn no_payload(what: &str) -> Problem {
    invalid(format!(
        "{what}: send \"payload\":\"\" for an empty one, which clears the retained message if retain is true"
    ))
}

impl Outgoing {
    /// The properties as MQTT has them.
    ///
    /// # Errors
    /// For what MQTT does not allow, or the configuration does not.
    pub(super) fn check(&self, edge: &Edge) -> Result<PropertiesBuilder, Unfit> {
        let broker = &edge.broker;
        let limits = broker.topic_limits();
        let name = |what: &str, name: &str| {
            topic::name_is_valid(name, &limits)
                .map_err(|error| invalid(format!("{what} {name:?}: {}", error.as_str())))
        };
        name("topic", &self.topic).map_err(|problem| Unfit {
            problem,
            counted: Some(Dropped::TopicInvalid),
        })?;
        if self.qos.as_u8() > broker.mqtt().max_qos {
            let detail = format!("qos is at most {}: mqtt.max_qos", broker.mqtt().max_qos);
            return Err(invalid(detail).into());
        }
        if self.retain && !broker.mqtt().retain_available {
            let detail = "messages cannot be retained here: mqtt.retain_available";
            return Err(invalid(detail).into());
        }
        let given = &self.properties;
        let mut built = PropertiesBuilder::new();
        if let Some(indicator) = given.payload_format_indicator {
            if indicator > 1 {
                return Err(invalid("payload_format_indicator is 0 or 1").into());
            }
            if indicator == 1 && std::str::from_utf8(&self.payload).is_err() {
                let detail = "payload_format_indicator is 1, and the payload is not UTF-8";
                return Err(Unfit {
                    problem: invalid(detail),
                    counted: Some(Dropped::PayloadFormat),
                });
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
                return Err(invalid("correlation_data has more than 65535 bytes").into());
            }
            built.push(Property::CorrelationData(&decoded));
        }
        if given.user_properties.len() > broker.limits().user_properties_max {
            let detail = "there are more user properties than limits.user_properties_max";
            return Err(invalid(detail).into());
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
