//! What becomes of messages after an attempt: done, to be tried again, or dead. What the store has to
//! know of it is gathered here, and told in one step.

use std::collections::HashSet;

use bytes::Bytes;
use tidings_protocol::mqtt::{Properties, PropertiesBuilder, Property, QoS};

use super::attempt::Read;
use super::client::{Answer, SendError};
use super::flow::Unit;
use super::verdict::{self, Verdict};
use crate::broker::Publication;
use crate::broker::endpoint::{Change, Queued};
use crate::broker::stats::AttemptEnd;
use crate::store::{Seq, Ticket};
use crate::webhooks::{Attempt, Definition, EXCERPT_BYTES_MAX, Endpoint, Webhooks, WebhooksConfig};
use crate::webhooks::{DeadRecord, FailingRecord, RetryRecord, dead_key, failing_key, retry_key};

/// An attempt that has ended.
pub(super) struct Ended {
    pub unit: Unit,
    pub messages: Vec<Read>,
    pub result: Result<Answer, SendError>,
    /// When it was begun, in Unix milliseconds.
    pub at_ms: u64,
    pub millis: u64,
}

impl Ended {
    /// What the answer means at this time of the wall clock.
    pub fn judge(&self, wall_ms: u64) -> Verdict {
        verdict::judge(&self.result, wall_ms / 1000)
    }

    fn end(&self, verdict: Verdict) -> AttemptEnd {
        match (&self.result, verdict) {
            (_, Verdict::Delivered) => AttemptEnd::Delivered,
            (Ok(_), _) => AttemptEnd::Refused,
            (Err(SendError::Timeout), _) => AttemptEnd::TimedOut,
            (Err(_), _) => AttemptEnd::Unreachable,
        }
    }
}

/// Where and when an attempt has ended.
pub(super) struct Scene<'a> {
    pub webhooks: &'a Webhooks,
    pub endpoint: &'a Endpoint,
    pub definition: &'a Definition,
    pub config: &'a WebhooksConfig,
    pub now: u64,
    pub random: u64,
}

/// What is known of an endpoint's outcomes, and what the store was not told yet.
#[derive(Default)]
pub(super) struct Outcomes {
    done: Vec<Queued>,
    changes: Vec<(String, Option<Vec<u8>>)>,
    dead: Vec<(Seq, DeadRecord)>,
    /// Entries of which the store has a document that they wait for a retry.
    pub kept: HashSet<Seq>,
    failing_since: Option<u64>,
    ticket: Ticket,
}

impl Outcomes {
    /// Of an endpoint that has failed since then.
    pub fn new(failing_since: Option<u64>) -> Outcomes {
        Outcomes {
            failing_since,
            ..Outcomes::default()
        }
    }

    /// The last that the store was told.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// It was enabled again: what was before does not count.
    pub fn forget_failures(&mut self) {
        self.failing_since = None;
    }

    /// This entry is not to be delivered.
    pub fn discard(&mut self, endpoint: &Endpoint, entry: Queued) {
        self.done.push(entry);
        self.drop_document(endpoint, entry.seq);
    }

    /// This entry does not wait for a retry any more.
    pub fn drop_document(&mut self, endpoint: &Endpoint, seq: Seq) {
        self.kept.remove(&seq);
        self.changes.push((retry_key(&endpoint.id, seq), None));
    }

