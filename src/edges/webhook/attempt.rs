//! From messages to a signed request: Standard Webhooks 1.0.0, CloudEvents 1.0 over HTTP.

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use sha2::{Digest, Sha256};
use tidings_protocol::json::Envelope;
use tidings_protocol::mqtt::{Properties, QoS};
use tidings_protocol::time::Rfc3339;
use tidings_protocol::webhook::{
    BATCH_CONTENT_TYPE, CloudEvent, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP,
    STRUCTURED_CONTENT_TYPE, TraceParent, signature_header, write_batch,
};

use super::client::Outgoing;
use crate::broker::endpoint::Queued;
use crate::store::{Offset, StoredMessage};
use crate::webhooks::{BinaryPayload, Definition, PayloadMode, Signers};

const ID: HeaderName = HeaderName::from_static(HEADER_ID);
const TIMESTAMP: HeaderName = HeaderName::from_static(HEADER_TIMESTAMP);
const SIGNATURE: HeaderName = HeaderName::from_static(HEADER_SIGNATURE);
/// Which attempt this is, from 1.
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
/// The Topic Name, percent-encoded, where the body does not tell it.
const TOPIC: HeaderName = HeaderName::from_static("webhook-topic");
const TRACEPARENT: HeaderName = HeaderName::from_static(TraceParent::NAME);
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What CloudEvents calls the source and type of all that comes from here.
const SOURCE: &str = "/tidings";
const KIND: &str = "tidings.message";

/// Bytes of the headers in which an event travels: many servers take no more than 8 KiB in all.
const EVENT_HEADERS_MAX: usize = 6 * 1024;

/// How the requests to one endpoint look; made once for all of them.
pub struct Format {
    mode: PayloadMode,
    /// Whether a payload that is not UTF-8 is refused where it would be the body: the public
    /// verifiers read bodies as UTF-8.
    refuse_binary: bool,
    /// What all requests have in common.
    base: HeaderMap,
    log_epoch: u64,
}

/// An entry and its message.
pub type Read = (Queued, StoredMessage);

/// Why nothing can be made of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the payload is not UTF-8, which binary_payload = \"refuse\" refuses")]
pub struct NotText;

impl Format {
    /// For an endpoint that is told to be this.
    pub fn of(definition: &Definition, log_epoch: u64) -> Format {
        let mut headers = HeaderMap::new();
        for (name, value) in &definition.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        let refuse_binary = definition.binary_payload == BinaryPayload::Refuse;
        Format::new(definition.payload_mode, refuse_binary, headers, log_epoch)
    }

    fn new(mode: PayloadMode, refuse_binary: bool, mut base: HeaderMap, log_epoch: u64) -> Format {
        base.reserve(16);
        let agent = concat!("Tidings/", env!("CARGO_PKG_VERSION"));
        for (name, value) in [(USER_AGENT, agent), (ACCEPT, "*/*")] {
            base.entry(name).or_insert(HeaderValue::from_static(value));
        }
        Format {
            mode,
            refuse_binary,
            base,
            log_epoch,
        }
    }

    /// The `webhook-id` of a message: the same over all attempts, restarts and replays.
    pub fn message_id(&self, offset: Offset) -> String {
        format!("msg_{:x}_{offset}", self.log_epoch)
    }

    /// The `webhook-id` of a request. A batch, which stays together over all attempts, is named
    /// after its first message and its length.
    fn id_of(&self, messages: &[Read]) -> String {
        let first = messages.first().map_or(Offset(0), |(_, it)| it.offset);
        match messages.len() {
            1 => self.message_id(first),
            count => format!("{}_{count}", self.message_id(first)),
        }
    }

    /// The request for an attempt, from 1, that is made at this time of the wall clock. One message, or
    /// several in batch mode.
    ///
    /// # Errors
    /// When the payload must not be sent.
    pub fn request(
        &self,
        messages: &[Read],
        signers: &Signers,
        wall_ms: u64,
        attempt: u32,
    ) -> Result<Outgoing, NotText> {
        let id = self.id_of(messages);
        let mut headers = self.base.clone();
        let body = match messages {
            [(entry, message)] if self.mode != PayloadMode::Batch => {
                self.single(&id, *entry, message, &mut headers)?
            }
            _ => self.batch(messages, &mut headers),
        };
        let timestamp = wall_ms / 1000;
        let signature = signature_header(&signers.secrets, &signers.keys, &id, timestamp, &body);
        let first = messages.first().map(|(_, message)| message);
        trace(first, &id, attempt, &mut headers);
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
        headers.insert(ATTEMPT, HeaderValue::from(attempt));
        insert(&mut headers, ID, id);
        insert(&mut headers, SIGNATURE, signature);
        Ok(Outgoing { headers, body })
    }

