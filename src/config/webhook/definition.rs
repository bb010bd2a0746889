//! What an endpoint is told to be.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};
use tidings_protocol::mqtt::QoS;
use tidings_protocol::net::Network;
use tidings_protocol::time::parse_duration;
use tidings_protocol::topic::{self, Filter, TopicLimits};
use tidings_protocol::webhook::Schedule;
use tokio_rustls::rustls::RootCertStore;

use super::fields::{FieldError, Fields};
use super::headers::{self, HIDDEN, is_sensitive};
use super::hidden::Hidden;
use super::target::Target;
use crate::config::units::show_duration;

/// Topic Filters of one endpoint.
pub const TOPICS_MAX: usize = 100;
/// Bytes of all of them together.
const TOPICS_BYTES_MAX: usize = 32 * 1024;
const IN_FLIGHT_MAX: u64 = 1000;
const IN_FLIGHT_DEFAULT: u64 = 16;
const RATE_MAX: u64 = 1_000_000;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
const TIMEOUT_LEAST: Duration = Duration::from_millis(100);
const TIMEOUT_MOST: Duration = Duration::from_secs(300);
const DESCRIPTION_CHARS_MAX: usize = 1000;
const PEM_BYTES_MAX: usize = 16 * 1024;

/// The names of all fields that whoever registers an endpoint may give.
pub const DEFINITION_FIELDS: [&str; 17] = [
    "url",
    "topics",
    "qos",
    "payload_mode",
    "binary_payload",
    "headers",
    "ordering",
    "max_in_flight",
    "rate_limit",
    "retry_schedule",
    "timeout",
    "description",
    "ca_certificate",
    "client_certificate",
    "client_key",
    "reply_topic",
    "signature_v1a",
];

/// How a message becomes the body of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadMode {
    /// One CloudEvent in JSON, with the payload in it.
    #[default]
    CloudEventsStructured,
    /// The payload is the body, and the rest of a CloudEvent is in headers.
    CloudEventsBinary,
    /// The payload is the body, and nothing is said about it but its type.
    Raw,
    /// A list of CloudEvents in JSON.
    Batch,
}

const PAYLOAD_MODES: [(&str, PayloadMode); 4] = [
    ("cloudevents-structured", PayloadMode::CloudEventsStructured),
    ("cloudevents-binary", PayloadMode::CloudEventsBinary),
    ("raw", PayloadMode::Raw),
    ("batch", PayloadMode::Batch),
];

/// What happens to a payload that is not UTF-8 where it would be a body of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryPayload {
    /// It travels as base64 in a structured CloudEvent.
    #[default]
    Envelope,
    /// It is not delivered, and becomes a dead letter.
    Refuse,
}

const BINARY_PAYLOADS: [(&str, BinaryPayload); 2] = [
    ("envelope", BinaryPayload::Envelope),
    ("refuse", BinaryPayload::Refuse),
];

/// What has to be delivered before what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Nothing.
    #[default]
    None,
    /// Messages of one topic in their order.
    Key,
    /// All in their order, one at a time.
    Fifo,
}

const ORDERINGS: [(&str, Ordering); 3] = [
    ("none", Ordering::None),
    ("key", Ordering::Key),
    ("fifo", Ordering::Fifo),
];

/// What an endpoint is told to be, whoever told it.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    pub url: Target,
    /// 1 to [`TOPICS_MAX`] plain Topic Filters, sorted, each once.
    pub topics: Vec<String>,
    /// The highest with which messages are taken; with 0, what is queued does not survive a crash.
    pub qos: QoS,
    pub payload_mode: PayloadMode,
    pub binary_payload: BinaryPayload,
    /// Names as they were written, no two of them alike; values are visible ASCII.
    pub headers: BTreeMap<String, String>,
    pub ordering: Ordering,
    /// Requests at a time, from 1 to 1000.
    pub max_in_flight: usize,
    /// Deliveries a second; none: as many as there are.
    pub rate_limit: Option<NonZeroU32>,
    pub retry_schedule: Schedule,
    /// From connecting to the last byte of the response.
    pub timeout: Duration,
    pub description: String,
    /// Certificates in PEM that a server's may be signed with, instead of the public ones.
    pub ca_certificate: Option<String>,
    /// The chain in PEM with which the broker shows who it is; there if `client_key` is.
    pub client_certificate: Option<String>,
    /// Its key in PEM.
    pub client_key: Option<Hidden>,
    /// The Topic Name to which responses are published.
    pub reply_topic: Option<String>,
    /// Whether attempts are signed with ed25519 too.
    pub signature_v1a: bool,
    /// Whose rights decide what it receives; see `webhooks::Owner`.
    pub user: Option<String>,
}

/// What is allowed where a definition is judged.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    pub allow_http: bool,
    pub allow_networks: &'a [Network],
    pub topic_limits: TopicLimits,
}