    /// Takes in how an attempt ended. Answers a unit that is to be tried again, with when.
    pub fn take(
        &mut self,
        scene: &Scene<'_>,
        ended: Ended,
        verdict: Verdict,
    ) -> Option<(u64, Unit)> {
        let stats = &scene.webhooks.broker().stats.webhooks;
        stats.attempted(ended.end(verdict), ended.millis);
        let error = verdict::reason(&ended.result);
        scene
            .endpoint
            .attempts
            .record(attempt(&ended, error.as_deref()));
        if verdict == Verdict::Delivered {
            self.delivered(scene, &ended);
            return None;
        }
        let error = error.unwrap_or_default();
        tracing::debug!(endpoint = &*scene.endpoint.id, error, "an attempt failed");
        self.failed(scene, verdict, &error);
        let Ended {
            mut unit,
            messages,
            result,
            at_ms,
            ..
        } = ended;
        let status = result.as_ref().ok().map(|answer| answer.status.as_u16());
        unit.attempts += 1;
        if unit.attempts == 1 && !unit.is_kept {
            unit.first_ms = at_ms;
        }
        if let [entry] = unit.entries[..]
            && entry.qos == QoS::AtMostOnce
        {
            stats.discarded.add(1);
            self.discard(scene.endpoint, entry);
            return None;
        }
        let schedule = &scene.definition.retry_schedule;
        let Some(delay) = schedule.delay(unit.attempts as usize, scene.random) else {
            stats.dead.add(unit.entries.len() as u64);
            self.bury(scene.endpoint, &unit, &messages, status, &error, at_ms);
            return None;
        };
        let delay = match verdict {
            Verdict::SlowDown(after) => delay.max(after),
            _ => delay,
        };
        let due_ms = scene.now + delay.as_millis() as u64;
        unit.is_kept = true;
        let record = RetryRecord {
            attempts: unit.attempts,
            due_ms,
            first_ms: unit.first_ms,
            status,
            error: Some(error.into()),
            batch: (unit.entries.len() > 1).then_some(unit.first()),
        };
        let value = record.to_json();
        for entry in &unit.entries {
            self.kept.insert(entry.seq);
            let key = retry_key(&scene.endpoint.id, entry.seq);
            self.changes.push((key, Some(value.clone())));
        }
        Some((due_ms, unit))
    }

    fn delivered(&mut self, scene: &Scene<'_>, ended: &Ended) {
        let stats = &scene.webhooks.broker().stats.webhooks;
        stats.delivered.add(ended.unit.entries.len() as u64);
        for entry in &ended.unit.entries {
            self.done.push(*entry);
            if self.kept.contains(&entry.seq) {
                self.drop_document(scene.endpoint, entry.seq);
            }
        }
        if self.failing_since.take().is_some() {
            self.changes.push((failing_key(&scene.endpoint.id), None));
        }
        if let (Some(topic), Ok(answer)) = (&scene.definition.reply_topic, &ended.result) {
            reply(scene, topic, answer, &ended.messages);
        }
    }

    /// Counts a failure against the endpoint as a whole.
    fn failed(&mut self, scene: &Scene<'_>, verdict: Verdict, error: &str) {
        let id = &scene.endpoint.id;
        let since = *self.failing_since.get_or_insert_with(|| {
            let since_ms = scene.now;
            let value = FailingRecord { since_ms }.to_json();
            self.changes.push((failing_key(id), Some(value)));
            since_ms
        });
        let failing_for = scene.now.saturating_sub(since);
        let reason = match scene.config.disable_after {
            _ if verdict == Verdict::Gone => "it answered 410 Gone".to_owned(),
            Some(most) if failing_for >= most.as_millis() as u64 => {
                let hours = failing_for / 3_600_000;
                format!("no attempt has succeeded for {hours} hours; the last failed: {error}")
            }
            _ => return,
        };
        scene.webhooks.broker().stats.webhooks.disabled.add(1);
        scene.webhooks.disable(id, &reason);
    }

    /// A unit becomes dead letters.
    pub fn bury(
        &mut self,
        endpoint: &Endpoint,
        unit: &Unit,
        messages: &[Read],
        status: Option<u16>,
        error: &str,
        at_ms: u64,
    ) {
        for (entry, message) in messages {
            let record = DeadRecord {
                offset: entry.offset.0,
                size: entry.size,
                qos: entry.qos.as_u8(),
                retain: entry.retain,
                topic: message.topic().into(),
                attempts: unit.attempts,
                first_ms: match unit.attempts {
                    0 => at_ms,
                    _ => unit.first_ms,
                },
                last_ms: at_ms,
                status,
                error: error.into(),
            };
            let key = dead_key(&endpoint.id, entry.seq);
            self.changes.push((key, Some(record.to_json())));
            if self.kept.contains(&entry.seq) {
                self.drop_document(endpoint, entry.seq);
            }
            self.dead.push((entry.seq, record));
        }
    }

