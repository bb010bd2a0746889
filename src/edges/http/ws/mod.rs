//! WebSockets (RFC 6455): the handshake that all of them share, and JSON over them at `/v1/ws`.

mod connection;
mod outlet;
mod protocol;
mod pushes;
mod replies;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Edge;
use super::auth::{authenticate, origin_allowed};
use super::problem::Problem;
use super::query::Query;
use super::respond::{self, Body, Serving, Upgrade};
use super::router::ticket_of;
use crate::access::read_cookie;

/// Parameters of `GET /v1/ws`.
pub(super) const QUERY: &[&str] = &["ticket"];

/// A WebSocket over an HTTP connection. Boxed, because it is handed on, and a future has room for what
/// it was given and for what it hands on.
pub(super) type Socket = Box<WebSocketStream<TcpStream>>;

/// Small buffers, since there may be many sockets, and a bound on what is not written yet.
fn config(message_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2048)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(message_max.saturating_mul(2).max(1024 * 1024))
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
}

/// What a handshake came to: an answer, and how it goes on.
pub(super) struct Handshake {
    pub response: Response<Body>,
    /// The subprotocol that was chosen.
    pub subprotocol: Option<&'static str>,
}

impl Handshake {
    /// The answer, after which `serve` has the socket.
    pub(super) fn then<F>(
        self,
        message_max: usize,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(
            clippy::async_yields_async,
            reason = "nothing of how it began is left while it is served"
        )]
        let upgrade: Upgrade = Box::new(move |stream, read| {
            Box::pin(async move {
                // A copy: what was read may lie in a buffer that is larger than those of a socket.
                let (read, role) = (read.to_vec(), Role::Server);
                let config = Some(config(message_max));
                let socket = WebSocketStream::from_partially_read(stream, read, role, config);
                let serving: Serving = Box::pin(serve(Box::new(socket.await)));
                serving
            })
        });
        self.response.map(|_| Body::Upgrade(upgrade))
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
    request: &Request<Incoming>,
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
    let is_get = request.method() == Method::GET;
    if !is_get || !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
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
        subprotocol,
    })
}

/// `GET /v1/ws`.
pub(super) async fn upgrade(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    Query::parse(request.uri().query(), QUERY)?;
    let handshake = handshake(edge, &request, &[protocol::SUBPROTOCOL])?;
    let (parts, _) = request.into_parts();
    let ticket = ticket_of(&parts.uri);
    // Who says nothing here may still say it in `connect`.
    let who = match authenticate(edge, &parts, "", ticket).await {
        Ok(who) => Some(who),
        Err(problem) if ticket.is_some() || has_credentials(&parts) => return Err(problem),
        Err(_) => None,
    };
    let place = edge.place(peer)?;
    let edge = Arc::clone(edge);
    let message_max = edge.config.body_max;
    Ok(handshake.then(message_max, async move |socket| {
        let _place = place;
        connection::serve(edge, socket, who).await;
    }))
}

/// Whether the request says who it is. Cookies of other servers of the same host come along too.
fn has_credentials(parts: &hyper::http::request::Parts) -> bool {
    let cookies = parts.headers.get_all(hyper::header::COOKIE).iter();
    parts.headers.contains_key(hyper::header::AUTHORIZATION)
        || read_cookie(cookies.map(|it| it.as_bytes())).is_some()
}
