//! Sending again: dead letters, or what a stream has.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::super::Edge;
use super::super::problem::Problem;
use super::super::query::Query;
use super::super::respond::{self, Body};
use super::{STATUS, TIME, is_filter, is_status, parse_time, read_object};
use crate::access::Principal;
use crate::config::Fields;
use crate::store::until_durable;
use crate::webhooks::{RATE_DEFAULT, RATE_MAX, Selection, StreamReplay, WebhookError};

const FIELDS: [&str; 8] = [
    "source",
    "stream",
    "topic",
    "since",
    "until",
    "status",
    "dry_run",
    "rate_limit",
];

#[derive(Clone, Copy, PartialEq)]
enum From {
    DeadLetters,
    Stream,
}

/// What is asked for.
struct Request {
    from: From,
    stream: Option<String>,
    selection: Selection,
    /// Messages a second.
    rate: Option<u32>,
    dry_run: bool,
}

/// `POST /v1/webhooks/{id}/replay`.
pub(super) async fn begin(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    edge.webhooks.get(principal, id)?;
    let object = read_object(edge, body).await?;
    let mut fields = Fields::of(&object);
    let request = read(edge, &mut fields);
    if !fields.errors.is_empty() {
        return Err(WebhookError::Invalid(fields.errors).into());
    }
    let Request {
        from,
        stream,
        selection,
        rate,
        dry_run,
    } = request;
    if from == From::DeadLetters {
        let webhooks = &edge.webhooks;
        let counts = webhooks.replay_dead(principal, id, &selection, rate, dry_run)?;
        until_durable(edge.broker.store(), counts.ticket).await?;
        return Ok(respond::json(
            &json!({"matched": counts.matched, "queued": counts.done, "running": false}),
        ));
    }
    let now_ms = edge.broker.clock.now().0;
    let request = StreamReplay {
        stream,
        topic: selection.topic,
        since_ms: selection.since_ms,
        // What is published from now on is delivered anyway.
        until_ms: selection.until_ms.unwrap_or(now_ms).min(now_ms),
        rate: rate.unwrap_or(RATE_DEFAULT),
        queued: 0,
        after: None,
    };
    let (webhooks, principal, id) = (Arc::clone(&edge.webhooks), principal.clone(), id.to_owned());
    let runtime = tokio::runtime::Handle::current();
    // To find where it begins it may wait for the disk.
    let working = tokio::task::spawn_blocking(move || {
        let _runtime = runtime.enter();
        match dry_run {
            true => {
                let matched = webhooks.count_stream(&principal, &id, &request)?;
                Ok::<_, WebhookError>((Some(matched), Default::default()))
            }
            false => {
                let ticket = webhooks.replay_stream(&principal, &id, request)?;
                Ok((None, ticket))
            }
        }
    });
    let (matched, ticket) = working
        .await
        .map_err(|_| Problem::unavailable("the replay failed: see the log"))??;
    until_durable(edge.broker.store(), ticket).await?;
    let running = matched.is_none();
    let mut response = respond::json(&json!({
        "matched": matched,
        "queued": 0,
        "running": running,
    }));
    if running {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(response)
}

fn read(edge: &Edge, fields: &mut Fields<'_>) -> Request {
    fields.refuse_unknown(&FIELDS);
    let now_ms = edge.broker.clock.now().0;
    let time = |text: &str| {
        let time = parse_time(text, now_ms).map(Some);
        time.ok_or_else(|| format!("{text:?} should be {TIME}"))
    };
    if fields.get("source").is_none() {
        fields.error("source", "say which: \"dead-letters\" or \"stream\"");
    }
    let from = fields.choice(
        "source",
        &[
            ("dead-letters", From::DeadLetters),
            ("stream", From::Stream),
        ],
    );
    let topic = fields.text("topic", None, |filter| match is_filter(edge, filter) {
        true => Ok(Some(filter.to_owned())),
        false => Err(format!(
            "{filter:?} should be a Topic Filter without $share"
        )),
    });
    let status = fields.take("status", None, |value| {
        let status = value.as_u64().and_then(|it| u16::try_from(it).ok());
        let status = status.filter(|&it| is_status(it)).map(Some);
        status.ok_or_else(|| format!("it should be {STATUS}"))
    });
    let stream = fields.text("stream", None, |name| Ok(Some(name.to_owned())));
    match from {
        From::DeadLetters if stream.is_some() => {
            fields.error("stream", "it goes with \"source\": \"stream\" alone");
        }
        From::Stream if status.is_some() => {
            let detail = "it goes with \"source\": \"dead-letters\" alone: of a stream's messages \
                          no attempt is known";
            fields.error("status", detail);
        }
        _ => {}
    }
    let rate = match fields.get("rate_limit") {
        Some(_) => {
            let rate = fields.integer("rate_limit", 1, 1, u64::from(RATE_MAX));
            u32::try_from(rate).ok()
        }
        None => None,
    };
    Request {
        from,
        stream,
        selection: Selection {
            topic,
            since_ms: fields.text("since", None, time),
            until_ms: fields.text("until", None, time),
            status,
        },
        rate,
        dry_run: fields.flag("dry_run", false),
    }
}

/// `DELETE /v1/webhooks/{id}/replay`: ends one out of a stream.
pub(super) async fn cancel(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let ticket = edge.webhooks.cancel_replay(principal, id)?;
    until_durable(edge.broker.store(), ticket).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
