//! Endpoints, attempts and dead letters, as they are shown.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use tidings_protocol::time::Rfc3339;

use super::super::Edge;
use crate::webhooks::{Attempt, DeadRecord, Endpoint, ReplayProgress, message_id};

pub(super) fn time(at_ms: u64) -> Value {
    Rfc3339::from_unix_ms(at_ms).as_str().into()
}

/// An endpoint. Its secret is not part of it.
pub(super) fn endpoint(edge: &Edge, endpoint: &Endpoint) -> Map<String, Value> {
    let now_ms = edge.broker.clock.now().0;
    let overview = endpoint.overview(now_ms);
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("id", (&*endpoint.id).into());
    put("source", endpoint.source.as_str().into());
    put("state", overview.state.as_str().into());
    if let crate::webhooks::State::Disabled { reason } = &overview.state {
        put("disabled_reason", (&**reason).into());
    }
    put("created", time(overview.created_ms));
    put("updated", time(overview.updated_ms));
    if let Some(public_key) = overview.public_key {
        put("public_key", public_key.into());
    }
    if let Some(until_ms) = overview.old_secret_until_ms {
        put("old_secret_until", time(until_ms));
    }
    put("queued", endpoint.queue.len().into());
    let retrying = endpoint.gauges.retrying.load(Ordering::Relaxed);
    put("retrying", retrying.into());
    put("dead_letters", endpoint.dead.len().into());
    if let Some(last) = endpoint.attempts.last() {
        put("last_attempt", attempt(edge, &last).into());
    }
    if let Some(progress) = endpoint.replay() {
        put("replay", replay(&progress));
    }
    shown.extend(endpoint.definition().to_json(true));
    shown
}

fn replay(progress: &ReplayProgress) -> Value {
    let request = &progress.request;
    json!({
        "stream": request.stream,
        "topic": request.topic,
        "since": request.since_ms.map(time),
        "until": time(request.until_ms),
        "rate_limit": request.rate,
        "queued": request.queued,
        "running": progress.is_running,
        "error": progress.error,
    })
}

/// An attempt.
pub(super) fn attempt(edge: &Edge, attempt: &Attempt) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    let id = message_id(edge.broker.log_epoch(), attempt.offset);
    put("message_id", id.into());
    put("seq", attempt.seq.into());
    put("messages", attempt.messages.into());
    put("attempt", attempt.attempt.into());
    put("time", time(attempt.at_ms));
    put("duration_ms", attempt.millis.into());
    put("delivered", attempt.error.is_none().into());
    put("status", attempt.status.into());
    put("error", attempt.error.as_deref().into());
    put("response", attempt.excerpt.as_deref().into());
    shown
}

/// A dead letter.
pub(super) fn dead_letter(edge: &Edge, seq: u64, letter: &DeadRecord) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("seq", seq.into());
    let id = message_id(edge.broker.log_epoch(), letter.offset);
    put("message_id", id.into());
    put("topic", (&*letter.topic).into());
    put("attempts", letter.attempts.into());
    put("first_attempt", time(letter.first_ms));
    put("last_attempt", time(letter.last_ms));
    put("status", letter.status.into());
    put("error", (&*letter.error).into());
    shown
}
