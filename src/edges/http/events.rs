//! `GET /v1/events` and `GET /v1/messages`: what matches, as a stream or poll by poll.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use tidings_protocol::sse::{CONTENT_TYPE as EVENT_STREAM, Since};
use tidings_protocol::time::parse_duration;
use tokio::time::sleep;

use super::admission::Place;
use super::event_stream::{EventStream, StreamOptions};
use super::problem::Problem;
use super::pull::{Pull, Pulled};
use super::query::{PAGE_MAX, Query, invalid};
use super::render::{Format, cursor, envelope};
use super::respond::{self, Body};
use super::streaming::{Stream, Streaming};
use super::{Edge, sessions};
use crate::access::{Authenticated, Principal};
use crate::broker::Message;
use crate::broker::feed::{Event, OpenReader, Start};
use crate::store::until_durable;

/// Parameters of `GET /v1/events`; the id has the names that clients of EventSource give it.
pub(super) const STREAM_QUERY: &[&str] = &[
    "topic",
    "since",
    "last_event_id",
    "lastEventId",
    "lastEventID",
    "format",
    "event",
    "retained",
    "session",
    "session_expiry",
    "qos",
    "ticket",
];

/// Parameters of `GET /v1/messages`.
pub(super) const POLL_QUERY: &[&str] = &[
    "topic",
    "since",
    "wait",
    "limit",
    "retained",
    "session",
    "session_expiry",
    "qos",
    "ticket",
];

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Retained Messages that a stream can begin with.
const RETAINED_MAX: usize = 100_000;

/// The longest long poll: proxies take a longer silence for dead.
const WAIT_MAX: Duration = Duration::from_secs(55);
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const POLL_BYTES: usize = 1024 * 1024;

/// Clients of a server that stops come back within this time, not all at once.
const RETRY: Duration = Duration::from_millis(1000);
const RETRY_SPREAD_MS: u64 = 2000;

/// Where a client asks to begin: a value of `since`.
pub(super) fn start_of(edge: &Edge, since: &str) -> Result<Start, Problem> {
    match since.parse::<Since>() {
        Ok(since) => Ok(Start::of(since, edge.broker.clock.now())),
        Err(error) => {
            let plus = match since.contains(' ') {
                true => "; a + in a query means a space, write %2B",
                false => "",
            };
            Err(Problem::bad_request(
                "invalid-cursor",
                "Not a place to begin at",
                format!("{since:?}: {error}{plus}"),
            ))
        }
    }
}

/// Opens a reader, on a thread that may wait for the disk, and waits until its cursor holds.
pub(super) async fn open(
    edge: &Arc<Edge>,
    principal: &Principal,
    filters: &[&str],
    start: Start,
) -> Result<OpenReader, Problem> {
    let (broker, principal) = (Arc::clone(&edge.broker), principal.clone());
    let filters: Vec<String> = filters.iter().map(|&it| it.to_owned()).collect();
    let opening = tokio::task::spawn_blocking(move || {
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        broker.open_reader(&principal, &filters, start)
    });
    let opened = match opening.await {
        Ok(opened) => opened?,
        Err(error) => return Err(Problem::unavailable(error.to_string())),
    };
    until_durable(edge.broker.store(), opened.ticket).await?;
    Ok(opened)
}

/// The Retained Messages that match, each once.
pub(super) fn retained(edge: &Edge, filters: &[&str]) -> Vec<Arc<Message>> {
    let mut all: Vec<Arc<Message>> = Vec::new();
    for filter in filters {
        let mut after: Option<Arc<str>> = None;
        loop {
            let (found, next) = edge
                .broker
                .retained_list(filter, after.as_deref(), PAGE_MAX);
            all.extend(found);
            after = next;
            if after.is_none() || all.len() >= RETAINED_MAX {
                break;
            }
        }
    }
    if filters.len() > 1 {
        all.sort_by(|a, b| a.topic().cmp(b.topic()));
        all.dedup_by(|a, b| a.topic() == b.topic());
    }
    all.truncate(RETAINED_MAX);
    all
}

