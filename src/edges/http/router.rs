//! Which path is answered by whom.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    HeaderName, HeaderValue, IF_NONE_MATCH, ORIGIN, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::auth::{authenticate, browser_may_ask, host_allowed, origin_allowed};
use super::page::{File, Page};
use super::problem::{BEARER_CHALLENGE, Problem};
use super::query::{Query, decode, invalid};
use super::respond::{self, Body};
use super::{
    Edge, events, health, login, metrics, mqtt_ws, publish, retained, sessions, webhooks, ws,
};
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
    let browser_asks = browser_may_ask(request.headers());
    let mut response = match route(&edge, peer, request).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED && !browser_asks {
        let challenge = HeaderValue::from_static(BEARER_CHALLENGE);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    add_cors(&edge, origin.as_ref(), &mut response);
    if is_head {
        let (parts, _) = response.into_parts();
        response = Response::from_parts(parts, respond::full(""));
    }
    response
}

const READ_ONLY: &str = "GET, HEAD, OPTIONS";

/// All paths but those of the page, and their methods. `{topic}` is the rest of a path, slashes
/// included; another name in braces stands for one segment.
const OTHER_PATHS: [(&str, &str); 15] = [
    ("/v1/topics/{topic}", "GET, HEAD, POST, DELETE, OPTIONS"),
    ("/v1/publish", "POST, OPTIONS"),
    ("/v1/events", READ_ONLY),
    ("/v1/messages", READ_ONLY),
    ("/v1/ws", READ_ONLY),
    ("/v1/sessions/{session}", "DELETE, OPTIONS"),
    ("/v1/sessions/{session}/ack", "POST, OPTIONS"),
    ("/v1/retained", "GET, HEAD, DELETE, OPTIONS"),
    ("/v1/tickets", "POST, OPTIONS"),
    ("/v1/login", "GET, HEAD, POST, DELETE, OPTIONS"),
    ("/mqtt", READ_ONLY),
    ("/healthz", READ_ONLY),
    ("/readyz", READ_ONLY),
    ("/metrics", READ_ONLY),
    ("/openapi.json", READ_ONLY),
];

fn known_paths() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    OTHER_PATHS.iter().chain(&webhooks::PATHS)
}

/// The methods of a path; none if there is no such path.
fn allowed(page: &Page, path: &str) -> Option<&'static str> {
    let is = |known: &str| match known.strip_suffix("{topic}") {
        Some(prefix) => path.starts_with(prefix),
        None => path == known || has_form(path, known),
    };
    let known = known_paths().find(|(known, _)| is(known));
    known
        .map(|(_, methods)| *methods)
        .or_else(|| page.file(path).map(|_| READ_ONLY))
}

/// Whether a path has the segments of `form`, each that is a name in braces being anything but
/// nothing.
fn has_form(path: &str, form: &str) -> bool {
    let is = |(segment, form): (&str, &str)| match form.starts_with('{') {
        true => !segment.is_empty(),
        false => segment == form,
    };
    form.contains('{')
        && path.split('/').count() == form.split('/').count()
        && path.split('/').zip(form.split('/')).all(is)
}

async fn route(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().to_owned();
    if path == "*" && request.method() == Method::OPTIONS {
        // The server as a whole (RFC 9110 §9.3.7).
        return Ok(preflight("GET, HEAD, POST, DELETE, OPTIONS"));
    }
    let methods = allowed(&edge.page, &path).ok_or_else(|| Problem::not_found(&path))?;
    // HEAD is as GET, and whoever does more than to look sees the difference.
    let is_head = request.method() == Method::HEAD;
    let method = match is_head {
        true => Method::GET,
        false => request.method().clone(),
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
        // It is opened by GET (RFC 6455 §4.1).
        "/mqtt" | "/v1/ws" if is_head => return Err(ws::bad("a WebSocket is opened by GET")),
        "/mqtt" => return mqtt_ws::upgrade(edge, peer, request),
        "/v1/ws" => return ws::upgrade(edge, peer, request).await,
        "/v1/login" if method == Method::POST => return login::enter(edge, request).await,
        "/v1/login" if method == Method::DELETE => return login::leave(&request.into_parts().0),
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let who = authenticate(edge, &parts, "", ticket_of(&parts.uri)).await?;
    let principal = &who.principal;
    if let Some(topic) = path.strip_prefix("/v1/topics/") {
        return match method {
            Method::POST => publish::to_topic(edge, principal, topic, &parts, body).await,
            Method::DELETE => retained::delete(edge, principal, topic, &parts).await,
            _ => retained::get(edge, principal, topic, &parts),
        };
    }
    if let Some(rest) = path.strip_prefix("/v1/webhooks") {
        return webhooks::answer(edge, principal, rest, &parts, body).await;
    }
    if let Some(rest) = path.strip_prefix("/v1/sessions/") {
        let (name, is_ack) = match rest.strip_suffix("/ack") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let name = decode("session", name)?;
        if !sessions::is_name(&name) {
            return Err(invalid("session", &name, sessions::NAME_RULE));
        }
        return match is_ack {
            true => sessions::acknowledge(edge, principal, &name, &parts).await,
            false => sessions::delete(edge, principal, &name, &parts).await,
        };
    }
    match path.as_str() {
        "/v1/publish" => publish::envelopes(edge, principal, &parts, body).await,
        "/v1/events" => events::stream(edge, peer, &who, &parts).await,
        "/v1/messages" => events::poll(edge, peer, &who, &parts).await,
        "/v1/retained" if method == Method::DELETE => {
            retained::delete_all(edge, principal, &parts).await
        }
        "/v1/retained" => retained::list(edge, principal, &parts).await,
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
        "/v1/login" => {
            Query::parse(parts.uri.query(), &[])?;
            Ok(login::show(edge, &who))
        }
        "/metrics" => Ok(metrics::show(edge)),
        _ => Err(Problem::not_found(&path)),
    }
}

/// The ticket in a query: for what browsers cannot give a header to.
pub(super) fn ticket_of(uri: &Uri) -> Option<&str> {
    let streams = ["/v1/events", "/v1/messages", "/v1/ws"];
    let query = uri.query().filter(|_| streams.contains(&uri.path()))?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| percent_decode_str(name).eq(b"ticket".iter().copied()))
        .map(|(_, ticket)| ticket)
}

