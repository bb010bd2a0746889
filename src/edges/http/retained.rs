//! Retained Messages: of one topic, or of all that match a filter.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;
use tidings_protocol::mqtt::QoS;
use tidings_protocol::topic::{self, Filter};

use super::Edge;
use super::envelope::{Outgoing, Properties};
use super::problem::Problem;
use super::property_headers;
use super::publish::{publish, until_taken};
use super::query::{PAGE_MAX, Query, invalid, topic_of};
use super::render::write_envelope;
use super::respond::{self, Body};
use crate::access::Principal;
use crate::broker::Message;
use crate::store::{Ticket, until_durable};

/// Parameters of `GET /v1/topics/{topic}`.
pub(super) const GET_QUERY: &[&str] = &["format"];
/// Parameters of `GET /v1/retained`.
pub(super) const LIST_QUERY: &[&str] = &["filter", "limit", "cursor"];
/// Parameters of `DELETE /v1/retained`.
pub(super) const DELETE_ALL_QUERY: &[&str] = &["filter"];

fn is_readable(principal: &Principal, topic: &str) -> Result<(), Problem> {
    // As for a subscription to this very topic.
    match principal.may_subscribe(topic) && principal.may_receive(topic) {
        true => Ok(()),
        false => Err(Problem::forbidden(format!("no right to read {topic:?}"))),
    }
}

/// `GET /v1/topics/{topic}`: the payload, or with `format=json` the envelope.
pub(super) fn get(
    edge: &Edge,
    principal: &Principal,
    topic: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let topic = topic_of(topic, &edge.broker.topic_limits())?;
    let query = Query::parse(parts.uri.query(), GET_QUERY)?;
    let as_json = match query.get("format") {
        None | Some("raw") => false,
        Some("json") => true,
        Some(other) => return Err(invalid("format", other, "raw or json")),
    };
    is_readable(principal, &topic)?;
    let message = edge.broker.retained(&topic).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-retained-message",
            "This topic has no retained message",
            "publish one with retain=true",
        )
    })?;
    if as_json {
        return Ok(respond::with(
            StatusCode::OK,
            "application/json",
            envelope(&message),
        ));
    }
    let payload = match message.shared_payload() {
        Some(shared) => shared.clone(),
        None => Bytes::copy_from_slice(message.payload()),
    };
    let mut response = respond::with(StatusCode::OK, "application/octet-stream", payload);
    let headers = response.headers_mut();
    // A payload must not become a page of this server.
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    property_headers::add(&message, edge.broker.clock.now(), headers);
    let content_type = message.properties().content_type();
    let value = content_type.and_then(|it| HeaderValue::from_str(it).ok());
    let value = value.or_else(|| {
        let is_text = std::str::from_utf8(message.payload()).is_ok();
        is_text.then(|| HeaderValue::from_static("text/plain; charset=utf-8"))
    });
    if let Some(value) = value {
        headers.insert(CONTENT_TYPE, value);
    }
    Ok(response)
}

fn envelope(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    write_envelope(message, true, None, None, &mut out);
    out
}

/// Clears the message of a topic; answers whether there was one, and what the store must have
/// before that is certain.
async fn clear(
    edge: &Edge,
    principal: &Principal,
    topic: String,
) -> Result<(bool, Ticket), Problem> {
    let message = Outgoing {
        topic,
        payload: Bytes::new(),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::default(),
    };
    until_taken(edge, &message).await;
    let there = edge.broker.retained(&message.topic).is_some();
    let published = publish(edge, principal, &message)?;
    Ok((there, published.ticket))
}

/// `DELETE /v1/topics/{topic}`: as publishing an empty one [MQTT-3.3.1-6].
pub(super) async fn delete(
    edge: &Arc<Edge>,
    principal: &Principal,
    topic: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let topic = topic_of(topic, &edge.broker.topic_limits())?;
    Query::parse(parts.uri.query(), &[])?;
    let (there, ticket) = clear(edge, principal, topic).await?;
    until_durable(edge.broker.store(), ticket).await?;
    Ok(respond::json(&json!({"cleared": usize::from(there)})))
}

