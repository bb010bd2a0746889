//! Opens event streams and WebSockets.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::frames::{self, Frames};
use super::wrap::Wrap;
use super::{Language, Server, SubscribeOver, WebOptions};
use crate::client::{Client, TOGETHER};
use crate::web::chunks::Chunks;

/// The key of RFC 6455 §1.3, and what it has to be answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Where MQTT is spoken over WebSocket, with every broker.
const MQTT_PATH: &str = "/mqtt";

/// A subscriber that is no MQTT client.
pub struct Subscription<'a> {
    pub filters: &'a [String],
    /// The event after which it goes on.
    pub last_event_id: Option<&'a str>,
}

/// Opens all, some dozens at a time; `filters` says what the `index`th subscribes to.
pub fn open_many(
    options: &WebOptions,
    count: usize,
    filters: impl Fn(usize) -> Vec<String>,
) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for first in (0..count).step_by(TOGETHER) {
        for index in first..count.min(first + TOGETHER) {
            let subscription = Subscription {
                filters: &filters(index),
                last_event_id: None,
            };
            clients.push(begin(options, &subscription)?);
        }
        for (index, client) in clients.iter_mut().enumerate().skip(first) {
            finish(options, client, &filters(index))?;
        }
    }
    Ok(clients)
}

/// Opens one.
pub fn open(options: &WebOptions, subscription: &Subscription<'_>) -> Result<Client> {
    let mut client = begin(options, subscription)?;
    finish(options, &mut client, subscription.filters)?;
    Ok(client)
}

fn begin(options: &WebOptions, subscription: &Subscription<'_>) -> Result<Client> {
    let mut client = Client::dial(options.http)?;
    let path = match (options.server, options.subscribe_over) {
        (Server::Tidings, SubscribeOver::Sse) => {
            let format = if options.raw { "raw" } else { "json" };
            let topics: String = subscription
                .filters
                .iter()
                .map(|filter| format!("&topic={}", escape(filter)))
                .collect();
            format!("/v1/events?format={format}{topics}")
        }
        (Server::Tidings, _) => "/v1/ws".to_owned(),
        (Server::Nchan, _) => {
            let [channel] = subscription.filters else {
                bail!("a subscriber of nchan has one channel");
            };
            format!("/sub/{}", escape(channel))
        }
    };
    match options.subscribe_over {
        SubscribeOver::Sse => {
            let resume = match subscription.last_event_id {
                Some(id) => format!("Last-Event-ID: {id}\r\n"),
                None => String::new(),
            };
            client.write(
                format!(
                    "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{resume}\r\n",
                    options.http
                )
                .as_bytes(),
            )?;
        }
        _ => {
            let subprotocol = match options.server {
                Server::Tidings => Some("tidings.v1.json"),
                Server::Nchan => None,
            };
            ask_for_websocket(&mut client, &path, subprotocol)?;
        }
    }
    Ok(client)
}

fn finish(options: &WebOptions, client: &mut Client, filters: &[String]) -> Result<()> {
    if options.subscribe_over == SubscribeOver::Sse {
        let chunked = client.expect_head(200, |head| {
            let is_stream = head
                .field("content-type")
                .is_some_and(|it| it.starts_with(b"text/event-stream"));
            ensure!(is_stream, "the answer is no event stream");
            Ok(head.field("transfer-encoding").is_some())
        })?;
        client.language = Language::Events;
        if chunked {
            client.unwrap_from_here(Wrap::Chunks(Chunks::new()))?;
        }
        return Ok(());
    }
    client.language = Language::Lines;
    expect_websocket(client, frames::TEXT)?;
    if options.server == Server::Tidings {
        let request = json!({"type": "subscribe", "id": 1, "filters": filters});
        client.write(request.to_string().as_bytes())?;
        let reply = client.expect_line()?;
        let reply: Value = serde_json::from_slice(&reply).context("a reply that is no JSON")?;
        ensure!(
            reply["type"] == "ok",
            "the subscription was refused: {reply}"
        );
    }
    Ok(())
}

/// The opening handshake of MQTT over WebSocket, first half.
pub fn ask_for_mqtt(client: &mut Client) -> Result<()> {
    ask_for_websocket(client, MQTT_PATH, Some("mqtt"))
}

/// Second half.
pub fn expect_mqtt(client: &mut Client) -> Result<()> {
    expect_websocket(client, frames::BINARY)
}

fn ask_for_websocket(client: &mut Client, path: &str, subprotocol: Option<&str>) -> Result<()> {
    let subprotocol = match subprotocol {
        Some(name) => format!("Sec-WebSocket-Protocol: {name}\r\n"),
        None => String::new(),
    };
    let host = client.stream.peer_addr()?;
    client.write(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{subprotocol}\r\n"
        )
        .as_bytes(),
    )
}

fn expect_websocket(client: &mut Client, opcode: u8) -> Result<()> {
    client.expect_head(101, |head| {
        ensure!(
            head.field("sec-websocket-accept") == Some(ACCEPT),
            "a wrong Sec-WebSocket-Accept"
        );
        Ok(())
    })?;
    client.unwrap_from_here(Wrap::Frames(Box::new(Frames::new(opcode))))
}

/// Percent-encodes what is more than letters, digits and slashes.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn wildcards_are_escaped() {
        assert_eq!(super::escape("a/+/b c/#"), "a/%2B/b%20c/%23");
    }
}
