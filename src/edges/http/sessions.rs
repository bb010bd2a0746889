//! Named sessions over HTTP: `session=` of `GET /v1/events` and `GET /v1/messages`, and what is under
//! `/v1/sessions`. The session is the one that MQTT knows by its Client Identifier, and the JSON
//! WebSocket by its name: whoever it belongs to goes on with it over any of them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;
use tidings_protocol::mqtt::{Publish, QoS};
use tidings_protocol::time::parse_duration;
use tokio::time::sleep;

use super::named::{NamedSession, SessionCursor};
use super::problem::Problem;
use super::query::{Query, invalid};
use super::respond::{self, Body};
use super::session_stream::{SessionStream, WINDOW, envelope, reason};
use super::{Edge, event_stream::StreamOptions};
use crate::access::{Authenticated, Principal};
use crate::broker::SubscribeError;
use crate::store::until_durable;

/// How long messages are kept for a session without a connection, unless its client says otherwise.
pub(super) const EXPIRY_SECS: u32 = 24 * 3600;

const NAME_MAX: usize = 1024;

/// Whether a text can be the name of a session.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.contains('\0')
}

/// What is said of a text that cannot.
pub(super) const NAME_RULE: &str = "a session's name has 1 to 1024 bytes, none of them 0";

/// Who a session belongs to. Rights may depend on the Client Identifier, which an anonymous client
/// has from the session.
pub(super) fn owner(edge: &Edge, who: &Principal, name: &str) -> Result<Principal, Problem> {
    match who.user() {
        Some(_) => Ok(who.clone()),
        None => Ok(edge.access.anonymous(name)?),
    }
}

/// How long it is kept: what was asked for, within `mqtt.session_expiry_max`.
pub(super) fn expiry_secs(edge: &Edge, wanted: Option<u32>) -> u32 {
    let longest = edge.broker.mqtt().session_expiry_max.as_secs();
    wanted
        .unwrap_or(EXPIRY_SECS)
        .min(u32::try_from(longest).unwrap_or(u32::MAX))
        .max(1)
}

/// Opens the session that a request is about, takes in what its client has, and subscribes it to
/// `topic=`, on top of what it is subscribed to.
async fn open(
    edge: &Arc<Edge>,
    who: &Principal,
    query: &Query<'_>,
    name: &str,
    has: Option<&str>,
    window: u16,
) -> Result<NamedSession, Problem> {
    if !is_name(name) {
        return Err(invalid("session", name, NAME_RULE));
    }
    let qos = query.parsed("qos", "1 or 2", |it| match it {
        "1" => Some(QoS::AtLeastOnce),
        "2" => Some(QoS::ExactlyOnce),
        _ => None,
    })?;
    let expiry = query.parsed("session_expiry", "a duration such as 24h", |it| {
        let secs = parse_duration(it).ok()?.as_secs();
        Some(u32::try_from(secs).unwrap_or(u32::MAX))
    })?;
    let has = match has {
        None => None,
        Some(text) => Some(
            text.parse::<SessionCursor>()
                .map_err(|()| not_a_place(text))?,
        ),
    };
    let filters = query.filters("topic")?;
    let principal = owner(edge, who, name)?;
    let expiry = expiry_secs(edge, expiry);
    let session = NamedSession::open(&edge.broker, name, &principal, expiry, window)?;
    let mut ticket = session.ticket;
    if let Some(cursor) = has {
        ticket = ticket.max(session.acknowledge_to(cursor));
    }
    for filter in filters {
        let qos = qos.unwrap_or(QoS::AtLeastOnce);
        let (_, kept) = session
            .subscribe(filter, qos, query.flag("retained")?)
            .map_err(|error| refused(filter, &error))?;
        ticket = ticket.max(kept);
    }
    until_durable(edge.broker.store(), ticket).await?;
    Ok(session)
}

fn not_a_place(text: &str) -> Problem {
    Problem::bad_request(
        "invalid-cursor",
        "Not a place in a session",
        format!(
            "{text:?}: a session knows itself where it was; what may be given is an id or cursor as it \
             was received from this session"
        ),
    )
}

fn refused(filter: &str, error: &SubscribeError) -> Problem {
    let detail = format!("{filter:?} was refused: {error}");
    match error {
        SubscribeError::NotAuthorized => Problem::forbidden(detail),
        SubscribeError::TooMany | SubscribeError::TooManyReplays(_) | SubscribeError::TakenOver => {
            Problem::unavailable(detail)
        }
        SubscribeError::InvalidFilter(_)
        | SubscribeError::Since { .. }
        | SubscribeError::NoStream { .. } => {
            Problem::bad_request("invalid-filter", "Not a Topic Filter", detail)
        }
    }
}

