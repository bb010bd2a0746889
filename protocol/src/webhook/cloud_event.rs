//! CloudEvents 1.0: the JSON Event Format and the HTTP Protocol Binding.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::json::{write_base64, write_integer, write_member, write_string, write_user_properties};
use crate::mqtt::{Properties, QoS};

/// The media type of a body in structured mode: one event.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// The media type of a body in batched mode: an array of events.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";

/// An Application Message as a CloudEvent.
///
/// | attribute | value |
/// |---|---|
/// | `specversion` | `1.0` |
/// | `id`, `source`, `type`, `time` | the fields of the same name; `time` is left out if unknown |
/// | `subject` | the Topic Name |
/// | `datacontenttype` | the MQTT Content Type if it is a media type, else `text/plain; charset=utf-8` for a payload that is UTF-8 and `application/octet-stream` for another |
/// | `mqttqos` | Integer: the QoS |
/// | `mqttretain` | Boolean: retained, or published as such |
/// | `mqttpayloadformat` | Integer: the Payload Format Indicator |
/// | `mqttcontenttype` | String: the Content Type, when it is no media type |
/// | `mqttresponsetopic` | String: the Response Topic |
/// | `mqttcorrelationdata` | Binary: the Correlation Data, in base64 |
/// | `mqttexpiryinterval` | Integer: the Message Expiry Interval in seconds, at most 2,147,483,647, as that is what a CloudEvents Integer holds |
/// | `mqttuserproperties` | String: the User Properties as JSON, `[["name","value"],…]`; CloudEvents has no lists, and names of attributes are lower-case letters and digits, which those of User Properties need not be |
///
/// and the [`extensions`](CloudEvent::extensions). What MQTT did not say is left out. Control
/// characters, which MQTT allows in a Topic Name and CloudEvents in no attribute, are passed on,
/// escaped.
#[derive(Clone, Copy, Debug)]
pub struct CloudEvent<'a> {
    /// The stable identifier of the message, the same as its `webhook-id`.
    pub id: &'a str,
    /// Who speaks: a URI reference, such as `/tidings`.
    pub source: &'a str,
    /// The kind of event, such as `tidings.message`.
    pub kind: &'a str,
    /// The Topic Name.
    pub topic: &'a str,
    /// When it was published, as RFC 3339.
    pub time: Option<&'a str>,
    /// The payload, text or not.
    pub payload: &'a [u8],
    /// The QoS.
    pub qos: QoS,
    /// Whether this is a Retained Message, or was published as one.
    pub retain: bool,
    /// The properties of the PUBLISH.
    pub properties: Properties<'a>,
    /// More attributes, for instance `traceparent`.
    pub extensions: &'a [Extension<'a>],
    /// What a payload becomes that its publisher declared to be JSON (`application/json` or a type
    /// that ends with `+json`), in structured and batched mode.
    ///
    /// True: a JSON value, as the JSON Event Format asks for (§3.1.1), or `data_base64` if it is
    /// none. False: a string, like any other text, so that its bytes are exactly those that were
    /// published; a library for CloudEvents then sees a JSON string.
    pub json_as_value: bool,
}

/// An extension attribute of the type String.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extension<'a> {
    name: &'a str,
    value: &'a str,
}

/// Why an extension attribute cannot be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExtensionError {
    /// Not 1 to 20 lower-case letters and digits of ASCII.
    Name,
    /// A name that the event has anyway.
    NameTaken,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExtensionError::Name => {
                "the name of an attribute must be 1 to 20 letters a to z and digits"
            }
            ExtensionError::NameTaken => {
                "the name is that of an attribute which every event has, or begins with mqtt"
            }
        })
    }
}

impl std::error::Error for ExtensionError {}

impl<'a> Extension<'a> {
    /// An attribute that none of the event's own has the name of. Names that begin with `mqtt` are
    /// the event's.
    pub fn new(name: &'a str, value: &'a str) -> Result<Extension<'a>, ExtensionError> {
        const OWN: [&str; 10] = [
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "datacontenttype",
            "dataschema",
            "data",
            "database64",
        ];
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=20).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(ExtensionError::Name);
        }
        if OWN.contains(&name) || name.starts_with("mqtt") {
            return Err(ExtensionError::NameTaken);
        }
        Ok(Extension { name, value })
    }
}

