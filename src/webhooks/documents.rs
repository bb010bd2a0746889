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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Definition;

    #[test]
    fn keys_say_what_they_are_about() {
        for (key, expected) in [
            (endpoint_key("a.b"), Some(("a.b", Kind::Endpoint))),
            (retry_key("a", 7), Some(("a", Kind::Retry(7)))),
            (dead_key("a", 7), Some(("a", Kind::Dead(7)))),
            (attempts_key("a", 7), Some(("a", Kind::Attempts(7)))),
            (failing_key("a"), Some(("a", Kind::Failing))),
            (replay_key("a"), Some(("a", Kind::Replay))),
            ("webhook/a/retry/x".to_owned(), None),
            ("webhook/a/other".to_owned(), None),
            ("http/a".to_owned(), None),
        ] {
            assert_eq!(parse_key(&key), expected, "{key}");
        }
        assert_eq!(message_id(0x1f, 12), "msg_1f_12");
    }

    /// What version 1 has written is read for ever, and what a later one adds does not hinder.
    #[test]
    fn documents_of_version_1_are_read() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let endpoint = read(
            r#"{"declared":false,"definition":{"url":"https://example.com/","topics":["a/#"],"qos":1,
            "payload_mode":"raw","binary_payload":"refuse","ordering":"key","max_in_flight":16,
            "rate_limit":0,"retry_schedule":["5s","1d"],"timeout":"15s","description":"",
            "ca_certificate":null,"client_certificate":null,"reply_topic":null,
            "signature_v1a":false,"user":"bob","later":1},"paused":true,"disabled":null,
            "created_ms":1,"updated_ms":2,"sealed":"AAAA","later":1}"#,
        );
        let endpoint: StoredEndpoint = serde_json::from_value(endpoint).unwrap();
        let definition = Definition::read_stored(&endpoint.definition).unwrap();
        assert_eq!(definition.user.as_deref(), Some("bob"));
        assert_eq!(definition.retry_schedule.attempts(), 3);
        assert!(endpoint.paused);

        let retry = r#"{"attempts":2,"due_ms":3,"first_ms":1,"status":500,"error":"x","batch":4,"later":1}"#;
        let retry: RetryRecord = serde_json::from_str(retry).unwrap();
        assert_eq!(
            (retry.attempts, retry.status, retry.batch),
            (2, Some(500), Some(4))
        );
        let least = r#"{"attempts":0,"due_ms":3,"first_ms":1}"#;
        assert!(serde_json::from_str::<RetryRecord>(least).is_ok());

        let dead = r#"{"offset":1,"size":2,"qos":1,"topic":"a","attempts":10,"first_ms":1,"last_ms":2,"error":"x","later":1}"#;
        let dead: DeadRecord = serde_json::from_str(dead).unwrap();
        assert_eq!((dead.offset, dead.retain, dead.status), (1, false, None));

        let failing: FailingRecord = serde_json::from_value(json!({"since_ms": 5})).unwrap();
        assert_eq!(failing.since_ms, 5);
        let replay = r#"{"stream":"s","topic":null,"since_ms":null,"until_ms":9,"rate":10,"queued":3,"after":[7,8]}"#;
        let replay: crate::webhooks::StreamReplay = serde_json::from_str(replay).unwrap();
        assert_eq!(replay.after, Some((7, 8)));
        let attempt = r#"[{"seq":1,"offset":2,"attempt":3,"at_ms":4,"millis":5,"later":1}]"#;
        let attempts: Vec<crate::webhooks::Attempt> = serde_json::from_str(attempt).unwrap();
        assert_eq!((attempts[0].messages, attempts[0].status), (1, None));
    }
}
