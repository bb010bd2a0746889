//! Requests: those that publish during a run, and single ones that are waited for.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::streams::escape;
use super::{Server, WebOptions};
use crate::client::Client;
use crate::wire::Template;

/// A request that publishes, whose payload can be patched in a copy of its bytes.
pub fn publish(options: &WebOptions, qos: u8, topic: &str, payload: &[u8]) -> Template {
    let topic = escape(topic);
    let path = match options.server {
        Server::Tidings => format!("/v1/topics/{topic}?qos={qos}"),
        Server::Nchan => format!("/pub/{topic}"),
    };
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        options.http,
        payload.len()
    )
    .into_bytes();
    let payload_at = bytes.len();
    bytes.extend_from_slice(payload);
    Template {
        bytes,
        packet_id_at: 0,
        payload_at,
        text: false,
    }
}

/// Sends a request with a JSON body, if there is one, and waits for a JSON answer; `Null` where it
/// has no body. Any status but a success is an error.
pub fn json(client: &mut Client, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let host = client.stream.peer_addr()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let content_type = match body.is_empty() {
        true => "",
        false => "Content-Type: application/json\r\n",
    };
    client.write(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{content_type}Content-Length: {}\r\n\r\n\
             {body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let (status, said) = client.expect_answer()?;
    ensure!(
        (200..300).contains(&status),
        "{method} {path}: {status}: {}",
        String::from_utf8_lossy(&said)
    );
    if said.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&said).context("an answer that is no JSON")
}