/// `GET /v1/events`.
pub(super) async fn stream(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    who: &Authenticated,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), STREAM_QUERY)?;
    let filters = query.filters("topic")?;
    let header = parts
        .headers
        .get(LAST_EVENT_ID)
        .and_then(|it| it.to_str().ok());
    let resumed = header
        .or_else(|| query.get("last_event_id"))
        .or_else(|| query.get("lastEventId"))
        .or_else(|| query.get("lastEventID"))
        .filter(|id| !id.is_empty());
    let format = match query.get("format") {
        None | Some("json") => Format::Json,
        Some("raw") => Format::Raw,
        Some(other) => return Err(invalid("format", other, "json or raw")),
    };
    let named = match query.get("event") {
        None => false,
        Some("topic") => true,
        Some(other) => return Err(invalid("event", other, "topic, or not given")),
    };
    let mut options = StreamOptions {
        format,
        named,
        heartbeat: edge.config.heartbeat,
        expires_at: who.expires_at_ms,
        retry: RETRY,
    };
    let with_retained = query.flag("retained")? && resumed.is_none();
    if parts.method == Method::HEAD {
        let begin = resumed.or_else(|| query.get("since"));
        check_only(edge, who, &query, &filters, begin)?;
        return Ok(stream_of(respond::full("")));
    }
    let place = edge.place(peer)?;
    if let Some(name) = query.get("session") {
        options.retry += retry_spread(name.len() as u64 + edge.broker.clock.now().0);
        let stream = sessions::stream(edge, who, &query, name, resumed, options).await?;
        return Ok(streaming(Stream::Session(stream), place));
    }
    needs_session(&query, &["session_expiry", "qos"])?;
    let start = match resumed.or_else(|| query.get("since")) {
        Some(since) => start_of(edge, since)?,
        None => Start::Latest,
    };
    let opened = open(edge, &who.principal, &filters, start).await?;
    // After the reader is there: what is set meanwhile comes twice rather than never.
    let retained = match with_retained {
        true => retained(edge, &filters),
        // Who comes back has had them.
        false => Vec::new(),
    };
    options.retry += retry_spread(opened.reader.cursor().0);
    let stream = EventStream::new(
        Arc::clone(&edge.broker),
        edge.access.clone(),
        opened,
        who.principal.clone(),
        retained,
        options,
    );
    Ok(streaming(Stream::Feed(stream), place))
}

/// Something from 0 to [`RETRY_SPREAD_MS`].
fn retry_spread(seed: u64) -> Duration {
    Duration::from_millis(seed.wrapping_mul(7919) % RETRY_SPREAD_MS)
}

/// Refuses parameters that mean something for a named session alone.
fn needs_session(query: &Query<'_>, names: &[&str]) -> Result<(), Problem> {
    match names.iter().find_map(|name| Some((name, query.get(name)?))) {
        Some((name, value)) => Err(invalid(name, value, "given with session= alone")),
        None => Ok(()),
    }
}

/// What a HEAD is refused for, as GET would be. It opens nothing: neither a window nor a session.
fn check_only(
    edge: &Edge,
    who: &Authenticated,
    query: &Query<'_>,
    filters: &[&str],
    begin: Option<&str>,
) -> Result<(), Problem> {
    match query.get("session") {
        Some(name) if sessions::is_name(name) => Ok(()),
        Some(name) => Err(invalid("session", name, sessions::NAME_RULE)),
        None => {
            needs_session(query, &["session_expiry", "qos"])?;
            if let Some(since) = begin {
                start_of(edge, since)?;
            }
            Ok(edge.broker.check_reader(&who.principal, filters)?)
        }
    }
}

