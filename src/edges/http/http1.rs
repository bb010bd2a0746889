//! A connection of HTTP/1.1, as far as hyper serves it, and what hyper leaves to us: streams of
//! events and WebSockets, which take the connection over, and answers to what is no request.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING};
use hyper::http::response;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::direct::Direct;
use super::problem::Problem;
use super::respond::{Body, Serving};
use super::wire::{Progress, Stage, Wire};
use super::{Edge, router};

/// The head of a request.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a client has to take the last answer. A connection that is closed while something of the
/// client is unread may take the answer with it (RFC 9112 §9.6), so it is read until then.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection goes on as.
pub(super) enum Next {
    Events(Direct),
    Upgraded(Serving),
}

/// An answer that hyper does not get to see.
struct TakenOver {
    version: Version,
    response: Response<Body>,
}

/// Why hyper's part ends: the connection was taken over.
#[derive(Debug, thiserror::Error)]
#[error("the connection was taken over")]
struct HandedOver;

/// Answers the requests of a connection.
struct Requests {
    edge: Arc<Edge>,
    peer: SocketAddr,
    progress: Progress,
    taken_over: Arc<Mutex<Option<TakenOver>>>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = HandedOver;
    /// Boxed, so that nothing of handling one request is left when it is answered.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, HandedOver>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (edge, peer) = (Arc::clone(&self.edge), self.peer);
        let (progress, taken_over) = (Arc::clone(&self.progress), Arc::clone(&self.taken_over));
        let version = request.version();
        *progress.lock() = Stage::Busy;
        Box::pin(async move {
            let response = router::answer(edge, peer, request).await;
            match response.body() {
                Body::Whole(_) => {
                    *progress.lock() = Stage::Answered;
                    Ok(response)
                }
                // Nothing is lost: hyper has sent all of the answer before when it reads another
                // request.
                Body::Events(_) | Body::Upgrade(_) => {
                    *taken_over.lock() = Some(TakenOver { version, response });
                    Err(HandedOver)
                }
            }
        })
    }
}

/// Serves a connection of which `begun` was read already. The head of the first request has to be
/// there by the deadline.
pub(super) async fn serve(
    edge: &Arc<Edge>,
    stream: TcpStream,
    begun: Bytes,
    deadline: Instant,
    peer: SocketAddr,
) -> Option<Next> {
    let progress = Progress::new(Mutex::new(Stage::Head));
    let taken_over = Arc::default();
    let requests = Requests {
        edge: Arc::clone(edge),
        peer,
        progress: Arc::clone(&progress),
        taken_over: Arc::clone(&taken_over),
    };
    let wire = Wire::new(stream, begun, deadline, progress, &edge.config);
    let mut connection = http1::Builder::new()
        // The wire has deadlines of its own.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), requests);
    let mut stopped = pin!(edge.stopped());
    let mut is_stopping = false;
    let serving = poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    });
    let ended = serving.await;
    let parts = connection.into_parts();
    let wire = parts.io.into_inner();
    let taken_over = taken_over.lock().take();
    if let Some(taken_over) = taken_over {
        return go_on(edge, taken_over, wire.into_stream(), parts.read_buf).await;
    }
    if let Some(problem) = ended.as_ref().err().and_then(|it| refusal(&wire, it)) {
        edge.broker.stats.connections_refused.add(1);
        refuse(wire.into_stream(), &problem).await;
        return None;
    }
    if let Err(error) = &ended {
        tracing::debug!(address = %peer, %error, "an HTTP connection ended badly");
    }
    if ended.is_ok() && !is_stopping && wire.timed_out().is_none() {
        linger(wire.into_stream()).await;
    }
    None
}

/// Goes on with a connection as what takes it over.
async fn go_on(
    edge: &Edge,
    taken_over: TakenOver,
    mut stream: TcpStream,
    read: Bytes,
) -> Option<Next> {
    let TakenOver { version, response } = taken_over;
    let (mut parts, body) = response.into_parts();
    match body {
        Body::Events(events) => {
            let chunked = version > Version::HTTP_10;
            let headers = &mut parts.headers;
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            if chunked {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let direct = Direct::new(stream, head(parts), chunked, events);
            Some(Next::Events(direct))
        }
        Body::Upgrade(upgrade) => {
            let head = head(parts);
            let sending = timeout(edge.config.send_timeout, stream.write_all(&head));
            match sending.await {
                Ok(Ok(())) => Some(Next::Upgraded(upgrade(stream, read).await)),
                Ok(Err(_)) | Err(_) => None,
            }
        }
        Body::Whole(_) => None,
    }
}

/// The head of an answer.
fn head(mut parts: response::Parts) -> Vec<u8> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    if let Ok(date) = HeaderValue::from_str(&date) {
        // RFC 9110 §6.6.1.
        parts.headers.insert(DATE, date);
    }
    let status = parts.status;
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What is said of bytes that are no request; none if hyper has answered them, or nobody is there to
/// take it.
fn refusal(wire: &Wire, error: &hyper::Error) -> Option<Problem> {
    if wire.timed_out() == Some(Stage::Head) {
        return Some(head_timeout());
    }
    let status = StatusCode::from_u16(wire.kept_back()?).ok()?;
    Some(match status {
        StatusCode::URI_TOO_LONG => Problem::new(
            status,
            "uri-too-long",
            "The target of the request is too long",
            "use several streams or a WebSocket for so many topics, and a body for what is published",
        ),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(
            status,
            "head-too-large",
            "The head of the request is too large",
            format!("at most {HEAD_BYTES_MAX} bytes and 100 headers are accepted"),
        ),
        _ => Problem::new(
            status,
            "malformed-request",
            "This is not a request of HTTP/1.1",
            format!("{error}: nothing more is read from this connection"),
        ),
    })
}

/// What a client is told that began a request and did not end it.
pub(super) fn head_timeout() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "request-timeout",
        "The request did not come",
        "its head took longer than http.header_timeout",
    )
}

/// Tells a client a problem and closes the connection.
pub(super) async fn refuse(mut stream: TcpStream, problem: &Problem) {
    let (mut parts, body) = problem.response().into_parts();
    let Body::Whole(Some(body)) = body else {
        return;
    };
    let headers = &mut parts.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut answer = head(parts);
    answer.extend_from_slice(&body);
    // One that does not take it is not waited for.
    if let Ok(Ok(())) = timeout(LINGER, stream.write_all(&answer)).await {
        linger(stream).await;
    }
}

/// Closes a connection once the client has had a chance to take what was sent.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, it is the end.
    let _ = timeout(LINGER, reading).await;
}
