//! Requests to one endpoint, over connections that are kept.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use super::connector::{ConnectError, Connected, Connector};
use super::peer::Peer;
use super::proxy;
use super::tls::{self, Certificates};
use crate::config::{Hidden, WebhooksConfig};
use crate::webhooks::Definition;

/// How long an unused connection is kept.
const KEPT: Duration = Duration::from_secs(60);

/// Bytes of the headers of a response.
const HEADERS_MAX: usize = 16 * 1024;

/// What a POST has beside its URL.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// All headers, except those that say where it goes and how long it is.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The value of `retry-after`.
    pub retry_after: Option<HeaderValue>,
    /// The value of `content-type`.
    pub content_type: Option<HeaderValue>,
    /// The beginning of the body.
    pub body: Bytes,
    /// Whether there was more of it.
    pub is_cut: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no complete answer within the timeout")]
    Timeout,
    /// What it was told to be cannot be used.
    #[error("{0}")]
    Unusable(Box<str>),
    #[error("{0}")]
    Http(String),
}

/// Sends to one endpoint. A trait, so that a test can answer without sockets.
pub trait Exchange: Send + Sync + 'static {
    /// Sends a POST and reads the answer. Dropping the future ends the exchange.
    fn exchange(
        &self,
        outgoing: &Outgoing,
    ) -> impl Future<Output = Result<Answer, SendError>> + Send;

    /// Closes what was not used for a while; when to do that next.
    fn sweep(&self) -> Option<Instant>;
}

/// What is needed to send to one endpoint.
pub struct Client {
    connector: Connector,
    peer: Peer,
    tls: Option<Arc<ClientConfig>>,
    proxy_authorization: Option<HeaderValue>,
    kept: Mutex<Kept>,
}

/// Connections that can be used again.
#[derive(Default)]
struct Kept {
    /// The one used last is at the end, and is used next: the others may grow old.
    http1: Vec<Idle>,
    http2: Option<http2::SendRequest<Full<Bytes>>>,
    http2_used: Option<Instant>,
}

struct Idle {
    sender: http1::SendRequest<Full<Bytes>>,
    until: Instant,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A request that failed.
struct Failed {
    error: hyper::Error,
    /// Whether the connection was closed before anything of the request was sent.
    is_stale: bool,
}

impl Client {
    /// Sends to `peer`, with TLS of its own if there is some.
    pub fn new(connector: Connector, peer: Peer, tls: Option<Arc<ClientConfig>>) -> Client {
        Client {
            proxy_authorization: connector.proxy_for(&peer).and_then(proxy::authorization),
            connector,
            peer,
            tls,
            kept: Mutex::default(),
        }
    }