fn one_filter(edge: &Edge, query: &Query<'_>, principal: &Principal) -> Result<String, Problem> {
    let filters = query.filters("filter")?;
    let [filter] = filters[..] else {
        return Err(Problem::bad_request(
            "no-topic",
            "No Topic Filter",
            "say which messages are meant: ?filter=sensors/%23",
        ));
    };
    let parsed = Filter::parse(filter, &edge.broker.topic_limits());
    if !parsed.is_ok_and(|it| it.share.is_none() && it.since.is_none()) {
        let expected = "a Topic Filter without $share and $replay";
        return Err(invalid("filter", filter, expected));
    }
    match principal.may_subscribe(filter) {
        true => Ok(filter.to_owned()),
        false => Err(Problem::forbidden(format!("no right to read {filter:?}"))),
    }
}

/// `GET /v1/retained?filter=…`: envelopes by topic, page by page. What may not be read is as if it
/// were not there: a page is full if there is more, and a cursor is made of what was shown.
pub(super) async fn list(
    edge: &Edge,
    principal: &Principal,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), LIST_QUERY)?;
    let filter = one_filter(edge, &query, principal)?;
    let limit = query.limit()?;
    let mut after: Option<Arc<str>> = match query.get("cursor") {
        Some(cursor) => Some(topic_of_cursor(cursor, &filter)?),
        None => None,
    };
    // One more than are shown tells whether that is all.
    let mut found: Vec<Arc<Message>> = Vec::new();
    while found.len() <= limit {
        let (some, next) = edge
            .broker
            .retained_list(&filter, after.as_deref(), PAGE_MAX);
        let may_read = |message: &Arc<Message>| principal.may_receive(message.topic());
        found.extend(
            some.into_iter()
                .filter(may_read)
                .take(limit + 1 - found.len()),
        );
        after = next;
        if after.is_none() {
            break;
        }
        // Others have a turn: there may be very many that are not for this one.
        tokio::task::yield_now().await;
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let messages: Vec<Box<RawValue>> = found
        .iter()
        .filter_map(|message| {
            let text = String::from_utf8(envelope(message)).ok()?;
            RawValue::from_string(text).ok()
        })
        .collect();
    let page = serde_json::to_string(&Page {
        messages,
        next: last.map(|last| BASE64.encode(last.topic())),
    });
    match page {
        Ok(page) => Ok(respond::with(StatusCode::OK, "application/json", page)),
        Err(error) => Err(Problem::unavailable(error.to_string())),
    }
}

/// The topic after which a page begins. A cursor is the last topic that was shown, in a form that
/// needs no encoding in a query and that nobody is tempted to take apart.
fn topic_of_cursor(cursor: &str, filter: &str) -> Result<Arc<str>, Problem> {
    let decoded = BASE64.decode(cursor).ok();
    let topic = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match topic.filter(|it| topic::matches(filter, it)) {
        Some(topic) => Ok(topic.into()),
        None => Err(invalid(
            "cursor",
            cursor,
            "next of a page of the same filter",
        )),
    }
}

#[derive(serde::Serialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    /// To be given as `cursor`; null on the last page.
    next: Option<String>,
}

/// `DELETE /v1/retained?filter=…`.
pub(super) async fn delete_all(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), DELETE_ALL_QUERY)?;
    let filter = one_filter(edge, &query, principal)?;
    let (mut cleared, mut denied) = (0_u64, 0_u64);
    let mut after: Option<Arc<str>> = None;
    loop {
        let (found, next) = edge
            .broker
            .retained_list(&filter, after.as_deref(), PAGE_MAX);
        // One wait for all of them.
        let mut last = Ticket::default();
        for message in found {
            let topic = message.topic();
            if !principal.may_publish(topic) {
                // Nobody learns how many there are of what may not be read.
                denied += u64::from(principal.may_receive(topic));
                continue;
            }
            let (there, ticket) = clear(edge, principal, topic.to_owned()).await?;
            cleared += u64::from(there);
            last = last.max(ticket);
        }
        until_durable(edge.broker.store(), last).await?;
        match next {
            Some(next) => after = Some(next),
            None => {
                return Ok(respond::json(
                    &json!({"cleared": cleared, "denied": denied}),
                ));
            }
        }
    }
}
