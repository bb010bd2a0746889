//! Bodies of requests: read whole, within limits of size and time, one by one and all together.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};

use super::Edge;
use super::problem::Problem;

/// Bytes that all bodies hold, while they are read and until their requests are answered.
#[derive(Default)]
pub(super) struct Bodies(AtomicUsize);

impl Bodies {
    /// The bytes at this moment.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one body holds of them.
struct Share<'b> {
    all: &'b Bodies,
    bytes: usize,
}

impl Share<'_> {
    /// Takes more, unless all would hold more than `bytes_max` then.
    fn grow(&mut self, more: usize, bytes_max: usize) -> bool {
        let grown = |held: usize| held.checked_add(more).filter(|it| *it <= bytes_max);
        let held = &self.all.0;
        let fits = held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .is_ok();
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that was read. To be kept until the request is answered.
pub(super) struct Whole<'b> {
    pub bytes: Bytes,
    _share: Share<'b>,
}

impl Whole<'_> {
    /// The body as text, which JSON is.
    pub(super) fn text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let title = "Not the JSON that is wanted here";
            Problem::bad_request("invalid-json", title, error.to_string())
        })
    }
}

/// How large one body may be.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub bytes: usize,
    /// What says so.
    pub name: &'static str,
}

/// Reads a whole body.
///
/// # Errors
/// When it is larger than `http.body_max`, does not arrive within `http.body_timeout`, or when all
/// bodies would hold more than `http.bodies_max`.
pub(super) async fn read(edge: &Edge, body: Incoming) -> Result<Whole<'_>, Problem> {
    let limit = Limit {
        bytes: edge.config.body_max,
        name: "http.body_max",
    };
    read_at_most(edge, body, limit).await
}

/// The same with another limit of its size, if that is lower.
pub(super) async fn read_at_most(
    edge: &Edge,
    body: Incoming,
    limit: Limit,
) -> Result<Whole<'_>, Problem> {
    match tokio::time::timeout(edge.config.body_timeout, read_all(edge, body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The body took too long",
            "send it within http.body_timeout",
        )),
    }
}

async fn read_all(edge: &Edge, mut body: Incoming, limit: Limit) -> Result<Whole<'_>, Problem> {
    let bytes_max = limit.bytes.min(edge.config.body_max);
    let too_large = || Problem::too_large(bytes_max, limit.name);
    // Announced by Content-Length, and as yet no reason to take memory.
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let announced = announced as usize;
    let mut share = Share {
        all: &edge.bodies,
        bytes: 0,
    };
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::bad_request(
                "broken-body",
                "The body did not arrive whole",
                error.to_string(),
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.remaining() > bytes_max {
            return Err(too_large());
        }
        if !share.grow(data.remaining(), edge.config.bodies_max) {
            return Err(Problem::unavailable(
                "the bodies of all requests hold http.bodies_max bytes already: try again",
            ));
        }
        if bytes.capacity() - bytes.len() < data.remaining() {
            // Doubled, but to no more than was announced, if it was.
            let left = match announced {
                0 => usize::MAX,
                announced => announced.saturating_sub(bytes.len()),
            };
            let more = data.remaining().max(bytes.len().min(left));
            bytes.reserve_exact(more);
        }
        bytes.extend_from_slice(&data);
    }
    bytes.shrink_to_fit();
    Ok(Whole {
        bytes: Bytes::from(bytes),
        _share: share,
    })
}