    fn single(
        &self,
        id: &str,
        entry: Queued,
        message: &StoredMessage,
        headers: &mut HeaderMap,
    ) -> Result<Bytes, NotText> {
        let is_text = str::from_utf8(&message.payload).is_ok();
        if !is_text
            && self.refuse_binary
            && matches!(self.mode, PayloadMode::Raw | PayloadMode::CloudEventsBinary)
        {
            return Err(NotText);
        }
        let time = Rfc3339::from_unix_ms(message.published_ms);
        let event = event(id, &time, entry, message);
        match self.mode {
            PayloadMode::Raw if is_text => {
                content_type(headers, event.content_type());
                topic_header(headers, event.topic);
                Ok(message.payload.clone())
            }
            PayloadMode::Raw => {
                let envelope = Envelope {
                    topic: event.topic,
                    payload: event.payload,
                    qos: event.qos,
                    retain: event.retain,
                    properties: event.properties,
                    id: Some(id),
                    time: event.time,
                };
                let mut body = Vec::new();
                envelope.write(&mut body);
                content_type(headers, "application/json");
                topic_header(headers, event.topic);
                Ok(body.into())
            }
            PayloadMode::CloudEventsBinary if is_text && binary_headers(&event, headers) => {
                Ok(message.payload.clone())
            }
            // Of what does not fit into headers or a body of text, structured mode is the form that
            // every CloudEvents receiver has to know as well.
            PayloadMode::CloudEventsStructured
            | PayloadMode::CloudEventsBinary
            | PayloadMode::Batch => {
                let mut body = Vec::new();
                event.write_structured(&mut body);
                content_type(headers, STRUCTURED_CONTENT_TYPE);
                Ok(body.into())
            }
        }
    }

    fn batch(&self, messages: &[Read], headers: &mut HeaderMap) -> Bytes {
        let parts: Vec<(String, Rfc3339)> = messages
            .iter()
            .map(|(_, message)| {
                let time = Rfc3339::from_unix_ms(message.published_ms);
                (self.message_id(message.offset), time)
            })
            .collect();
        let events: Vec<CloudEvent<'_>> = parts
            .iter()
            .zip(messages)
            .map(|((id, time), (entry, message))| event(id, time, *entry, message))
            .collect();
        let mut body = Vec::new();
        write_batch(&events, &mut body);
        content_type(headers, BATCH_CONTENT_TYPE);
        body.into()
    }
}

fn event<'a>(
    id: &'a str,
    time: &'a Rfc3339,
    entry: Queued,
    message: &'a StoredMessage,
) -> CloudEvent<'a> {
    CloudEvent {
        id,
        source: SOURCE,
        kind: KIND,
        topic: message.topic(),
        time: Some(time.as_str()),
        payload: &message.payload,
        qos: QoS::from_u8(message.qos).unwrap_or(entry.qos),
        retain: entry.retain,
        properties: Properties::from_stored(&message.properties),
        extensions: &[],
        json_as_value: true,
    }
}

/// Writes an event into headers; false if it does not fit.
fn binary_headers(event: &CloudEvent<'_>, headers: &mut HeaderMap) -> bool {
    let mut added = Vec::with_capacity(12);
    let mut bytes = 0;
    event.binary_headers(|name, value| {
        bytes += name.len() + value.len();
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            added.push((name, value));
        }
    });
    let fits = bytes <= EVENT_HEADERS_MAX;
    if fits {
        headers.extend(added);
    }
    fits
}

fn content_type(headers: &mut HeaderMap, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(CONTENT_TYPE, value);
    }
}

fn topic_header(headers: &mut HeaderMap, topic: &str) {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
    let encoded = utf8_percent_encode(topic, ENCODED).to_string();
    if encoded.len() <= EVENT_HEADERS_MAX {
        insert(headers, TOPIC, encoded);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // Identifiers, base64 and percent-encoded text: all of it may stand in a header.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(name, value);
    }
}

