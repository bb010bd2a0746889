//! WebSockets (RFC 6455): the handshake that all of them share, and JSON over them at `/v1/ws`.

mod connection;
mod protocol;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Edge;
use super::auth::{authenticate, origin_allowed};
use super::problem::Problem;
use super::query::Query;
use super::respond::{self, Body};
use super::router::ticket_of;
use crate::access::read_cookie;

/// Parameters of `GET /v1/ws`.
pub(super) const QUERY: &[&str] = &["ticket"];

/// A WebSocket over an HTTP connection.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Small buffers, since there may be many sockets, and a bound on what is not written yet.
fn config(message_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2048)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(message_max.saturating_mul(2).max(1024 * 1024))
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
}

/// What a handshake came to: an answer, and the connection once that is sent.
pub(super) struct Handshake {
    pub response: Response<Body>,
    pub upgrade: OnUpgrade,
    /// The subprotocol that was chosen.
    pub subprotocol: Option<&'static str>,
}

impl Handshake {
    /// The socket, once the client has the answer.
    pub(super) async fn socket(upgrade: OnUpgrade, message_max: usize) -> Option<Socket> {
        let upgraded = upgrade.await.ok()?;
        let (io, config) = (TokioIo::new(upgraded), config(message_max));
        Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
    }
}

/// The problem of a request that does not open a WebSocket.
pub(super) fn bad(detail: &str) -> Problem {
    Problem::new(
        StatusCode::UPGRADE_REQUIRED,
        "not-a-websocket",
        "This path speaks WebSocket",
        detail,
    )
}

/// Answers the opening handshake (RFC 6455 §4.2) with the first of the client's subprotocols that
/// is known.
pub(super) fn handshake(
    edge: &Edge,
    request: &mut Request<Incoming>,
    known: &[&'static str],
) -> Result<Handshake, Problem> {
    let header = |name: HeaderName| {
        let value = request.headers().get(name)?;
        value.to_str().ok()
    };
    let has = |name: HeaderName, wanted: &str| {
        header(name).is_some_and(|it| {
            it.split(',')
                .any(|it| it.trim().eq_ignore_ascii_case(wanted))
        })
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(bad(
            "open it with a WebSocket client over HTTP/1.1, such as new WebSocket(…) in a browser",
        ));
    }
    if header(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(bad("the version is 13: Sec-WebSocket-Version"));
    }
    let Some(key) = header(SEC_WEBSOCKET_KEY) else {
        return Err(bad("there is no Sec-WebSocket-Key"));
    };
    let accept = derive_accept_key(key.as_bytes());
    let offered: Vec<&str> = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(str::trim)
        .collect();
    let subprotocol = offered
        .iter()
        .find_map(|it| known.iter().find(|known| *known == it))
        .copied();
    // Browsers do not apply CORS to WebSockets, so this is the only guard.
    if !origin_allowed(edge, request.headers(), request.uri()) {
        return Err(Problem::forbidden(
            "a page of this origin may not open a WebSocket here: http.cors_origins names those that may",
        ));
    }
    let mut response = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol),
        );
    }
    Ok(Handshake {
        response,
        upgrade: hyper::upgrade::on(request),
        subprotocol,
    })
}

/// `GET /v1/ws`.
pub(super) async fn upgrade(
    edge: &Arc<Edge>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    Query::parse(request.uri().query(), QUERY)?;
    let handshake = handshake(edge, &mut request, &[protocol::SUBPROTOCOL])?;
    let (parts, _) = request.into_parts();
    let ticket = ticket_of(&parts.uri);
    // Who says nothing here may still say it in `connect`.
    let who = match authenticate(edge, &parts, "", ticket).await {
        Ok(who) => Some(who),
        Err(problem) if ticket.is_some() || has_credentials(&parts) => return Err(problem),
        Err(_) => None,
    };
    let place = edge.place()?;
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        let _place = place;
        if let Some(socket) = Handshake::socket(handshake.upgrade, edge.config.body_max).await {
            connection::serve(edge, socket, who).await;
        }
    });
    Ok(handshake.response)
}

/// Whether the request says who it is. Cookies of other servers of the same host come along too.
fn has_credentials(parts: &hyper::http::request::Parts) -> bool {
    let cookies = parts.headers.get_all(hyper::header::COOKIE).iter();
    parts.headers.contains_key(hyper::header::AUTHORIZATION)
        || read_cookie(cookies.map(|it| it.as_bytes())).is_some()
}