/// The value of an attribute, by its type (CloudEvents §3.1).
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    Integer(u32),
    Boolean(bool),
    Binary(&'a [u8]),
    /// Written as text: `[["name","value"],…]`.
    UserProperties(Properties<'a>),
}

impl<'a> CloudEvent<'a> {
    /// Appends the event as a JSON object: the body of structured mode. One line, unless the
    /// payload is a JSON value of several.
    pub fn write_structured(&self, out: &mut Vec<u8>) {
        out.reserve(self.topic.len() + self.payload.len() + 320);
        out.push(b'{');
        self.for_each_attribute(|name, value| {
            write_member(name, out);
            match value {
                Value::Text(text) => write_string(text, out),
                Value::Integer(number) => write_integer(number.into(), out),
                Value::Boolean(true) => out.extend_from_slice(b"true"),
                Value::Boolean(false) => out.extend_from_slice(b"false"),
                Value::Binary(bytes) => write_base64(bytes, out),
                Value::UserProperties(_) => write_string(&value.to_text(), out),
            }
        });
        write_member("datacontenttype", out);
        write_string(self.content_type(), out);
        self.write_data(out);
        out.push(b'}');
    }

    /// Calls `add` with the name and value of each header of binary mode, `content-type` first; the
    /// body is the payload as it is.
    ///
    /// Whatever a publisher wrote, a value holds printable ASCII alone: attributes are
    /// percent-encoded (HTTP Protocol Binding §3.1.3.2), and a Content Type becomes a header only
    /// if it is a media type. A header may be three times as long as the topic or property.
    pub fn binary_headers(&self, mut add: impl FnMut(&str, &str)) {
        add("content-type", self.content_type());
        let (mut header, mut encoded) = (String::new(), String::new());
        self.for_each_attribute(|name, value| {
            header.clear();
            header.push_str("ce-");
            header.push_str(name);
            encoded.clear();
            percent_encode(&value.to_text(), &mut encoded);
            add(&header, &encoded);
        });
    }

    /// The value of `datacontenttype`, which is `content-type` in binary mode.
    pub fn content_type(&self) -> &'a str {
        match self.properties.content_type() {
            Some(declared) if is_media_type(declared) => declared,
            _ if str::from_utf8(self.payload).is_ok() => TEXT,
            _ => BINARY,
        }
    }

    /// All attributes except `datacontenttype`, which binary mode writes as another header.
    fn for_each_attribute(&self, mut each: impl FnMut(&str, Value<'a>)) {
        each("specversion", Value::Text("1.0"));
        each("id", Value::Text(self.id));
        each("source", Value::Text(self.source));
        each("type", Value::Text(self.kind));
        each("subject", Value::Text(self.topic));
        if let Some(time) = self.time {
            each("time", Value::Text(time));
        }
        each("mqttqos", Value::Integer(self.qos.as_u8().into()));
        each("mqttretain", Value::Boolean(self.retain));
        let properties = self.properties;
        if let Some(format) = properties.payload_format_indicator() {
            each("mqttpayloadformat", Value::Integer(format.into()));
        }
        if let Some(declared) = properties.content_type().filter(|it| !is_media_type(it)) {
            each("mqttcontenttype", Value::Text(declared));
        }
        if let Some(topic) = properties.response_topic() {
            each("mqttresponsetopic", Value::Text(topic));
        }
        if let Some(bytes) = properties.correlation_data() {
            each("mqttcorrelationdata", Value::Binary(bytes));
        }
        if let Some(secs) = properties.message_expiry_interval() {
            let secs = secs.min(i32::MAX as u32);
            each("mqttexpiryinterval", Value::Integer(secs));
        }
        if properties.user_properties().next().is_some() {
            each("mqttuserproperties", Value::UserProperties(properties));
        }
        for extension in self.extensions {
            each(extension.name, Value::Text(extension.value));
        }
    }

    /// The member `data` or `data_base64`.
    fn write_data(&self, out: &mut Vec<u8>) {
        let is_value = self.json_as_value && is_json(self.content_type());
        match str::from_utf8(self.payload) {
            Ok(text) if is_value && is_json_text(text) => {
                write_member("data", out);
                out.extend_from_slice(self.payload);
            }
            Ok(text) if !is_value => {
                write_member("data", out);
                write_string(text, out);
            }
            _ => {
                write_member("data_base64", out);
                write_base64(self.payload, out);
            }
        }
    }
}

impl<'a> Value<'a> {
    /// The canonical string representation (CloudEvents §3.1).
    fn to_text(self) -> Cow<'a, str> {
        match self {
            Value::Text(text) => text.into(),
            Value::Integer(number) => number.to_string().into(),
            Value::Boolean(value) => value.to_string().into(),
            Value::Binary(bytes) => BASE64.encode(bytes).into(),
            Value::UserProperties(properties) => {
                let mut json = Vec::new();
                write_user_properties(properties, &mut json);
                String::from_utf8(json).unwrap_or_default().into()
            }
        }
    }
}