impl Definition {
    /// Reads an object whose members are [`DEFINITION_FIELDS`] or among `others`, and judges each.
    ///
    /// # Errors
    /// All that is wrong with it, field by field.
    pub fn read(
        object: &Map<String, Value>,
        others: &[&str],
        policy: &Policy<'_>,
    ) -> Result<Definition, Vec<FieldError>> {
        let mut fields = Fields::of(object);
        let known: Vec<&str> = DEFINITION_FIELDS.iter().chain(others).copied().collect();
        fields.refuse_unknown(&known);
        let definition = read(&mut fields, Some(policy));
        match definition {
            Some(definition) if fields.errors.is_empty() => Ok(definition),
            _ => Err(fields.errors),
        }
    }

    /// Reads what [`Definition::to_json`] has written, some version of it ago, without judging what
    /// may have been allowed then and is not now.
    ///
    /// # Errors
    /// When it cannot be understood at all.
    pub fn read_stored(object: &Map<String, Value>) -> Result<Definition, Vec<FieldError>> {
        let mut fields = Fields::of(object);
        let user = fields.text("user", None, |text| Ok(Some(text.to_owned())));
        let definition = read(&mut fields, None);
        match definition {
            Some(definition) if fields.errors.is_empty() => Ok(Definition { user, ..definition }),
            _ => Err(fields.errors),
        }
    }

    /// All fields but what is secret: `client_key`, and the values of headers if they are `hidden`.
    pub fn to_json(&self, hidden: bool) -> Map<String, Value> {
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let value = if hidden && is_sensitive(name) {
                    HIDDEN
                } else {
                    value
                };
                (name.clone(), Value::from(value))
            })
            .collect();
        let schedule = self.retry_schedule.delays().iter();
        let schedule: Vec<String> = schedule.map(|&delay| show_duration(delay)).collect();
        let value = json!({
            "url": self.url.as_str(),
            "topics": self.topics,
            "qos": self.qos.as_u8(),
            "payload_mode": name_of(&PAYLOAD_MODES, self.payload_mode),
            "binary_payload": name_of(&BINARY_PAYLOADS, self.binary_payload),
            "headers": headers,
            "ordering": name_of(&ORDERINGS, self.ordering),
            "max_in_flight": self.max_in_flight,
            "rate_limit": self.rate_limit.map_or(0, NonZeroU32::get),
            "retry_schedule": schedule,
            "timeout": show_duration(self.timeout),
            "description": self.description,
            "ca_certificate": self.ca_certificate,
            "client_certificate": self.client_certificate,
            "reply_topic": self.reply_topic,
            "signature_v1a": self.signature_v1a,
            "user": self.user,
        });
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }
}

fn name_of<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> &'static str {
    let found = choices.iter().find(|(_, choice)| *choice == value);
    found.map_or("", |(name, _)| name)
}

/// Reads all fields; without a policy, what depends on one is not judged. None if something is
/// missing that has no default.
fn read(fields: &mut Fields<'_>, policy: Option<&Policy<'_>>) -> Option<Definition> {
    let url = read_url(fields, policy);
    let topics = read_topics(fields, policy);
    let qos = fields.integer("qos", 1, 0, 2);
    let qos = u8::try_from(qos).ok().and_then(QoS::from_u8);
    let ca_certificate = fields.text("ca_certificate", None, certificates);
    let client_certificate = fields.text("client_certificate", None, certificates);
    let client_key = fields.text("client_key", None, private_key);
    // Of a stored definition the key is kept elsewhere.
    if policy.is_some() && client_key.is_some() != client_certificate.is_some() {
        let missing = match client_key {
            Some(_) => "client_certificate",
            None => "client_key",
        };
        fields.error(missing, "a client certificate and its key go together");
    }
    let rate_limit = fields.integer("rate_limit", 0, 0, RATE_MAX);
    Some(Definition {
        payload_mode: fields.choice("payload_mode", &PAYLOAD_MODES),
        binary_payload: fields.choice("binary_payload", &BINARY_PAYLOADS),
        headers: headers::read(fields),
        ordering: fields.choice("ordering", &ORDERINGS),
        max_in_flight: fields.integer("max_in_flight", IN_FLIGHT_DEFAULT, 1, IN_FLIGHT_MAX)
            as usize,
        rate_limit: u32::try_from(rate_limit).ok().and_then(NonZeroU32::new),
        retry_schedule: read_schedule(fields),
        timeout: read_timeout(fields),
        description: fields.text("description", String::new(), description),
        ca_certificate,
        client_certificate,
        client_key,
        reply_topic: read_reply_topic(fields, policy),
        signature_v1a: fields.flag("signature_v1a", false),
        user: None,
        url: url?,
        topics,
        qos: qos?,
    })
}

