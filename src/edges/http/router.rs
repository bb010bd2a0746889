//! Which path is answered by whom.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    HeaderName, HeaderValue, IF_NONE_MATCH, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::auth::{authenticate, host_allowed, origin_allowed};
use super::problem::Problem;
use super::query::Query;
use super::respond::{self, Body};
use super::{Edge, events, health, metrics, mqtt_ws, publish, retained, ws};
use crate::access::{TICKET_LIFETIME_MS, TicketsFull};

const OPENAPI: &str = include_str!("openapi.json");

/// Answers a request.
pub(super) async fn answer(
    edge: Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let origin = request.headers().get(ORIGIN).cloned();
    let is_head = request.method() == Method::HEAD;
    let mut response = match route(&edge, peer, request).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    };
    add_cors(&edge, origin.as_ref(), &mut response);
    if is_head {
        let (parts, _) = response.into_parts();
        response = Response::from_parts(parts, respond::full(""));
    }
    response
}

/// The methods of a path; none if there is no such path.
fn allowed(edge: &Edge, path: &str) -> Option<&'static str> {
    match path {
        "/v1/publish" | "/v1/tickets" => Some("POST, OPTIONS"),
        "/v1/events" | "/v1/messages" | "/v1/ws" | "/mqtt" | "/healthz" | "/readyz"
        | "/metrics" | "/openapi.json" => Some("GET, HEAD, OPTIONS"),
        "/v1/retained" => Some("GET, HEAD, DELETE, OPTIONS"),
        _ if path.starts_with("/v1/topics/") => Some("GET, HEAD, POST, DELETE, OPTIONS"),
        _ if edge.page.file(path).is_some() => Some("GET, HEAD, OPTIONS"),
        _ => None,
    }
}

async fn route(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().to_owned();
    let methods = allowed(edge, &path).ok_or_else(|| Problem::not_found(&path))?;
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    if method == Method::OPTIONS {
        return Ok(preflight(methods));
    }
    if !methods.split(", ").any(|it| it == method.as_str()) {
        return Err(Problem::method_not_allowed(methods));
    }
    if !host_allowed(edge, request.headers(), request.uri()) {
        return Err(Problem::forbidden(
            "this server does not go by the name in Host: call it localhost, or name it in http.hosts",
        ));
    }
    // A browser sends some requests of any page without asking first (Fetch §3.2.1), and whoever
    // needs no password would be at the mercy of every page that is looked at.
    if method != Method::GET && !origin_allowed(edge, request.headers(), request.uri()) {
        return Err(Problem::forbidden(
            "a page of this origin may not change anything here: http.cors_origins names those that may",
        ));
    }
    if let Some(file) = edge.page.file(&path) {
        return Ok(page(file, request.headers().get(IF_NONE_MATCH)));
    }
    match path.as_str() {
        "/healthz" => return Ok(health::alive()),
        "/readyz" => return health::ready(edge),
        "/openapi.json" => return Ok(respond::with(StatusCode::OK, "application/json", OPENAPI)),
        "/mqtt" => return mqtt_ws::upgrade(edge, peer, request),
        "/v1/ws" => return ws::upgrade(edge, request).await,
        _ => {}
    }
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    let ticket = ticket_of(&parts)?;
    let who = authenticate(edge, &parts, "", ticket.as_deref()).await?;
    let principal = &who.principal;
    if let Some(topic) = path.strip_prefix("/v1/topics/") {
        return match method {
            Method::POST => publish::to_topic(edge, principal, topic, &parts, body).await,
            Method::DELETE => retained::delete(edge, principal, topic, &parts).await,
            _ => retained::get(edge, principal, topic, &parts),
        };
    }
    match path.as_str() {
        "/v1/publish" => publish::envelopes(edge, principal, &parts, body).await,
        "/v1/events" => events::stream(edge, &who, &parts).await,
        "/v1/messages" => events::poll(edge, &who, &parts).await,
        "/v1/retained" if method == Method::DELETE => {
            retained::delete_all(edge, principal, &parts).await
        }
        "/v1/retained" => retained::list(edge, principal, &parts),
        "/v1/tickets" => {
            Query::parse(parts.uri.query(), &[])?;
            match edge.tickets.issue(&who, edge.broker.clock.now().0) {
                Ok(ticket) => Ok(respond::json(&json!({
                    "ticket": ticket,
                    "expires_in": TICKET_LIFETIME_MS / 1000,
                }))),
                Err(TicketsFull) => Err(Problem::unavailable(
                    "there are access.tickets_max tickets that nobody has used yet",
                )),
            }
        }
        "/metrics" => Ok(metrics::show(edge)),
        _ => Err(Problem::not_found(&path)),
    }
}

/// The ticket in a query: for what browsers cannot give a header to.
pub(super) fn ticket_of(parts: &Parts) -> Result<Option<String>, Problem> {
    let streams = ["/v1/events", "/v1/messages", "/v1/ws"];
    if !streams.contains(&parts.uri.path()) {
        return Ok(None);
    }
    let of = |pair: &str| pair.strip_prefix("ticket=").map(str::to_owned);
    Ok(parts
        .uri
        .query()
        .and_then(|query| query.split('&').find_map(of)))
}

fn page(file: &super::page::File, known: Option<&HeaderValue>) -> Response<Body> {
    let is_known = known
        .and_then(|it| it.to_str().ok())
        .is_some_and(|it| file.is_known(it));
    let mut response = match is_known {
        true => respond::empty(StatusCode::NOT_MODIFIED),
        false => Response::new(respond::full(file.body.clone())),
    };
    for (name, value) in file.headers() {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What a browser asks before it lets a page of another origin do something.
fn preflight(methods: &'static str) -> Response<Body> {
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "authorization, content-type, last-event-id, cache-control, idempotency-key",
        ),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets pages of configured origins see the answer. The answer differs by origin, and caches have to
/// know that.
fn add_cors(edge: &Edge, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
    if edge.config.cors_origins.is_empty() {
        return;
    }
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    let allowed = origin.filter(|origin| {
        let known = |it: &String| it.as_bytes() == origin.as_bytes();
        edge.config.cors_origins.iter().any(known)
    });
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("tidings-qos, www-authenticate, retry-after"),
        );
    }
}
