//! A message as a JSON object: what SSE, WebSocket, long poll and webhooks show by default.

use super::{write_base64, write_integer, write_member, write_string};
use crate::mqtt::{Properties, QoS};

/// An Application Message with all that is told about it.
///
/// ```json
/// {"topic":"a/b","payload":"21.5","qos":1,"retain":false,
///  "properties":{"content_type":"text/plain","user_properties":[["unit","°C"]]},
///  "id":"7.1042","time":"2026-11-25T12:00:00.250Z"}
/// ```
///
/// - A payload that is UTF-8 is `payload`, a string; any other is `payload_base64`, in the standard
///   alphabet with padding. There is always exactly one of the two.
/// - `properties` holds the MQTT properties that belong to the message, and is left out when there
///   are none: `payload_format_indicator`, `content_type`, `response_topic`, `correlation_data`
///   (base64), `message_expiry_interval` (seconds) and `user_properties`. These are an array of
///   pairs, because their order counts and a name may occur more than once [MQTT-3.3.2-18]; an
///   object keeps neither.
/// - `id` and `time` are left out when they are not known.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The Topic Name.
    pub topic: &'a str,
    /// The payload, text or not.
    pub payload: &'a [u8],
    /// The QoS, written as a number.
    pub qos: QoS,
    /// Whether this is a Retained Message, or was published as one.
    pub retain: bool,
    /// The properties of the PUBLISH; those of the hop (Topic Alias, Subscription Identifier) are
    /// not shown.
    pub properties: Properties<'a>,
    /// The place in the log, as a client can give it back to resume.
    pub id: Option<&'a str>,
    /// When it was published, as RFC 3339.
    pub time: Option<&'a str>,
}

impl Envelope<'_> {
    /// Appends the object: one line, without a line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.topic.len() + self.payload.len() + 160);
        out.extend_from_slice(b"{\"topic\":");
        write_string(self.topic, out);
        match str::from_utf8(self.payload) {
            Ok(text) => {
                out.extend_from_slice(b",\"payload\":");
                write_string(text, out);
            }
            Err(_) => {
                out.extend_from_slice(b",\"payload_base64\":");
                write_base64(self.payload, out);
            }
        }
        out.extend_from_slice(b",\"qos\":");
        out.push(b'0' + self.qos.as_u8());
        out.extend_from_slice(if self.retain {
            b",\"retain\":true".as_slice()
        } else {
            b",\"retain\":false"
        });
        if !self.properties.is_empty() {
            write_properties(self.properties, out);
        }
        if let Some(id) = self.id {
            out.extend_from_slice(b",\"id\":");
            write_string(id, out);
        }
        if let Some(time) = self.time {
            out.extend_from_slice(b",\"time\":");
            write_string(time, out);
        }
        out.push(b'}');
    }
}

/// The member `properties`, unless none of them is shown.
fn write_properties(properties: Properties<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    out.extend_from_slice(b",\"properties\":{");
    let empty = out.len();
    if let Some(value) = properties.payload_format_indicator() {
        write_member("payload_format_indicator", out);
        write_integer(value.into(), out);
    }
    if let Some(text) = properties.content_type() {
        write_member("content_type", out);
        write_string(text, out);
    }
    if let Some(text) = properties.response_topic() {
        write_member("response_topic", out);
        write_string(text, out);
    }
    if let Some(bytes) = properties.correlation_data() {
        write_member("correlation_data", out);
        write_base64(bytes, out);
    }
    if let Some(secs) = properties.message_expiry_interval() {
        write_member("message_expiry_interval", out);
        write_integer(secs.into(), out);
    }
    if properties.user_properties().next().is_some() {
        write_member("user_properties", out);
        write_user_properties(properties, out);
    }
    if out.len() == empty {
        out.truncate(before);
    } else {
        out.push(b'}');
    }
}

/// `[["name","value"],…]`
pub(crate) fn write_user_properties(properties: Properties<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, (name, value)) in properties.user_properties().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        write_string(name, out);
        out.push(b',');
        write_string(value, out);
        out.push(b']');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{PropertiesBuilder, Property};

    fn written(envelope: &Envelope<'_>) -> String {
        let mut out = Vec::new();
        envelope.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    const PLAIN: Envelope<'static> = Envelope {
        topic: "a/\"b\"",
        payload: b"21.5\n",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::EMPTY,
        id: Some("7.1042"),
        time: Some("2026-11-25T12:00:00.250Z"),
    };

    #[test]
    fn text() {
        assert_eq!(
            written(&PLAIN),
            r#"{"topic":"a/\"b\"","payload":"21.5\n","qos":1,"retain":false,"id":"7.1042","time":"2026-11-25T12:00:00.250Z"}"#
        );
    }

    #[test]
    fn bytes_that_are_not_text_and_nothing_known() {
        let envelope = Envelope {
            topic: "a",
            payload: &[0xFF, 0xFE],
            retain: true,
            id: None,
            time: None,
            ..PLAIN
        };
        assert_eq!(
            written(&envelope),
            r#"{"topic":"a","payload_base64":"//4=","qos":1,"retain":true}"#
        );
    }

    #[test]
    fn properties_of_the_message_and_not_those_of_the_hop() {
        let mut builder = PropertiesBuilder::new();
        builder.push(Property::TopicAlias(3));
        builder.push(Property::SubscriptionIdentifier(9));
        let hop = Envelope {
            properties: builder.as_properties(),
            ..PLAIN
        };
        assert_eq!(written(&hop), written(&PLAIN));

        let mut builder = builder.clone();
        builder
            .push(Property::UserProperty("k", "1"))
            .push(Property::CorrelationData(&[0, 1]))
            .push(Property::MessageExpiryInterval(u32::MAX))
            .push(Property::UserProperty("k", "\u{1}"))
            .push(Property::ResponseTopic("r/t"))
            .push(Property::ContentType("text/plain"))
            .push(Property::PayloadFormatIndicator(1));
        let all = Envelope {
            properties: builder.as_properties(),
            ..PLAIN
        };
        assert!(written(&all).contains(
            r#","properties":{"payload_format_indicator":1,"content_type":"text/plain","response_topic":"r/t","correlation_data":"AAE=","message_expiry_interval":4294967295,"user_properties":[["k","1"],["k","\u0001"]]},"id""#
        ));
    }
}