/// The stream of a session, for `GET /v1/events`. `resumed` is what the client gives as its last event
/// id: one of another stream says nothing about this session.
pub(super) async fn stream(
    edge: &Arc<Edge>,
    who: &Authenticated,
    query: &Query<'_>,
    name: &str,
    resumed: Option<&str>,
    options: StreamOptions,
) -> Result<SessionStream, Problem> {
    let resumed = resumed.filter(|it| it.parse::<SessionCursor>().is_ok());
    let has = resumed.or_else(|| query.get("since"));
    let session = open(edge, &who.principal, query, name, has, WINDOW).await?;
    let broker = Arc::clone(&edge.broker);
    Ok(SessionStream::new(broker, session, name, options))
}

/// One poll of a session, for `GET /v1/messages`: `since` acknowledges what the polls before answered.
pub(super) async fn poll(
    edge: &Arc<Edge>,
    who: &Authenticated,
    query: &Query<'_>,
    name: &str,
    wait: Duration,
) -> Result<Response<Body>, Problem> {
    let since = query.get("since");
    let limit = query.limit()?;
    let window = u16::try_from(limit).unwrap_or(u16::MAX);
    let session = open(edge, &who.principal, query, name, since, window).await?;
    let mut cursor = since.map(str::to_owned);
    let (mut messages, mut count) = (Vec::new(), 0);
    let mut deadline = pin!(sleep(wait));
    let polling = poll_fn(|cx| {
        let each = |publish: &Publish<'_>| {
            if count > 0 {
                messages.push(b',');
            }
            count += 1;
            let id = session.cursor_of(publish).map(|it| it.to_string());
            envelope(publish, id.as_deref()).write(&mut messages);
            if id.is_some() {
                cursor = id;
            }
        };
        if let Err(why) = session.poll(cx, each) {
            return Poll::Ready(Err(why));
        }
        // What is there already is no matter of waiting.
        if count > 0 || (!session.is_loading() && deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    });
    tokio::select! {
        polled = polling => polled.map_err(|why| Problem::new(
            StatusCode::CONFLICT,
            "session-closed",
            "The session went on without this request",
            format!("it ended because of {:?}; messages that are not acknowledged come again", reason(why)),
        ))?,
        () = edge.stopped() => {}
    }
    let mut body = b"{\"messages\":[".to_vec();
    body.append(&mut messages);
    let rest = json!({"cursor": cursor, "session": name, "present": session.present}).to_string();
    body.extend_from_slice(b"],");
    body.extend_from_slice(&rest.as_bytes()[1..]);
    Ok(respond::with(StatusCode::OK, "application/json", body))
}

/// Parameters of `POST /v1/sessions/{session}/ack`.
pub(super) const ACK_QUERY: &[&str] = &["cursor"];

/// `POST /v1/sessions/{session}/ack`: acknowledges while a stream goes on.
pub(super) async fn acknowledge(
    edge: &Arc<Edge>,
    who: &Principal,
    name: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), ACK_QUERY)?;
    let Some(text) = query.get("cursor") else {
        return Err(invalid(
            "cursor",
            "",
            "the id of the last message that has arrived",
        ));
    };
    let cursor: SessionCursor = text.parse().map_err(|()| not_a_place(text))?;
    let broker = &edge.broker;
    let owner = owner(edge, who, name)?;
    if broker.session_of(&owner, name).is_none() {
        return Err(no_session(name));
    }
    // A place in another log, or in a session before this one of the same name, is none here.
    let done = (cursor.epoch == broker.log_epoch())
        .then(|| broker.acknowledge_for(&owner, name, cursor.session, cursor.sequence))
        .flatten();
    let Some((acknowledged, ticket)) = done else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "another-session",
            "This place is in another session",
            format!("{text} is no place in {name:?} as it is now; nothing was acknowledged"),
        ));
    };
    until_durable(broker.store(), ticket).await?;
    Ok(respond::json(&json!({"acknowledged": acknowledged})))
}

/// `DELETE /v1/sessions/{session}`: ends it with its subscriptions and its queue.
pub(super) async fn delete(
    edge: &Arc<Edge>,
    who: &Principal,
    name: &str,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let owner = owner(edge, who, name)?;
    if edge.broker.session_of(&owner, name).is_none() {
        return Err(no_session(name));
    }
    let session = NamedSession::open(&edge.broker, name, &owner, 1, 1)?;
    session.end();
    // Its end is the last record so far, or before it.
    until_durable(edge.broker.store(), edge.broker.store().appended()).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

fn no_session(name: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-session",
        "There is no such session",
        format!("{name:?} was never begun, has expired, was begun anew, or is somebody else's"),
    )
}
