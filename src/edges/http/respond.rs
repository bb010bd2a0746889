//! Answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpStream;

use super::streaming::Streaming;

/// What a connection does to its end.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins to serve another protocol on a connection; given are also the bytes that were read
/// already.
pub(super) type Upgrade =
    Box<dyn FnOnce(TcpStream, Bytes) -> Pin<Box<dyn Future<Output = Serving> + Send>> + Send>;

/// What an answer carries.
pub(super) enum Body {
    /// All of it; none once it was taken.
    Whole(Option<Bytes>),
    /// Events, until the stream ends.
    Events(Box<Streaming>),
    /// Nothing, and then another protocol (RFC 9110 §7.8). Only over HTTP/1.1.
    Upgrade(Upgrade),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Body::Whole(bytes) => bytes.take(),
            Body::Upgrade(_) => None,
            Body::Events(events) if events.has_ended() => None,
            Body::Events(events) => {
                let mut out = Vec::new();
                if events.poll(cx, &mut out).is_pending() {
                    return Poll::Pending;
                }
                Some(Bytes::from(out))
            }
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Events(events) => events.has_ended(),
            Body::Upgrade(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64))
            }
            Body::Events(_) => SizeHint::default(),
            Body::Upgrade(_) => SizeHint::with_exact(0),
        }
    }
}

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Body::Whole(Some(bytes.into()))
}

/// An answer with a body of this type. It is never kept by caches on the way.
pub(super) fn with(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 200 with JSON.
pub(super) fn json(value: &Value) -> Response<Body> {
    with(StatusCode::OK, "application/json", value.to_string())
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}
