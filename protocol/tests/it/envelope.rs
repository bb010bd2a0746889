//! Envelopes, as serde_json reads them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidings_protocol::json::Envelope;
use tidings_protocol::mqtt::{PropertiesBuilder, Property, QoS};

#[derive(Clone, Debug)]
struct Parts {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    format: Option<u8>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    expiry: Option<u32>,
    user: Vec<(String, String)>,
    id: Option<String>,
    time: Option<String>,
}

/// Text of all kinds, dense in what must be escaped.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\u{0}-\u{7f}]{0,40}",
        "[ab\"\\\\\r\n\u{85}\u{2028}\u{2029}\u{feff}😀]{0,40}",
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    let payload = prop_oneof![text().prop_map(String::into_bytes), vec(any::<u8>(), 0..60)];
    let message = (text(), payload, 0..=2_u8, any::<bool>());
    let properties = (
        option::of(0..=1_u8),
        option::of(text()),
        // A Response Topic is not empty and has no wildcards.
        option::of("[^\u{0}+#]{1,20}"),
        option::of(vec(any::<u8>(), 0..20)),
        option::of(any::<u32>()),
        vec((text(), text()), 0..4),
    );
    let known = (option::of(text()), option::of(text()));
    (message, properties, known).prop_map(|(message, properties, known)| Parts {
        topic: message.0,
        payload: message.1,
        qos: message.2,
        retain: message.3,
        format: properties.0,
        // MQTT has no U+0000 in strings.
        content_type: properties.1.map(|text| text.replace('\0', "")),
        response_topic: properties.2,
        correlation_data: properties.3,
        expiry: properties.4,
        user: properties
            .5
            .into_iter()
            .map(|(name, value)| (name.replace('\0', ""), value.replace('\0', "")))
            .collect(),
        id: known.0,
        time: known.1,
    })
}

fn builder(parts: &Parts) -> PropertiesBuilder {
    let mut builder = PropertiesBuilder::new();
    // Those of the hop are not shown, wherever they stand.
    builder.push(Property::TopicAlias(1));
    for (name, value) in &parts.user {
        builder.push(Property::UserProperty(name, value));
    }
    if let Some(format) = parts.format {
        builder.push(Property::PayloadFormatIndicator(format));
    }
    if let Some(text) = &parts.content_type {
        builder.push(Property::ContentType(text));
    }
    if let Some(text) = &parts.response_topic {
        builder.push(Property::ResponseTopic(text));
    }
    builder.push(Property::SubscriptionIdentifier(7));
    if let Some(bytes) = &parts.correlation_data {
        builder.push(Property::CorrelationData(bytes));
    }
    if let Some(secs) = parts.expiry {
        builder.push(Property::MessageExpiryInterval(secs));
    }
    builder
}

fn expected(parts: &Parts) -> Value {
    let mut properties = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            properties.insert(name.to_owned(), value);
        }
    };
    add("payload_format_indicator", parts.format.map(Value::from));
    add("content_type", parts.content_type.clone().map(Value::from));
    add(
        "response_topic",
        parts.response_topic.clone().map(Value::from),
    );
    let correlation = parts.correlation_data.as_ref();
    add(
        "correlation_data",
        correlation.map(|it| BASE64.encode(it).into()),
    );
    add("message_expiry_interval", parts.expiry.map(Value::from));
    let user = (!parts.user.is_empty()).then(|| json!(parts.user));
    add("user_properties", user);

    let mut envelope = json!({"topic": parts.topic, "qos": parts.qos, "retain": parts.retain});
    match str::from_utf8(&parts.payload) {
        Ok(text) => envelope["payload"] = text.into(),
        Err(_) => envelope["payload_base64"] = BASE64.encode(&parts.payload).into(),
    }
    if !properties.is_empty() {
        envelope["properties"] = properties.into();
    }
    if let Some(id) = &parts.id {
        envelope["id"] = id.as_str().into();
    }
    if let Some(time) = &parts.time {
        envelope["time"] = time.as_str().into();
    }
    envelope
}

proptest! {
    #[test]
    fn envelopes_say_what_went_in_on_one_line(parts in parts()) {
        let builder = builder(&parts);
        let envelope = Envelope {
            topic: &parts.topic,
            payload: &parts.payload,
            qos: QoS::from_u8(parts.qos).unwrap(),
            retain: parts.retain,
            properties: builder.as_properties(),
            id: parts.id.as_deref(),
            time: parts.time.as_deref(),
        };
        let mut out = b"before".to_vec();
        envelope.write(&mut out);
        let line = out.strip_prefix(b"before").unwrap();
        prop_assert!(line.iter().all(|byte| *byte >= 0x20));
        let read: Value = serde_json::from_slice(line).unwrap();
        prop_assert_eq!(read, expected(&parts));
    }
}
