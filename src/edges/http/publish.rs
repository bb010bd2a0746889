//! Publishing: the body as the payload, or JSON envelopes.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_protocol::mqtt::QoS;

use super::Edge;
use super::envelope::{self, Outgoing, Properties, json_problem, parse_qos};
use super::idempotency::Begin;
use super::problem::Problem;
use super::query::{Query, topic_of};
use super::respond::{self, Body};
use crate::access::Principal;
use crate::broker::{Publication, Published, Remembered, RouteCache, Run};
use crate::store::until_durable;

/// Parameters of `POST /v1/topics/{topic}`.
pub(super) const TO_TOPIC_QUERY: &[&str] = &[
    "qos",
    "retain",
    "expiry",
    "content_type",
    "response_topic",
    "correlation_data",
    "user.",
];

/// Messages in one array.
const MESSAGES_MAX: usize = 10_000;

/// What curl says of a body that it was given without a type; nobody means it.
const CURL_DEFAULT: &str = "application/x-www-form-urlencoded";

/// Reads a whole body, within limits of size and time.
pub(super) async fn read_body(edge: &Edge, body: Incoming) -> Result<Bytes, Problem> {
    let bytes_max = edge.config.body_max;
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(edge.config.body_timeout, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(bytes_max)),
        Ok(Err(error)) => Err(Problem::bad_request(
            "broken-body",
            "The body did not arrive whole",
            error.to_string(),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The body took too long",
            "send it within http.body_timeout",
        )),
    }
}

/// Publishes; whoever gets the answer has to wait for its ticket before a promise is made.
pub(super) fn publish(
    edge: &Edge,
    principal: &Principal,
    message: &Outgoing,
) -> Result<Published, Problem> {
    publish_with(edge, principal, message, None)
}

fn publish_with(
    edge: &Edge,
    principal: &Principal,
    message: &Outgoing,
    remembered: Option<Remembered>,
) -> Result<Published, Problem> {
    let properties = message.check(edge)?;
    let publication = Publication {
        qos: message.qos,
        retain: message.retain,
        properties: properties.as_properties(),
        payload: &message.payload,
        packet_id: None,
        shared_payload: Some(&message.payload),
    };
    let mut batch = edge.broker.batch();
    let route = batch.route(principal, &message.topic, &mut RouteCache::default())?;
    let run = Run {
        topic: &message.topic,
        publications: &[publication],
        publisher: 0,
        publisher_is_kept: false,
        bell: None,
    };
    if let Some(remembered) = remembered {
        batch.remember(remembered);
    }
    let published = batch.publish(&route, &run)?;
    let stats = &edge.broker.stats;
    stats.publish_received.add(1);
    Ok(published)
}

/// What is said of a message that was published.
pub(super) fn result(message: &Outgoing, published: &Published) -> Value {
    json!({"matched": published.matched, "qos": message.qos.as_u8()})
}

/// `POST /v1/topics/{topic}`.
pub(super) async fn to_topic(
    edge: &Arc<Edge>,
    principal: &Principal,
    topic: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let topic = topic_of(topic, &edge.broker.topic_limits())?;
    let query = Query::parse(parts.uri.query(), TO_TOPIC_QUERY)?;
    let qos = query
        .parsed("qos", "0, 1 or 2", |it| it.parse().ok())?
        .unwrap_or(1);
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|it| it.to_str().ok());
    let properties = Properties {
        payload_format_indicator: None,
        content_type: query
            .get("content_type")
            .or(content_type.filter(|it| *it != CURL_DEFAULT))
            .map(str::to_owned),
        response_topic: query.get("response_topic").map(str::to_owned),
        correlation_data: query.get("correlation_data").map(str::to_owned),
        message_expiry_interval: query
            .parsed("expiry", "a number of seconds", |it| it.parse().ok())?,
        user_properties: query
            .with_prefix("user.")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let message = Outgoing {
        topic,
        payload: read_body(edge, body).await?,
        qos: parse_qos(qos)?,
        retain: query.flag("retain")?,
        properties,
    };
    publish_one(edge, principal, parts, &message).await
}

/// Publishes one message, once if the request has an `Idempotency-Key`, and answers.
async fn publish_one(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
    message: &Outgoing,
) -> Result<Response<Body>, Problem> {
    let claim = match edge.keys.begin(&edge.broker, principal, parts, message)? {
        None => None,
        Some(Begin::New(claim)) => Some(claim),
        Some(Begin::Known(answer, ticket)) => {
            until_durable(edge.broker.store(), ticket).await?;
            let mut response = respond::json(&answer);
            let replayed = HeaderName::from_static("idempotent-replayed");
            response
                .headers_mut()
                .insert(replayed, HeaderValue::from_static("true"));
            return Ok(response);
        }
    };
    let qos = message.qos.as_u8();
    let remembered = claim
        .as_ref()
        .map(|claim| claim.document(move |matched| json!({"matched": matched, "qos": qos})));
    let published = publish_with(edge, principal, message, remembered)?;
    let answer = result(message, &published);
    let promised = claim.is_some();
    if let Some(claim) = claim {
        claim.answered(answer.clone(), published.ticket);
    }
    if promised {
        until_durable(edge.broker.store(), published.ticket).await?;
    } else {
        settle(edge, message, &published).await?;
    }
    Ok(respond::json(&answer))
}

/// Waits until what the answer promises is true: for QoS 0 that is nothing.
async fn settle(edge: &Edge, message: &Outgoing, published: &Published) -> Result<(), Problem> {
    if message.qos != QoS::AtMostOnce {
        until_durable(edge.broker.store(), published.ticket).await?;
    }
    Ok(())
}

/// `POST /v1/publish`: one envelope, or an array with one result for each.
pub(super) async fn envelopes(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let body = read_body(edge, body).await?;
    let text = std::str::from_utf8(&body).map_err(|error| {
        Problem::bad_request(
            "invalid-json",
            "Not the JSON that is wanted here",
            error.to_string(),
        )
    })?;
    if !text.trim_start().starts_with('[') {
        let message = envelope::read(text)?;
        return publish_one(edge, principal, parts, &message).await;
    }
    if parts.headers.contains_key("idempotency-key") {
        return Err(Problem::bad_request(
            "invalid-key",
            "An Idempotency-Key is for one message",
            "send the messages one by one, each with a key of its own; nothing was published",
        ));
    }
    let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|it| json_problem(&it))?;
    if all.len() > MESSAGES_MAX {
        return Err(Problem::bad_request(
            "too-many",
            "Too many messages at once",
            format!("an array holds at most {MESSAGES_MAX} messages; nothing was published"),
        ));
    }
    // Each has its own result: what is wrong with one is no reason to keep back another.
    let results: Vec<(Value, Option<Published>)> = all
        .iter()
        .map(|raw| {
            let published = envelope::read(raw.get())
                .and_then(|message| Ok((publish(edge, principal, &message)?, message)));
            match published {
                Ok((published, message)) => (result(&message, &published), Some(published)),
                Err(problem) => (problem.json(), None),
            }
        })
        .collect();
    let last = results
        .iter()
        .filter_map(|(_, it)| it.as_ref())
        .map(|it| it.ticket)
        .max();
    if let Some(ticket) = last {
        until_durable(edge.broker.store(), ticket).await?;
    }
    let results: Vec<Value> = results.into_iter().map(|(result, _)| result).collect();
    Ok(respond::json(&Value::Array(results)))
}
