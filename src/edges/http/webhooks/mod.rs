//! `/v1/webhooks`: endpoints made, looked at, changed and ended, and what is done with their dead
//! letters.
//!
//! What an endpoint may be is judged by [`crate::webhooks`]; this folder finds who answers a path,
//! reads requests and shows answers. It looks up where a URL leads, too, which nothing below the
//! edges may do.

mod dead_letters;
mod endpoints;
mod replay;
mod resolve;
mod show;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use tidings_protocol::time::{parse_duration, parse_rfc3339};
use tidings_protocol::topic::Filter;

use super::Edge;
use super::bodies::{self, Limit};
use super::envelope::json_problem;
use super::problem::Problem;
use super::query::{Query, decode, invalid};
use super::respond::Body;
use crate::access::Principal;
use crate::webhooks::{Selection, WebhookError};

const READ: &str = "GET, HEAD, OPTIONS";
const ACTION: &str = "POST, OPTIONS";

/// The paths, and their methods.
pub(super) const PATHS: [(&str, &str); 12] = [
    ("/v1/webhooks", "GET, HEAD, POST, OPTIONS"),
    ("/v1/webhooks/{id}", "GET, HEAD, PATCH, DELETE, OPTIONS"),
    ("/v1/webhooks/{id}/enable", ACTION),
    ("/v1/webhooks/{id}/disable", ACTION),
    ("/v1/webhooks/{id}/pause", ACTION),
    ("/v1/webhooks/{id}/resume", ACTION),
    ("/v1/webhooks/{id}/rotate-secret", ACTION),
    ("/v1/webhooks/{id}/test", ACTION),
    ("/v1/webhooks/{id}/attempts", READ),
    (
        "/v1/webhooks/{id}/dead-letters",
        "GET, HEAD, DELETE, OPTIONS",
    ),
    (
        "/v1/webhooks/{id}/dead-letters/{seq}",
        "GET, HEAD, DELETE, OPTIONS",
    ),
    ("/v1/webhooks/{id}/replay", "POST, DELETE, OPTIONS"),
];

/// Parameters of `GET /v1/webhooks` and of `GET /v1/webhooks/{id}/attempts`.
pub(super) const LIST_QUERY: &[&str] = &["limit", "cursor"];
/// Parameters of `GET /v1/webhooks/{id}/dead-letters`.
pub(super) const DEAD_LETTERS_QUERY: &[&str] =
    &["topic", "since", "until", "status", "limit", "cursor"];
/// Parameters of `DELETE /v1/webhooks/{id}/dead-letters`.
pub(super) const DISCARD_QUERY: &[&str] = &["topic", "since", "until", "status", "dry_run"];

/// Answers a request for a path below `/v1/webhooks`; `rest` is what follows that.
pub(super) async fn answer(
    edge: &Arc<Edge>,
    principal: &Principal,
    rest: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let is_get = parts.method == Method::GET;
    let is_delete = parts.method == Method::DELETE;
    if rest.is_empty() {
        return match is_get {
            true => endpoints::list(edge, principal, parts),
            false => endpoints::create(edge, principal, parts, body).await,
        };
    }
    let mut segments = rest.trim_start_matches('/').split('/');
    let id = decode("id", segments.next().unwrap_or_default())?;
    let (action, seq) = (segments.next(), segments.next());
    match (action, seq) {
        (None, _) if is_get => endpoints::get(edge, principal, &id, parts),
        (None, _) if is_delete => endpoints::delete(edge, principal, &id, parts).await,
        (None, _) => endpoints::patch(edge, principal, &id, parts, body).await,
        (Some("attempts"), None) => endpoints::attempts(edge, principal, &id, parts),
        (Some("dead-letters"), None) if is_delete => {
            dead_letters::discard_all(edge, principal, &id, parts).await
        }
        (Some("dead-letters"), None) => dead_letters::list(edge, principal, &id, parts),
        (Some("dead-letters"), Some(seq)) => {
            Query::parse(parts.uri.query(), &[])?;
            // What is no number is none of them.
            let seq = seq.parse().map_err(|_| WebhookError::NoDeadLetter)?;
            match is_delete {
                true => dead_letters::discard(edge, principal, &id, seq).await,
                false => dead_letters::get(edge, principal, &id, seq).await,
            }
        }
        (Some("replay"), None) if is_delete => replay::cancel(edge, principal, &id, parts).await,
        (Some("replay"), None) => replay::begin(edge, principal, &id, parts, body).await,
        (Some(action), None) => endpoints::act(edge, principal, &id, action, parts).await,
        _ => Err(Problem::not_found(parts.uri.path())),
    }
}