/// Passes on the trace that the publisher began, unchanged, as no span of ours is recorded; or
/// begins one, the same for all attempts.
fn trace(message: Option<&StoredMessage>, id: &str, attempt: u32, headers: &mut HeaderMap) {
    let properties = message.map(|it| Properties::from_stored(&it.properties));
    let property = |name: &str| {
        let mut all = properties.iter().flat_map(Properties::user_properties);
        all.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let given = property(TraceParent::NAME).filter(|it| it.parse::<TraceParent>().is_ok());
    let Some(given) = given else {
        let digest = Sha256::digest(id);
        let mut random = [0; 24];
        random.copy_from_slice(&digest[..24]);
        for (byte, of_attempt) in random[20..].iter_mut().zip(attempt.to_be_bytes()) {
            *byte ^= of_attempt;
        }
        // Sampled: a receiver that follows its caller would otherwise record nothing.
        insert(
            headers,
            TRACEPARENT,
            TraceParent::new(random, true).to_string(),
        );
        return;
    };
    insert(headers, TRACEPARENT, given.to_owned());
    let state = property("tracestate").filter(|it| it.len() <= 512);
    if let Some(state) = state.and_then(|it| HeaderValue::from_str(it).ok()) {
        headers.insert(TRACESTATE, state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidings_protocol::mqtt::{PropertiesBuilder, Property};
    use tidings_protocol::webhook::{Secret, SigningKey};

    use super::*;

    const NOW: u64 = 1_764_072_000_250;

    fn message(payload: &[u8], properties: &[Property<'_>]) -> Read {
        let mut built = PropertiesBuilder::new();
        for property in properties {
            built.push(*property);
        }
        let stored = StoredMessage::for_test(
            Offset(42),
            "räume/1",
            built.as_properties().as_bytes(),
            payload,
        );
        let entry = Queued {
            seq: 7,
            offset: Offset(42),
            size: 0,
            qos: QoS::AtLeastOnce,
            retain: true,
        };
        (entry, stored)
    }

    fn signers() -> Signers {
        Signers {
            secrets: vec![Secret::from_random([1; 32]), Secret::from_random([2; 32])],
            keys: vec![SigningKey::from_random([3; 32])],
        }
    }

    fn format(mode: PayloadMode, refuse_binary: bool) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert("x-mine", HeaderValue::from_static("yes"));
        headers.insert(USER_AGENT, HeaderValue::from_static("me"));
        Format::new(mode, refuse_binary, headers, 0xAB)
    }

    fn request(mode: PayloadMode, messages: &[Read], attempt: u32) -> Outgoing {
        let format = format(mode, false);
        format.request(messages, &signers(), NOW, attempt).unwrap()
    }

    fn header<'o>(outgoing: &'o Outgoing, name: &str) -> &'o str {
        outgoing
            .headers
            .get(name)
            .map_or("", |it| it.to_str().unwrap())
    }

    fn body(outgoing: &Outgoing) -> Value {
        serde_json::from_slice(&outgoing.body).unwrap()
    }

    #[test]
    fn every_attempt_is_signed_anew_under_the_same_id() {
        let messages = [message(b"{\"a\":1}", &[])];
        let first = request(PayloadMode::CloudEventsStructured, &messages, 1);
        assert_eq!(header(&first, "webhook-id"), "msg_ab_42");
        assert_eq!(header(&first, "webhook-timestamp"), "1764072000");
        assert_eq!(header(&first, "webhook-attempt"), "1");
        assert_eq!(header(&first, "x-mine"), "yes");
        assert_eq!(header(&first, "user-agent"), "me");
        let signature = header(&first, "webhook-signature");
        assert_eq!(signature.split(' ').count(), 3, "{signature}");
        for secret in signers().secrets {
            assert!(secret.verify_v1("msg_ab_42", NOW / 1000, &first.body, signature));
        }
        let public = signers().keys[0].public_key();
        assert!(public.verify_v1a("msg_ab_42", NOW / 1000, &first.body, signature));

        let later = format(PayloadMode::CloudEventsStructured, false);
        let later = later
            .request(&messages, &signers(), NOW + 5_000, 2)
            .unwrap();
        assert_eq!(header(&later, "webhook-id"), "msg_ab_42");
        assert_eq!(header(&later, "webhook-timestamp"), "1764072005");
        assert_eq!(later.body, first.body);
        assert_ne!(header(&later, "webhook-signature"), signature);
        let trace = |outgoing: &Outgoing| header(outgoing, "traceparent").to_owned();
        assert_eq!(trace(&first)[..36], trace(&later)[..36], "one trace");
        assert_ne!(trace(&first), trace(&later));
    }

    #[test]
    fn structured_events_hold_json_text_or_base64() {
        let json = message(b"{\"a\":1}", &[Property::ContentType("application/json")]);
        let outgoing = request(PayloadMode::CloudEventsStructured, &[json], 1);
        assert_eq!(header(&outgoing, "content-type"), STRUCTURED_CONTENT_TYPE);
        let event = body(&outgoing);
        assert_eq!(event["id"], "msg_ab_42");
        assert_eq!(event["subject"], "räume/1");
        assert_eq!(event["data"], json!({"a": 1}));
        assert_eq!(event["mqttretain"], true);
        let text = request(
            PayloadMode::CloudEventsStructured,
            &[message(b"{\"a\":1}", &[])],
            1,
        );
        assert_eq!(body(&text)["data"], "{\"a\":1}");
        let binary = request(
            PayloadMode::CloudEventsStructured,
            &[message(&[0xFF], &[])],
            1,
        );
        assert_eq!(body(&binary)["data_base64"], "/w==");
    }

    #[test]
    fn binary_mode_puts_the_event_into_headers() {
        let outgoing = request(PayloadMode::CloudEventsBinary, &[message(b"21.5", &[])], 1);
        assert_eq!(&outgoing.body[..], b"21.5");
        assert_eq!(header(&outgoing, "ce-subject"), "r%C3%A4ume/1");
        assert_eq!(header(&outgoing, "ce-id"), "msg_ab_42");
        assert_eq!(
            header(&outgoing, "content-type"),
            "text/plain; charset=utf-8"
        );
        // What verifiers cannot read as text, or headers cannot hold, is structured.
        let long = "x".repeat(EVENT_HEADERS_MAX);
        for message in [
            message(&[0xFF], &[]),
            message(b"t", &[Property::UserProperty("long", &long)]),
        ] {
            let outgoing = request(PayloadMode::CloudEventsBinary, &[message], 1);
            assert_eq!(header(&outgoing, "content-type"), STRUCTURED_CONTENT_TYPE);
            assert_eq!(header(&outgoing, "ce-id"), "");
            assert_eq!(body(&outgoing)["id"], "msg_ab_42");
        }
    }

    #[test]
    fn raw_bodies_are_always_text() {
        let outgoing = request(PayloadMode::Raw, &[message(b"hi", &[])], 1);
        assert_eq!(&outgoing.body[..], b"hi");
        assert_eq!(header(&outgoing, "webhook-topic"), "r%C3%A4ume/1");
        let outgoing = request(PayloadMode::Raw, &[message(&[0xFF], &[])], 1);
        assert_eq!(header(&outgoing, "content-type"), "application/json");
        assert_eq!(body(&outgoing)["payload_base64"], "/w==");
        for mode in [PayloadMode::Raw, PayloadMode::CloudEventsBinary] {
            let refusing = format(mode, true);
            let refused = refusing.request(&[message(&[0xFF], &[])], &signers(), NOW, 1);
            assert_eq!(refused.err(), Some(NotText));
            assert!(
                refusing
                    .request(&[message(b"t", &[])], &signers(), NOW, 1)
                    .is_ok()
            );
        }
    }

    #[test]
    fn a_batch_is_an_array_with_an_id_of_its_own() {
        let messages = [message(b"1", &[]), message(b"2", &[])];
        let outgoing = request(PayloadMode::Batch, &messages, 1);
        assert_eq!(header(&outgoing, "webhook-id"), "msg_ab_42_2");
        assert_eq!(header(&outgoing, "content-type"), BATCH_CONTENT_TYPE);
        assert_eq!(body(&outgoing)[1]["data"], "2");
        let one = request(PayloadMode::Batch, &messages[..1], 1);
        assert!(body(&one).is_array());
    }

    #[test]
    fn a_trace_is_passed_on() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let properties = [
            Property::UserProperty("traceparent", given),
            Property::UserProperty("tracestate", "a=b"),
        ];
        let outgoing = request(PayloadMode::Raw, &[message(b"", &properties)], 3);
        assert_eq!(header(&outgoing, "traceparent"), given);
        assert_eq!(header(&outgoing, "tracestate"), "a=b");
        let wrong = [Property::UserProperty("traceparent", "00-zz\r\nx: y")];
        let outgoing = request(PayloadMode::Raw, &[message(b"", &wrong)], 1);
        let made: TraceParent = header(&outgoing, "traceparent").parse().unwrap();
        assert!(made.sampled());
        assert_eq!(header(&outgoing, "x"), "");
    }
}