fn page(file: &File, known: Option<&HeaderValue>) -> Response<Body> {
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
            "authorization, content-type, last-event-id, cache-control, idempotency-key, x-requested-with",
        ),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// The headers of answers that a page of another origin may read, beside those that it always may.
const EXPOSED: &str = "idempotent-replayed, retry-after, tidings-correlation-data, tidings-expiry, \
    tidings-omitted, tidings-payload-format, tidings-qos, tidings-response-topic, \
    tidings-user-property, www-authenticate";

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
            HeaderValue::from_static(EXPOSED),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("JSON")
    }

    fn paths(document: &Value) -> &serde_json::Map<String, Value> {
        document["paths"].as_object().expect("paths")
    }

    /// The methods of a path in the document, with those that it says are everywhere.
    fn documented(path: &Value) -> BTreeSet<String> {
        const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
        let path = path.as_object().expect("a path");
        let mut methods: BTreeSet<String> = METHODS
            .iter()
            .filter(|method| path.contains_key(**method))
            .map(|method| method.to_uppercase())
            .collect();
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        methods.insert("OPTIONS".to_owned());
        methods
    }

    #[test]
    fn the_document_has_the_paths_and_methods_that_are_answered() {
        let (page, document) = (Page::new(None), document());
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let described: BTreeMap<&str, BTreeSet<String>> = paths(&document)
            .iter()
            .map(|(path, it)| (path.as_str(), documented(it)))
            .collect();
        let files = page.files.iter().map(|file| file.path);
        let answered: BTreeMap<&str, BTreeSet<String>> = known_paths()
            .map(|(path, _)| *path)
            .chain(files)
            .map(|path| {
                let methods = allowed(&page, path).expect("a path that is listed");
                (path, methods.split(", ").map(str::to_owned).collect())
            })
            .collect();
        assert_eq!(described, answered);
    }

    #[test]
    fn the_document_has_the_parameters_that_are_known() {
        let document = document();
        let known: [(&str, &str, &[&str]); 12] = [
            ("/v1/topics/{topic}", "post", publish::TO_TOPIC_QUERY),
            ("/v1/topics/{topic}", "get", retained::GET_QUERY),
            ("/v1/events", "get", events::STREAM_QUERY),
            ("/v1/messages", "get", events::POLL_QUERY),
            ("/v1/retained", "get", retained::LIST_QUERY),
            ("/v1/retained", "delete", retained::DELETE_ALL_QUERY),
            ("/v1/sessions/{session}/ack", "post", sessions::ACK_QUERY),
            ("/v1/ws", "get", ws::QUERY),
            ("/v1/webhooks", "get", webhooks::LIST_QUERY),
            ("/v1/webhooks/{id}/attempts", "get", webhooks::LIST_QUERY),
            (
                "/v1/webhooks/{id}/dead-letters",
                "get",
                webhooks::DEAD_LETTERS_QUERY,
            ),
            (
                "/v1/webhooks/{id}/dead-letters",
                "delete",
                webhooks::DISCARD_QUERY,
            ),
        ];
        let ticket = &document["components"]["securitySchemes"]["ticket"];
        assert_eq!(
            (&ticket["in"], &ticket["name"]),
            (&"query".into(), &"ticket".into())
        );
        for (path, item) in paths(&document) {
            for (method, operation) in item.as_object().expect("a path") {
                if method == "parameters" {
                    continue;
                }
                let parameters = operation["parameters"].as_array();
                let mut described: BTreeSet<&str> = parameters
                    .into_iter()
                    .flatten()
                    .filter(|it| it["in"] == "query")
                    .filter_map(|it| it["name"].as_str())
                    // One that stands for all that begin alike.
                    .map(|name| name.strip_suffix("NAME").unwrap_or(name))
                    .collect();
                let security = operation["security"].as_array();
                if security
                    .into_iter()
                    .flatten()
                    .any(|it| it.get("ticket").is_some())
                {
                    described.insert("ticket");
                }
                let expected = known
                    .iter()
                    .find(|it| (it.0, it.1) == (path.as_str(), method.as_str()))
                    .map_or(&[][..], |it| it.2);
                let expected: BTreeSet<&str> = expected.iter().copied().collect();
                assert_eq!(described, expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn check(document: &Value, at: &Value) {
            match at {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("within the document");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|it| check(document, it));
                }
                Value::Array(items) => items.iter().for_each(|it| check(document, it)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }
}
