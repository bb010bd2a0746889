//! Endpoints: made, listed, shown, changed, stopped and started, ended.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::super::Edge;
use super::super::problem::Problem;
use super::super::query::Query;
use super::super::respond::{self, Body};
use super::{LIST_QUERY, read_object, resolve, show};
use crate::access::Principal;
use crate::store::{Ticket, until_durable};
use crate::webhooks::Endpoint;

/// `POST /v1/webhooks`: the endpoint, with its secret, which is shown this once.
pub(super) async fn create(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let fields = read_object(edge, body).await?;
    let definition = edge.webhooks.draft(principal, &fields)?;
    resolve::check(&definition.url, &edge.webhooks.config()).await?;
    let made = edge.webhooks.create(definition)?;
    let (endpoint, secret) = made.value;
    until_durable(edge.broker.store(), made.ticket).await?;
    let mut response = with_secret(edge, &endpoint, secret);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/webhooks/{}", endpoint.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn with_secret(edge: &Edge, endpoint: &Endpoint, secret: String) -> Response<Body> {
    let mut shown = show::endpoint(edge, endpoint);
    shown.insert("secret".to_owned(), secret.into());
    respond::json(&Value::Object(shown))
}

/// The answer about an endpoint, once what was done is certain.
async fn shown(
    edge: &Edge,
    endpoint: &Endpoint,
    ticket: Ticket,
) -> Result<Response<Body>, Problem> {
    until_durable(edge.broker.store(), ticket).await?;
    let shown = show::endpoint(edge, endpoint);
    Ok(respond::json(&Value::Object(shown)))
}

/// `GET /v1/webhooks`: page by page, in the order of the identifiers.
pub(super) fn list(
    edge: &Edge,
    principal: &Principal,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), LIST_QUERY)?;
    let limit = query.limit()?;
    let after = query.get("cursor").unwrap_or_default();
    // One more tells whether there are more.
    let mut found = edge.webhooks.list(principal, after, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|it| it.id.clone());
    let shown: Vec<Map<String, Value>> = found.iter().map(|it| show::endpoint(edge, it)).collect();
    Ok(respond::json(&json!({"webhooks": shown, "next": next})))
}

/// `GET /v1/webhooks/{id}`.
pub(super) fn get(
    edge: &Edge,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let endpoint = edge.webhooks.get(principal, id)?;
    let shown = show::endpoint(edge, &endpoint);
    Ok(respond::json(&Value::Object(shown)))
}

/// `PATCH /v1/webhooks/{id}`: a JSON Merge Patch (RFC 7396).
pub(super) async fn patch(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    // Whoever may not know of it learns nothing from what is wrong with the patch.
    edge.webhooks.get(principal, id)?;
    let patch = read_object(edge, body).await?;
    let draft = edge.webhooks.redraft(principal, id, &patch)?;
    resolve::check(&draft.definition.url, &edge.webhooks.config()).await?;
    let made = edge.webhooks.replace(principal, id, draft)?;
    shown(edge, &made.value, made.ticket).await
}

/// `DELETE /v1/webhooks/{id}`.
pub(super) async fn delete(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let ticket = edge.webhooks.delete(principal, id)?;
    until_durable(edge.broker.store(), ticket).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// `POST /v1/webhooks/{id}/{action}`. A body is not looked at.
pub(super) async fn act(
    edge: &Arc<Edge>,
    principal: &Principal,
    id: &str,
    action: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let webhooks = &edge.webhooks;
    let made = match action {
        "enable" => webhooks.enable(principal, id)?,
        "disable" => webhooks.disable_by(principal, id)?,
        "pause" => webhooks.pause(principal, id, true)?,
        "resume" => webhooks.pause(principal, id, false)?,
        "rotate-secret" => {
            let made = webhooks.rotate_secret(principal, id)?;
            let (endpoint, secret) = made.value;
            until_durable(edge.broker.store(), made.ticket).await?;
            return Ok(with_secret(edge, &endpoint, secret));
        }
        "test" => {
            let ticket = webhooks.test(principal, id)?;
            until_durable(edge.broker.store(), ticket).await?;
            let mut response = respond::json(&json!({"queued": 1}));
            *response.status_mut() = StatusCode::ACCEPTED;
            return Ok(response);
        }
        _ => return Err(Problem::not_found(parts.uri.path())),
    };
    shown(edge, &made.value, made.ticket).await
}

/// `GET /v1/webhooks/{id}/attempts`: the latest first.
pub(super) fn attempts(
    edge: &Edge,
    principal: &Principal,
    id: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), LIST_QUERY)?;
    let limit = query.limit()?;
    let before = query.parsed("cursor", "next of the page before", |it| it.parse().ok())?;
    let endpoint = edge.webhooks.get(principal, id)?;
    let mut found = endpoint
        .attempts
        .list(before.unwrap_or(u64::MAX), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next = next.map(|(number, _)| number.to_string());
    let shown: Vec<Map<String, Value>> = found
        .iter()
        .map(|(_, attempt)| show::attempt(edge, attempt))
        .collect();
    Ok(respond::json(&json!({"attempts": shown, "next": next})))
}
