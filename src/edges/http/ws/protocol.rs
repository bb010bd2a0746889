//! What is said over a JSON WebSocket (`tidings.v1.json`): requests of the client, each with an `id`
//! that its reply echoes, and what the server says.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_protocol::json;

use crate::broker::feed::Gap;
use crate::edges::http::envelope::is_object;
use crate::edges::http::render;

/// The subprotocol.
pub(in crate::edges::http) const SUBPROTOCOL: &str = "tidings.v1.json";

/// Why the server closes a WebSocket: codes of the range for applications (RFC 6455 §7.4.2). Those
/// below 4500 say "do not come back as you are", those from 4500 on "reconnect".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum CloseCode {
    /// What came is not a request: not text, not JSON, no known type.
    BadRequest = 4400,
    /// Nobody said in time who they are, or the credentials are wrong or expired.
    Unauthorized = 4401,
    /// Rights were taken away.
    Forbidden = 4403,
    /// The named session was taken over by another connection.
    TakenOver = 4409,
    /// The server stops.
    Stopping = 4500,
    /// The client takes too long to read: it resumes from its last message.
    TooSlow = 4508,
    /// The store has failed.
    Failed = 4503,
}

/// Why a connection ends, and what is said of it.
pub(super) struct End {
    pub code: CloseCode,
    pub reason: &'static str,
}

pub(super) const fn end(code: CloseCode, reason: &'static str) -> End {
    End { code, reason }
}

/// A request.
#[derive(Debug)]
pub(super) enum Request {
    Connect(Connect),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Publish(Publish),
    Ack(Ack),
    Ping(Ping),
}

/// Who is asking, in one of three ways.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connect {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
    pub token: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub ticket: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
    pub filter: Option<String>,
    #[serde(default)]
    pub filters: Vec<String>,
    pub qos: Option<u8>,
    pub since: Option<String>,
    #[serde(default)]
    pub retained: bool,
    pub session: Option<String>,
    /// Seconds that a named session outlives its connection.
    pub session_expiry: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
    pub filter: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
    /// The envelope, as it was written.
    pub message: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ack {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
    pub acks: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ping {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pub id: Option<Value>,
}

/// Reads a request. Members that no request of its type has are refused, so that a misspelt one is
/// told.
///
/// # Errors
/// What is wrong, with its place.
pub(super) fn read(text: &str) -> serde_json::Result<Request> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        kind: String,
    }
    if !is_object(text) {
        serde_json::from_str::<IgnoredAny>(text)?;
        let why = "a request is an object, such as {\"type\":\"ping\"}";
        return Err(serde::de::Error::custom(why));
    }
    let head: Head = serde_json::from_str(text)?;
    Ok(match head.kind.as_str() {
        "connect" => Request::Connect(serde_json::from_str(text)?),
        "subscribe" => Request::Subscribe(serde_json::from_str(text)?),
        "unsubscribe" => Request::Unsubscribe(serde_json::from_str(text)?),
        "publish" => Request::Publish(serde_json::from_str(text)?),
        "ack" => Request::Ack(serde_json::from_str(text)?),
        "ping" => Request::Ping(serde_json::from_str(text)?),
        other => {
            let why = format!(
                "the type is {other:?}; there are connect, subscribe, unsubscribe, publish, ack and ping"
            );
            return Err(serde::de::Error::custom(why));
        }
    })
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// For programs.
    pub code: &'static str,
    /// For people: what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub temporary: bool,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Fault {
        Fault {
            code,
            message: message.into(),
            temporary: false,
        }
    }

    pub(super) fn temporary(code: &'static str, message: impl Into<String>) -> Fault {
        Fault {
            temporary: true,
            ..Fault::new(code, message)
        }
    }
}

/// The `id` of a request that could not be understood, if it has one.
pub(super) fn id_of(text: &str) -> Option<Value> {
    #[derive(Deserialize)]
    struct Id {
        id: Option<Value>,
    }
    serde_json::from_str::<Id>(text).ok()?.id
}

/// `{"type":"ok","id":…}` with more members.
pub(super) fn ok(id: Option<&Value>, more: Value) -> String {
    let mut reply = json!({"type": "ok"});
    if let (Some(reply), Value::Object(more)) = (reply.as_object_mut(), more) {
        if let Some(id) = id {
            reply.insert("id".to_owned(), id.clone());
        }
        reply.extend(more);
    }
    reply.to_string()
}