/// The largest definition there can be is smaller.
const LIMIT: Limit = Limit {
    bytes: 256 * 1024,
    name: "a webhook is no larger",
};

/// The body, which is one JSON object.
async fn read_object(edge: &Edge, body: Incoming) -> Result<Map<String, Value>, Problem> {
    let body = bodies::read_at_most(edge, body, LIMIT).await?;
    let text = body.text()?;
    serde_json::from_str(text).map_err(|error| json_problem(&error, text, text))
}

/// Which dead letters are meant.
fn selection(edge: &Edge, query: &Query<'_>) -> Result<Selection, Problem> {
    let now_ms = edge.broker.clock.now().0;
    let time = |it: &str| parse_time(it, now_ms);
    let topic = match query.filters("topic")?[..] {
        [] => None,
        [filter] if is_filter(edge, filter) => Some(filter.to_owned()),
        [filter] => return Err(invalid("topic", filter, "a Topic Filter without $share")),
        _ => return Err(invalid("topic", "several", "one Topic Filter")),
    };
    Ok(Selection {
        topic,
        since_ms: query.parsed("since", TIME, time)?,
        until_ms: query.parsed("until", TIME, time)?,
        status: query.parsed("status", STATUS, |it| {
            it.parse().ok().filter(|&it| is_status(it))
        })?,
    })
}

const TIME: &str =
    "a time such as 2026-01-31T12:00:00Z, or a duration such as 2h, which is that long ago";
const STATUS: &str = "a status from 100 to 599, or 0 for no response";

fn is_status(status: u16) -> bool {
    status == 0 || (100..=599).contains(&status)
}

fn is_filter(edge: &Edge, filter: &str) -> bool {
    let parsed = Filter::parse(filter, &edge.broker.topic_limits());
    parsed.is_ok_and(|it| it.share.is_none())
}

/// A time, or how long ago it was; in Unix milliseconds.
fn parse_time(text: &str, now_ms: u64) -> Option<u64> {
    if let Ok(ago) = parse_duration(text) {
        return Some(now_ms.saturating_sub(ago.as_millis() as u64));
    }
    parse_rfc3339(text).ok()
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Problem {
        let detail = error.to_string();
        match error {
            WebhookError::NotFound | WebhookError::NoDeadLetter => Problem::new(
                StatusCode::NOT_FOUND,
                "not-found",
                "There is nothing here",
                detail,
            ),
            WebhookError::Invalid(errors) => {
                let errors: Vec<Value> = errors
                    .into_iter()
                    .map(|it| json!({"field": it.field, "detail": it.detail}))
                    .collect();
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid-webhook",
                    "Some fields are wrong",
                    detail,
                )
                .with(json!({ "errors": errors }))
            }
            WebhookError::NotAuthorized(_) => Problem::forbidden(detail),
            WebhookError::Conflict(_) => Problem::new(
                StatusCode::CONFLICT,
                "conflict",
                "It does not go with how the webhook is",
                detail,
            ),
            WebhookError::TooMany | WebhookError::Vault(_) | WebhookError::Store(_) => {
                Problem::unavailable(detail)
            }
        }
    }
}
