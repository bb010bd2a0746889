//! What is kept of endpoints in the store: keys, and the JSON under them.
//!
//! Of what is read, unknown members are ignored, so that an older version can go on with what a newer
//! one has written.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidings_protocol::mqtt::QoS;

use crate::broker::endpoint::Queued;
use crate::store::{Offset, Seq};

/// What the keys of all these documents begin with.
pub const PREFIX: &str = "webhook/";

/// The document of an endpoint itself: a [`StoredEndpoint`].
pub fn endpoint_key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// The document of a message that waits for another attempt: a [`RetryRecord`].
pub fn retry_key(id: &str, seq: Seq) -> String {
    format!("{PREFIX}{id}/retry/{seq}")
}

/// The document of a dead letter: a [`DeadRecord`].
pub fn dead_key(id: &str, seq: Seq) -> String {
    format!("{PREFIX}{id}/dead/{seq}")
}

/// The document of some attempts, of which `first` is the number of the first.
pub(super) fn attempts_key(id: &str, first: u64) -> String {
    format!("{PREFIX}{id}/attempts/{first}")
}

/// The document that says since when an endpoint has failed: a [`FailingRecord`].
pub fn failing_key(id: &str) -> String {
    format!("{PREFIX}{id}/failing")
}

/// The document of a replay out of a stream that goes on: a
/// [`StreamReplay`](super::StreamReplay).
pub(super) fn replay_key(id: &str) -> String {
    format!("{PREFIX}{id}/replay")
}

/// The `webhook-id` of the message at this place of the log of this epoch: the same over all
/// attempts, restarts and replays, and for all endpoints.
pub fn message_id(epoch: u64, offset: u64) -> String {
    format!("msg_{epoch:x}_{offset}")
}

/// What a key is about: the identifier of the endpoint, and what follows it.
pub(super) fn parse_key(key: &str) -> Option<(&str, Kind)> {
    let rest = key.strip_prefix(PREFIX)?;
    let Some((id, rest)) = rest.split_once('/') else {
        return Some((rest, Kind::Endpoint));
    };
    let kind = match rest.split_once('/') {
        Some(("retry", seq)) => Kind::Retry(seq.parse().ok()?),
        Some(("dead", seq)) => Kind::Dead(seq.parse().ok()?),
        Some(("attempts", first)) => Kind::Attempts(first.parse().ok()?),
        None if rest == "failing" => Kind::Failing,
        None if rest == "replay" => Kind::Replay,
        _ => return None,
    };
    Some((id, kind))
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Endpoint,
    Retry(Seq),
    Dead(Seq),
    Attempts(u64),
    Failing,
    Replay,
}

/// A message that waits for another attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRecord {
    /// Attempts that were made.
    pub attempts: u32,
    /// When the next one is due, in Unix milliseconds.
    pub due_ms: u64,
    /// When the first one was made; of one that was put back from the dead letters, when that was.
    pub first_ms: u64,
    /// The status of the last response, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// In batch mode, the seq of the first message of the request that it was part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Seq>,
}

/// A message that ran out of attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRecord {
    /// Its place in the log.
    pub offset: u64,
    /// Bytes of topic, properties and payload.
    pub size: u32,
    /// With which it was to be delivered.
    pub qos: u8,
    /// Whether it was published with RETAIN set.
    #[serde(default)]
    pub retain: bool,
    pub topic: Box<str>,
    pub attempts: u32,
    /// When the first and the last attempt were made, in Unix milliseconds.
    pub first_ms: u64,
    pub last_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Box<str>,
}

impl DeadRecord {
    /// Its entry in the queue.
    pub fn queued(&self, seq: Seq) -> Queued {
        Queued {
            seq,
            offset: Offset(self.offset),
            size: self.size,
            qos: QoS::from_u8(self.qos).unwrap_or(QoS::AtLeastOnce),
            retain: self.retain,
        }
    }
}

/// Since when an endpoint has had no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingRecord {
    /// The first failure after the last success, in Unix milliseconds.
    pub since_ms: u64,
}

/// An endpoint, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredEndpoint {
    /// Whether the configuration declared it.
    pub declared: bool,
    /// [`Definition::to_json`](crate::config::Definition::to_json) without headers.
    pub definition: Map<String, Value>,
    #[serde(default)]
    pub paused: bool,
    /// Why it is disabled, if it is.
    #[serde(default)]
    pub disabled: Option<Box<str>>,
    pub created_ms: u64,
    pub updated_ms: u64,
    /// Secrets, keys and headers, in base64.
    pub sealed: String,
}

/// JSON of a document.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and flags: there is nothing in it that JSON cannot say.
    serde_json::to_vec(value).unwrap_or_default()
}

impl RetryRecord {
    /// The value of its document.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl DeadRecord {
    /// The value of its document.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl FailingRecord {
    /// The value of its document.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}
