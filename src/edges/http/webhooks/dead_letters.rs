//! Dead letters: listed, read, discarded.

use std::sync::Arc;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::Edge;
use super::super::problem::Problem;
use super::super::query::Query;
use super::super::render::write_envelope;
use super::super::respond::{self, Body};
use super::{DEAD_LETTERS_QUERY, DISCARD_QUERY, selection, show};
use crate::access::Principal;
use crate::broker::Message;
use crate::store::{StoredMessage, until_durable};

/// `GET /v1/webhooks/{id}/dead-letters`: page by page, in their order in the queue.
pub(super) fn list(
    edge: &Edge,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), DEAD_LETTERS_QUERY)?;
    let selection = selection(edge, &query)?;
    let limit = query.limit()?;
    let after = query.parsed("cursor", "next of the page before", |it| it.parse().ok())?;
    let after = after.unwrap_or(0);
    let webhooks = &edge.webhooks;
    let mut found = webhooks.dead_letters(principal, id, after, limit + 1, &selection)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|it| it.0.to_string());
    let shown: Vec<Map<String, Value>> = found
        .iter()
        .map(|(seq, letter)| show::dead_letter(edge, *seq, letter))
        .collect();
    Ok(respond::json(&json!({"dead_letters": shown, "next": next})))
}

/// `GET /v1/webhooks/{id}/dead-letters/{seq}`: with the message.
pub(super) async fn get(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    seq: u64,
) -> Result<Response<Body>, Problem> {
    let letter = edge.webhooks.dead_letter(principal, id, seq)?;
    let (broker, entry) = (Arc::clone(&edge.broker), letter.queued(seq));
    let reading = tokio::task::spawn_blocking(move || broker.read_queued(&[entry]).pop().flatten());
    let read = reading
        .await
        .map_err(|_| Problem::unavailable("reading the message failed: see the log"))?;
    #[derive(serde::Serialize)]
    struct Shown {
        #[serde(flatten)]
        letter: Map<String, Value>,
        /// Null if it cannot be read any more.
        message: Option<Box<RawValue>>,
    }
    let shown = Shown {
        letter: show::dead_letter(edge, seq, &letter),
        message: read.and_then(|stored| envelope(edge, &stored)),
    };
    match serde_json::to_string(&shown) {
        Ok(shown) => Ok(respond::with(StatusCode::OK, "application/json", shown)),
        Err(error) => Err(Problem::unavailable(error.to_string())),
    }
}

fn envelope(edge: &Edge, stored: &StoredMessage) -> Option<Box<RawValue>> {
    let mut out = Vec::new();
    let id = format!("{}.{}", edge.broker.log_epoch(), stored.offset);
    let message = Message::from_stored(stored);
    let at_ms = Some(stored.published_ms);
    write_envelope(&message, stored.retain, Some(&id), at_ms, &mut out);
    RawValue::from_string(String::from_utf8(out).ok()?).ok()
}

/// `DELETE /v1/webhooks/{id}/dead-letters/{seq}`.
pub(super) async fn discard(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    seq: u64,
) -> Result<Response<Body>, Problem> {
    let ticket = edge.webhooks.discard(principal, id, seq)?;
    until_durable(edge.broker.store(), ticket).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// `DELETE /v1/webhooks/{id}/dead-letters`: those that are selected.
pub(super) async fn discard_all(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), DISCARD_QUERY)?;
    let selection = selection(edge, &query)?;
    let dry_run = query.flag("dry_run")?;
    let counts = edge
        .webhooks
        .discard_all(principal, id, &selection, dry_run)?;
    until_durable(edge.broker.store(), counts.ticket).await?;
    Ok(respond::json(
        &json!({"matched": counts.matched, "discarded": counts.done}),
    ))
}