    /// A connection that was used before.
    fn kept(&self) -> Option<Sender> {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if let Some(sender) = kept.http2.as_ref().filter(|sender| !sender.is_closed()) {
            let sender = sender.clone();
            kept.http2_used = Some(now);
            return Some(Sender::Http2(sender));
        }
        kept.http2 = None;
        while let Some(idle) = kept.http1.pop() {
            if !idle.sender.is_closed() && idle.until > now {
                return Some(Sender::Http1(idle.sender));
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, SendError> {
        let Connected { stream, http2 } = self
            .connector
            .connect(&self.peer, self.tls.as_ref())
            .await?;
        let stream = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(HEADERS_MAX as u32)
                .handshake(stream)
                .await
                .map_err(|error| http_error(&error))?;
            // An error of the connection reaches all requests on it.
            tokio::spawn(async move { drop(connection.await) });
            let mut kept = self.kept.lock();
            kept.http2 = Some(sender.clone());
            kept.http2_used = Some(Instant::now());
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEADERS_MAX)
            .handshake(stream)
            .await
            .map_err(|error| http_error(&error))?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Sender::Http1(sender))
    }

    fn request(&self, outgoing: &Outgoing, http2: bool) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = outgoing.headers.clone();
        if outgoing.body.is_empty() {
            // hyper leaves it out then (RFC 9110 §8.6).
            let headers = request.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let has_proxy = self.connector.proxy_for(&self.peer).is_some();
        *request.uri_mut() = match http2 || has_proxy {
            true => self.peer.uri.clone(),
            false => self.peer.origin_form.clone(),
        };
        if !http2 {
            let headers = request.headers_mut();
            headers.insert(HOST, self.peer.authority.clone());
            if let Some(authorization) = &self.proxy_authorization {
                headers.insert(PROXY_AUTHORIZATION, authorization.clone());
            }
        }
        request
    }

    /// Sends on one connection, up to the head of the answer.
    async fn send(
        &self,
        sender: &mut Sender,
        outgoing: &Outgoing,
    ) -> Result<Response<Incoming>, Failed> {
        match sender {
            Sender::Http1(sender) => {
                let sent = async {
                    sender.ready().await?;
                    sender.send_request(self.request(outgoing, false)).await
                };
                sent.await.map_err(|error| Failed {
                    is_stale: error.is_canceled() || error.is_closed(),
                    error,
                })
            }
            Sender::Http2(sender) => {
                let sent = async {
                    sender.ready().await?;
                    sender.send_request(self.request(outgoing, true)).await
                };
                sent.await.map_err(|error| Failed {
                    is_stale: error.is_canceled() || error.is_closed(),
                    error,
                })
            }
        }
    }

    /// Reads the beginning of the body. A connection whose answer was read to its end is kept.
    async fn receive(
        &self,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<Answer, SendError> {
        let (head, mut body) = response.into_parts();
        let header = |name: HeaderName| head.headers.get(name).cloned();
        let mut answer = Answer {
            status: head.status,
            retry_after: header(RETRY_AFTER),
            content_type: header(CONTENT_TYPE),
            body: Bytes::new(),
            is_cut: false,
        };
        let bytes_max = self.connector.config().response_bytes_max;
        let mut read = BytesMut::new();
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else {
                break;
            };
            let frame = frame.map_err(|error| http_error(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let room = bytes_max - read.len();
            if data.len() > room {
                read.extend_from_slice(&data[..room]);
                answer.is_cut = true;
                break;
            }
            read.extend_from_slice(&data);
        }
        answer.body = read.freeze();
        if let Sender::Http1(sender) = sender
            && !answer.is_cut
        {
            let now = Instant::now();
            let until = now + kept_for(head.headers.get("keep-alive"));
            self.kept.lock().http1.push(Idle { sender, until });
        }
        Ok(answer)
    }
}

impl Exchange for Client {
    async fn exchange(&self, outgoing: &Outgoing) -> Result<Answer, SendError> {
        // That the other side has closed what was unused says nothing of this request.
        if let Some(mut sender) = self.kept() {
            match self.send(&mut sender, outgoing).await {
                Ok(response) => return self.receive(sender, response).await,
                Err(failed) if failed.is_stale => {}
                Err(failed) => return Err(http_error(&failed.error)),
            }
        }
        let mut sender = self.connect().await?;
        match self.send(&mut sender, outgoing).await {
            Ok(response) => self.receive(sender, response).await,
            Err(failed) => Err(http_error(&failed.error)),
        }
    }

    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.http1
            .retain(|idle| !idle.sender.is_closed() && idle.until > now);
        if kept.http2_used.is_some_and(|used| used + KEPT <= now) {
            kept.http2 = None;
            kept.http2_used = None;
        }
        let http2 = kept.http2_used.map(|used| used + KEPT);
        kept.http1.iter().map(|idle| idle.until).chain(http2).min()
    }
}

/// What the other side promises in `keep-alive: timeout=<seconds>`, less a second for the way, or
/// what we like.
fn kept_for(header: Option<&HeaderValue>) -> Duration {
    let promised = header
        .and_then(|value| value.to_str().ok())
        .into_iter()
        .flat_map(|value| value.split(','))
        .find_map(|parameter| parameter.trim().strip_prefix("timeout=")?.parse().ok())
        .map(|secs: u64| Duration::from_secs(secs.saturating_sub(1)));
    promised.map_or(KEPT, |promised| promised.min(KEPT))
}

/// An error with what caused it: hyper says "connection error", and its source says which.
fn http_error(error: &hyper::Error) -> SendError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    SendError::Http(text)
}

/// Makes clients of endpoints.
pub trait Dial: Send + Sync + 'static {
    type Exchange: Exchange;

    /// A client for an endpoint that is told to be this, under these settings. May touch the disk.
    ///
    /// # Errors
    /// Why there cannot be one, for a person.
    fn dial(
        &self,
        definition: &Definition,
        config: Arc<WebhooksConfig>,
    ) -> Result<Self::Exchange, String>;
}

impl Dial for Connector {
    type Exchange = Client;

    fn dial(&self, definition: &Definition, config: Arc<WebhooksConfig>) -> Result<Client, String> {
        let Some(peer) = Peer::new(&definition.url) else {
            return Err("no request can be sent to the URL".to_owned());
        };
        let certificates = Certificates {
            ca: definition.ca_certificate.as_deref(),
            client: definition.client_certificate.as_deref(),
            client_key: definition.client_key.as_ref().map(Hidden::reveal),
        };
        let tls = match certificates {
            Certificates {
                ca: None,
                client: None,
                client_key: None,
            } => None,
            _ if !peer.https => None,
            certificates => {
                Some(tls::client_config(certificates).map_err(|error| error.to_string())?)
            }
        };
        Ok(Client::new(self.under(config), peer, tls))
    }
}