fn streaming(stream: Stream, place: Place) -> Response<Body> {
    stream_of(Body::Events(Box::new(Streaming::new(stream, place))))
}

/// The answer whose body is a stream of events.
fn stream_of(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// `GET /v1/messages`: waits until there is something, and answers with the cursor to go on from.
pub(super) async fn poll(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    who: &Authenticated,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), POLL_QUERY)?;
    let filters = query.filters("topic")?;
    let session = query.get("session");
    let wait = query.parsed("wait", "a duration such as 30s, at most 55s", |it| {
        parse_duration(it).ok().filter(|wait| *wait <= WAIT_MAX)
    })?;
    // Who has no cursor yet wants one, and can then wait for what comes after it.
    let wait = wait.unwrap_or(match query.get("since").or(session) {
        Some(_) => WAIT_DEFAULT,
        None => Duration::ZERO,
    });
    if parts.method == Method::HEAD {
        check_only(edge, who, &query, &filters, query.get("since"))?;
        return Ok(respond::with(StatusCode::OK, "application/json", ""));
    }
    let place = edge.place(peer)?;
    if let Some(name) = session {
        return sessions::poll(edge, who, &query, name, wait).await;
    }
    needs_session(&query, &["session_expiry", "qos", "retained"])?;
    let start = match query.get("since") {
        Some(since) => start_of(edge, since)?,
        None => Start::Latest,
    };
    let limit = query.limit()?;
    let epoch = edge.broker.log_epoch();
    let OpenReader { reader, gap, .. } = open(edge, &who.principal, &filters, start).await?;
    if let (Some(gap), Start::After(_)) = (&gap, start) {
        let oldest = gap.oldest.map(|oldest| cursor(epoch, oldest).to_string());
        return Err(Problem::new(
            StatusCode::GONE,
            "cursor-too-old",
            "Messages after this cursor are not there any more",
            "some are lost to you; go on with since=earliest for what is left, or since=latest",
        )
        .with(json!({"oldest": oldest, "cursor": cursor(epoch, gap.cursor).to_string()})));
    }
    let mut cursor_at = reader.cursor();
    let mut pull = Pull::new(Arc::clone(&edge.broker), reader);
    let mut events: Vec<Arc<Event>> = Vec::new();
    let mut deadline = pin!(sleep(wait));
    let pulling = async {
        while events.is_empty() {
            let pulled = poll_fn(|cx| match pull.poll(cx, POLL_BYTES, &mut events) {
                Poll::Ready(pulled) => Poll::Ready(Some(pulled)),
                // What is there already is no matter of waiting.
                Poll::Pending if pull.is_loading() => Poll::Pending,
                Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
            });
            match pulled.await {
                Some(Pulled::Events | Pulled::Gap(_)) => {}
                Some(Pulled::Unauthorized) => {
                    return Err(Problem::forbidden("the right to subscribe was taken away"));
                }
                Some(Pulled::Failed) => {
                    return Err(Problem::unavailable("the store has failed: see /readyz"));
                }
                None => return Ok(()),
            }
            if let Some(reader) = pull.reader() {
                cursor_at = reader.cursor();
            }
        }
        Ok(())
    };
    tokio::select! {
        pulled = pulling => pulled?,
        () = edge.stopped() => {}
    }
    drop(place);
    if events.len() > limit {
        events.truncate(limit);
        cursor_at = events.last().map_or(cursor_at, |last| last.offset);
    }
    let mut body = b"{\"messages\":[".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&envelope(epoch, event));
    }
    body.extend_from_slice(b"],\"cursor\":\"");
    body.extend_from_slice(cursor(epoch, cursor_at).to_string().as_bytes());
    body.push(b'"');
    if let Some(gap) = &gap {
        body.extend_from_slice(b",\"gap\":");
        super::render::write_gap(epoch, gap, &mut body);
    }
    body.push(b'}');
    Ok(respond::with(StatusCode::OK, "application/json", body))
}