fn read_url(fields: &mut Fields<'_>, policy: Option<&Policy<'_>>) -> Option<Target> {
    if fields.get("url").is_none() {
        fields.error(
            "url",
            "say where to deliver, such as https://example.com/hook",
        );
        return None;
    }
    fields.text("url", None, |text| {
        let target = Target::parse(text).map_err(|error| error.to_string())?;
        if let Some(policy) = policy {
            let checked = target.check(policy.allow_http, policy.allow_networks);
            checked.map_err(|error| error.to_string())?;
        }
        Ok(Some(target))
    })
}

fn read_topics(fields: &mut Fields<'_>, policy: Option<&Policy<'_>>) -> Vec<String> {
    if fields.get("topics").is_none() {
        let detail = "say what to deliver: Topic Filters, such as [\"orders/#\"]";
        fields.error("topics", detail);
        return Vec::new();
    }
    let Some(written) = fields.strings("topics") else {
        return Vec::new();
    };
    let bytes: usize = written.iter().map(|it| it.len()).sum();
    if !(1..=TOPICS_MAX).contains(&written.len()) {
        let detail = format!(
            "there are {} Topic Filters, and should be 1 to {TOPICS_MAX}",
            written.len()
        );
        fields.error("topics", detail);
    } else if bytes > TOPICS_BYTES_MAX {
        let detail = format!("they have {bytes} bytes together, and may have {TOPICS_BYTES_MAX}");
        fields.error("topics", detail);
    } else if let Some(policy) = policy {
        for (index, filter) in written.iter().enumerate() {
            let detail = match Filter::parse(filter, &policy.topic_limits) {
                Ok(_) if filter.starts_with("$replay/") => {
                    "what a stream has is sent again by a replay, not by a filter"
                }
                Ok(parsed) if parsed.share.is_none() => continue,
                Ok(_) => "an endpoint cannot share a subscription: name the filter alone",
                Err(error) => error.as_str(),
            };
            fields.error(format!("topics[{index}]"), format!("{filter:?}: {detail}"));
        }
    }
    let mut topics: Vec<String> = written.into_iter().map(str::to_owned).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

fn read_schedule(fields: &mut Fields<'_>) -> Schedule {
    if fields.get("retry_schedule").is_none() {
        return Schedule::default();
    }
    let Some(delays) = fields.strings("retry_schedule") else {
        return Schedule::default();
    };
    Schedule::parse(&delays).unwrap_or_else(|error| {
        fields.error("retry_schedule", error.to_string());
        Schedule::default()
    })
}

fn read_timeout(fields: &mut Fields<'_>) -> Duration {
    fields.text("timeout", TIMEOUT_DEFAULT, |text| {
        let timeout = parse_duration(text).map_err(|error| error.to_string())?;
        match (TIMEOUT_LEAST..=TIMEOUT_MOST).contains(&timeout) {
            true => Ok(timeout),
            false => Err("it should be from 100ms to 300s".to_owned()),
        }
    })
}

fn read_reply_topic(fields: &mut Fields<'_>, policy: Option<&Policy<'_>>) -> Option<String> {
    fields.text("reply_topic", None, |text| {
        if let Some(policy) = policy {
            let valid = topic::name_is_valid(text, &policy.topic_limits);
            valid.map_err(|error| format!("{text:?}: {}", error.as_str()))?;
            if text.starts_with('$') {
                return Err("topics under $ are the broker's own".to_owned());
            }
        }
        Ok(Some(text.to_owned()))
    })
}

fn description(text: &str) -> Result<String, String> {
    match text.chars().count() <= DESCRIPTION_CHARS_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("it may have {DESCRIPTION_CHARS_MAX} characters")),
    }
}

fn certificates(text: &str) -> Result<Option<String>, String> {
    if text.len() > PEM_BYTES_MAX {
        return Err(format!("it may have {PEM_BYTES_MAX} bytes"));
    }
    let mut count = 0;
    // Reads what it takes in.
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate =
            certificate.map_err(|error| format!("it should be certificates in PEM: {error}"))?;
        count += 1;
        store
            .add(certificate)
            .map_err(|error| format!("certificate {count} in it is none: {error}"))?;
    }
    match count {
        0 => Err("there is no -----BEGIN CERTIFICATE----- in it".to_owned()),
        _ => Ok(Some(text.to_owned())),
    }
}

/// Says nothing of what it reads.
fn private_key(text: &str) -> Result<Option<Hidden>, String> {
    if text.len() > PEM_BYTES_MAX {
        return Err(format!("it may have {PEM_BYTES_MAX} bytes"));
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(_) => Ok(Some(Hidden::new(text))),
        Err(_) => Err("it should be one private key in PEM, not encrypted".to_owned()),
    }
}

impl fmt::Debug for Definition {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.headers.keys().collect();
        f.debug_struct("Definition")
            .field("url", &self.url)
            .field("topics", &self.topics)
            .field("qos", &self.qos)
            .field("payload_mode", &self.payload_mode)
            .field("headers", &shown)
            .field("ordering", &self.ordering)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