/// `{"type":"error",…}`.
pub(super) fn error(id: Option<&Value>, fault: &Fault) -> String {
    let mut reply = json!({
        "type": "error",
        "code": fault.code,
        "message": fault.message,
        "temporary": fault.temporary,
    });
    if let (Some(reply), Some(id)) = (reply.as_object_mut(), id) {
        reply.insert("id".to_owned(), id.clone());
    }
    reply.to_string()
}

/// `{"type":"message","filter":…,"message":…}` around an envelope.
pub(super) fn message(filter: &str, envelope: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelope.len() + filter.len() + 48);
    out.extend_from_slice(b"{\"type\":\"message\",\"filter\":");
    json::write_string(filter, &mut out);
    out.extend_from_slice(b",\"message\":");
    out.extend_from_slice(envelope);
    out.push(b'}');
    out
}

/// The same of a named session; `ack` is what the client acknowledges it by.
pub(super) fn session_message(
    session: &str,
    ack: Option<u16>,
    redelivered: bool,
    envelope: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelope.len() + session.len() + 80);
    out.extend_from_slice(b"{\"type\":\"message\",\"session\":");
    json::write_string(session, &mut out);
    if let Some(ack) = ack {
        out.extend_from_slice(format!(",\"ack\":{ack}").as_bytes());
    }
    if redelivered {
        out.extend_from_slice(b",\"redelivered\":true");
    }
    out.extend_from_slice(b",\"message\":");
    out.extend_from_slice(envelope);
    out.push(b'}');
    out
}

/// `{"type":"gap","filter":…,"gap":{"oldest":…,"lost":…}}`.
pub(super) fn gap(filter: &str, epoch: u64, gap: &Gap) -> Vec<u8> {
    let mut out = b"{\"type\":\"gap\",\"filter\":".to_vec();
    json::write_string(filter, &mut out);
    out.extend_from_slice(b",\"gap\":");
    render::write_gap(epoch, gap, &mut out);
    out.push(b'}');
    out
}

/// `{"type":"goodbye",…}`.
pub(super) fn goodbye(reason: &str, reconnect: bool) -> String {
    json!({"type": "goodbye", "reason": reason, "reconnect": reconnect}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_misspelt_ones_are_told() {
        let good = [
            r#"{"type":"connect","id":1,"token":"t"}"#,
            r#"{"type":"subscribe","id":"a","filter":"x/#","since":"10m"}"#,
            r#"{"type":"subscribe","filters":["x","y"],"session":"s","qos":1}"#,
            r#"{"type":"unsubscribe","id":2,"filter":"x/#"}"#,
            r#"{"type":"publish","id":3,"message":{"topic":"a","payload":"b"}}"#,
            r#"{"type":"ack","id":4,"acks":[1,2]}"#,
            r#"{"type":"ping","id":null}"#,
        ];
        for text in good {
            read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        }
        for (text, expected) in [
            (r#"{"type":"subscribe","id":1,"filtre":"x"}"#, "filtre"),
            (r#"{"type":"unsubscribe","id":1}"#, "filter"),
            (r#"{"type":"shout","id":1}"#, "shout"),
            (r#"{"id":1}"#, "type"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert_eq!(id_of(text), Some(1.into()));
        }
    }

    #[test]
    fn what_is_said_is_json() {
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let said = parse(&message("a/\"#", br#"{"topic":"a"}"#));
        assert_eq!(
            said,
            json!({"type":"message","filter":"a/\"#","message":{"topic":"a"}})
        );
        let said = parse(&session_message("s", Some(7), true, b"{}"));
        assert_eq!(
            said,
            json!({"type":"message","session":"s","ack":7,"redelivered":true,"message":{}})
        );
        let lost = Gap {
            oldest: Some(crate::store::Offset(9)),
            lost: Some(3),
            cursor: crate::store::Offset(8),
        };
        assert_eq!(
            parse(&gap("f", 4, &lost)),
            json!({"type":"gap","filter":"f","gap":{"oldest":"4.9","lost":3,"cursor":"4.8"}})
        );
        assert_eq!(
            serde_json::from_str::<Value>(&ok(Some(&1.into()), json!({"matched": 2})))
                .expect("JSON"),
            json!({"type":"ok","id":1,"matched":2})
        );
    }
}