/// Appends events as a JSON array: the body of batched mode.
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a CloudEvent<'a>>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, event) in events.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        event.write_structured(out);
    }
    out.push(b']');
}

/// Space, `"`, `%` and all outside of U+0021 to U+007E, in upper case (HTTP Protocol Binding
/// §3.1.3.2).
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | 0..=b' ' | 0x7F.. => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push(byte.into()),
        }
    }
}

/// `type/subtype` of token characters (RFC 9110 §8.3.1), then nothing, or `;` and printable ASCII:
/// enough to be sure that a header stays one header.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    essence
        .trim_end_matches(' ')
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parameters.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a media type declares JSON: `*/json` or `*/*+json` (JSON Event Format §3.1.1).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim_end();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    suffix.eq_ignore_ascii_case("json")
}

/// Whether a text is one JSON value, nested at most 128 deep.
fn is_json_text(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::mqtt::{PropertiesBuilder, Property};

    const EVENT: CloudEvent<'static> = CloudEvent {
        id: "msg_7-1042",
        source: "/tidings",
        kind: "tidings.message",
        topic: "a/b",
        time: Some("2026-11-25T12:00:00.250Z"),
        payload: b"21.5\n",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::EMPTY,
        extensions: &[],
        json_as_value: true,
    };

    fn structured(event: &CloudEvent<'_>) -> Json {
        let mut out = Vec::new();
        event.write_structured(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn headers(event: &CloudEvent<'_>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        event.binary_headers(|name, value| headers.push((name.to_owned(), value.to_owned())));
        headers
    }

    fn with_type<'a>(
        builder: &'a mut PropertiesBuilder,
        content_type: &str,
        payload: &'a [u8],
    ) -> CloudEvent<'a> {
        builder.clear();
        builder.push(Property::ContentType(content_type));
        CloudEvent {
            properties: builder.as_properties(),
            payload,
            ..EVENT
        }
    }

    #[test]
    fn text_in_structured_mode() {
        let mut out = Vec::new();
        EVENT.write_structured(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"specversion":"1.0","id":"msg_7-1042","source":"/tidings","type":"tidings.message","subject":"a/b","time":"2026-11-25T12:00:00.250Z","mqttqos":1,"mqttretain":false,"datacontenttype":"text/plain; charset=utf-8","data":"21.5\n"}"#
        );
    }

    #[test]
    fn every_property_has_its_attribute() {
        let mut builder = PropertiesBuilder::new();
        builder
            .push(Property::PayloadFormatIndicator(0))
            .push(Property::ContentType("no media type"))
            .push(Property::ResponseTopic("r/ü"))
            .push(Property::CorrelationData(&[0xFF]))
            .push(Property::MessageExpiryInterval(u32::MAX))
            .push(Property::UserProperty("K", "1"))
            .push(Property::UserProperty("K", "\"2"));
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = CloudEvent {
            payload: &[0xFF, 0xFE],
            time: None,
            retain: true,
            properties: builder.as_properties(),
            extensions: &[Extension::new("traceparent", traceparent).unwrap()],
            ..EVENT
        };
        assert_eq!(
            structured(&event),
            json!({
                "specversion": "1.0",
                "id": "msg_7-1042",
                "source": "/tidings",
                "type": "tidings.message",
                "subject": "a/b",
                "datacontenttype": "application/octet-stream",
                "data_base64": "//4=",
                "mqttqos": 1,
                "mqttretain": true,
                "mqttpayloadformat": 0,
                "mqttcontenttype": "no media type",
                "mqttresponsetopic": "r/ü",
                "mqttcorrelationdata": "/w==",
                "mqttexpiryinterval": 2_147_483_647,
                "mqttuserproperties": r#"[["K","1"],["K","\"2"]]"#,
                "traceparent": traceparent,
            })
        );
        let expected = [
            ("content-type", "application/octet-stream"),
            ("ce-specversion", "1.0"),
            ("ce-id", "msg_7-1042"),
            ("ce-source", "/tidings"),
            ("ce-type", "tidings.message"),
            ("ce-subject", "a/b"),
            ("ce-mqttqos", "1"),
            ("ce-mqttretain", "true"),
            ("ce-mqttpayloadformat", "0"),
            ("ce-mqttcontenttype", "no%20media%20type"),
            ("ce-mqttresponsetopic", "r/%C3%BC"),
            ("ce-mqttcorrelationdata", "/w=="),
            ("ce-mqttexpiryinterval", "2147483647"),
            (
                "ce-mqttuserproperties",
                "[[%22K%22,%221%22],[%22K%22,%22\\%222%22]]",
            ),
            ("ce-traceparent", traceparent),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&event), expected);
    }

    #[test]
    fn declared_json_is_a_value_or_a_string() {
        let builder = &mut PropertiesBuilder::new();
        let json = br#"{"a": [1, null]}"#;
        for declared in ["application/json", "a/b+JSON ; charset=utf-8"] {
            let event = with_type(builder, declared, json);
            assert_eq!(structured(&event)["data"], json!({"a": [1, null]}));
            assert_eq!(structured(&event)["datacontenttype"], declared);
            let as_text = CloudEvent {
                json_as_value: false,
                ..event
            };
            assert_eq!(structured(&as_text)["data"], r#"{"a": [1, null]}"#);
        }
        // Deep nesting must not exhaust the stack of whoever checks or reads it.
        let deep = "[".repeat(100_000);
        for broken in ["{", "", "1 2", "{}\u{0}", &deep] {
            let event = with_type(builder, "application/json", broken.as_bytes());
            let body = structured(&event);
            assert_eq!(body["data_base64"], BASE64.encode(broken));
            assert_eq!(body.get("data"), None);
        }
        for declared in ["application/jsonx", "text/plain", "json"] {
            let event = with_type(builder, declared, json);
            assert!(structured(&event)["data"].is_string(), "{declared}");
        }
    }

    #[test]
    fn a_content_type_cannot_add_headers() {
        let builder = &mut PropertiesBuilder::new();
        for declared in [
            "text/plain\r\nx-evil: 1",
            "text/plain;\r\nx-evil: 1",
            "text/plain; charset=ü",
            "text",
            "/plain",
            "text/",
            "te xt/plain",
            "text/pl\u{7f}ain",
            "",
        ] {
            let event = with_type(builder, declared, b"x");
            assert_eq!(event.content_type(), TEXT, "{declared:?}");
            assert_eq!(structured(&event)["mqttcontenttype"], declared);
        }
        let declared = "multipart/mixed; boundary=\"a b\"";
        let event = with_type(builder, declared, b"x");
        assert_eq!(event.content_type(), declared);
    }

    /// The examples of the binding (§3.1.3.2).
    #[test]
    fn percent_encoding() {
        for (text, expected) in [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("%\"\r\n\u{7f}~!", "%25%22%0D%0A%7F~!"),
        ] {
            let mut encoded = String::new();
            percent_encode(text, &mut encoded);
            assert_eq!(encoded, expected);
        }
    }

    #[test]
    fn names_of_extensions() {
        for name in [
            "",
            "Trace",
            "trace-parent",
            "trace_parent",
            "é",
            &"x".repeat(21),
        ] {
            assert_eq!(Extension::new(name, ""), Err(ExtensionError::Name));
        }
        for name in ["id", "data", "datacontenttype", "mqttqos", "mqttx"] {
            assert_eq!(Extension::new(name, ""), Err(ExtensionError::NameTaken));
        }
    }

    #[test]
    fn batches() {
        for count in 0..3 {
            let mut out = Vec::new();
            write_batch(&vec![EVENT; count], &mut out);
            let batch: Json = serde_json::from_slice(&out).unwrap();
            assert_eq!(batch, Json::Array(vec![structured(&EVENT); count]));
        }
    }

    proptest! {
        #[test]
        fn any_message_is_a_whole_object_and_clean_headers(
            topic in any::<String>(),
            content_type in any::<String>(),
            name in any::<String>(),
            payload in prop_oneof![vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)],
        ) {
            let mut builder = PropertiesBuilder::new();
            builder
                .push(Property::ContentType(&content_type))
                .push(Property::UserProperty(&name, &topic));
            let event = CloudEvent {
                topic: &topic,
                payload: &payload,
                properties: builder.as_properties(),
                ..EVENT
            };
            let body = structured(&event);
            prop_assert_eq!(&body["subject"], &topic);
            let data = match body.get("data") {
                Some(text) => text.as_str().map(str::as_bytes).map(<[u8]>::to_vec),
                None => BASE64.decode(body["data_base64"].as_str().unwrap()).ok(),
            };
            prop_assert_eq!(data.as_ref(), Some(&payload));
            let pairs = body["mqttuserproperties"].as_str().unwrap();
            let pairs: Json = serde_json::from_str(pairs).unwrap();
            prop_assert_eq!(pairs, json!([[name, topic]]));
            for (name, value) in headers(&event) {
                let printable = |byte: u8| matches!(byte, b'!'..=b'~')
                    || byte == b' ' && name == "content-type";
                prop_assert!(value.bytes().all(printable), "{}: {}", name, value);
            }
        }
    }
}