    /// Tells the store, in one step, and does not wait for it.
    pub fn settle(&mut self, endpoint: &Endpoint) {
        if self.done.is_empty() && self.changes.is_empty() {
            return;
        }
        self.tell(endpoint);
        // They are shown, and can be put back, only once their documents are on the way.
        for (seq, record) in std::mem::take(&mut self.dead) {
            for gone in endpoint.dead.insert(seq, record) {
                self.done.push(gone);
                self.changes.push((dead_key(&endpoint.id, gone.seq), None));
            }
        }
        if !self.done.is_empty() {
            self.tell(endpoint);
        }
    }

    fn tell(&mut self, endpoint: &Endpoint) {
        let changes: Vec<Change<'_>> = self
            .changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::Put {
                    key,
                    value,
                    expires_ms: None,
                },
                None => Change::Remove { key },
            })
            .collect();
        self.ticket = endpoint.queue.done(&self.done, &changes);
        self.done.clear();
        self.changes.clear();
    }

    /// The endpoint was removed: nothing of it stays.
    pub fn forget(&mut self, endpoint: &Endpoint) {
        (self.done, self.dead) = (Vec::new(), Vec::new());
        self.changes.clear();
        for seq in std::mem::take(&mut self.kept) {
            self.changes.push((retry_key(&endpoint.id, seq), None));
        }
        self.changes.push((failing_key(&endpoint.id), None));
        self.tell(endpoint);
    }
}

fn attempt(ended: &Ended, error: Option<&str>) -> Attempt {
    let first = ended.unit.entries.first();
    let answer = ended.result.as_ref().ok();
    let excerpt = answer
        .map(|answer| &answer.body)
        .filter(|body| !body.is_empty());
    Attempt {
        seq: ended.unit.first(),
        offset: first.map_or(0, |entry| entry.offset.0),
        messages: ended.unit.entries.len() as u32,
        attempt: ended.unit.attempts + 1,
        at_ms: ended.at_ms,
        millis: ended.millis as u32,
        status: answer.map(|answer| answer.status.as_u16()),
        error: error.map(Into::into),
        excerpt: excerpt.map(|body| {
            let some = &body[..body.len().min(EXCERPT_BYTES_MAX)];
            String::from_utf8_lossy(some).into()
        }),
    }
}

/// Publishes what an endpoint answered, on behalf of whom it belongs to. A message with Correlation
/// Data gets an answer with the same, as in a request and response of MQTT.
fn reply(scene: &Scene<'_>, topic: &str, answer: &Answer, messages: &[Read]) {
    let endpoint = &*scene.endpoint.id;
    if answer.is_cut {
        tracing::warn!(
            endpoint,
            "an answer longer than webhooks.response_bytes_max is not published"
        );
        return;
    }
    let Some(principal) = scene.endpoint.principal() else {
        return;
    };
    let mut properties = PropertiesBuilder::new();
    let content_type = answer.content_type.as_ref();
    if let Some(value) = content_type.and_then(|value| value.to_str().ok()) {
        properties.push(Property::ContentType(value));
    }
    if let [(_, message)] = messages
        && let Some(data) = Properties::from_stored(&message.properties).correlation_data()
    {
        properties.push(Property::CorrelationData(data));
    }
    properties.push(Property::UserProperty("webhook", endpoint));
    let broker = scene.webhooks.broker();
    let payload: &Bytes = &answer.body;
    let publication = Publication {
        qos: QoS::from_u8(broker.mqtt().max_qos.min(1)).unwrap_or(QoS::AtMostOnce),
        retain: false,
        properties: properties.as_properties(),
        payload,
        packet_id: None,
        shared_payload: Some(payload),
    };
    let published = broker.batch().publish_one(&principal, topic, publication);
    if let Err(error) = published {
        tracing::warn!(endpoint, topic, %error, "an answer could not be published");
    }
}
