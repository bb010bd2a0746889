//! The receiver of webhooks: connections that are accepted, requests that are answered at once.

use std::collections::HashMap;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::conn::Conn;
use super::stamp::Stamp;
use super::{Engine, Role};
use crate::web::Language;
use crate::web::head::Head;

pub const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The path of an endpoint is this and its number.
pub const PATH: &str = "/endpoint/";

/// One delivery.
#[derive(Debug)]
pub struct Request<'a> {
    pub endpoint: usize,
    pub webhook_id: &'a [u8],
    pub body: &'a [u8],
    pub len: usize,
}

/// The request that `bytes` begin with; `None` while its end is missing.
pub fn read(bytes: &[u8]) -> Result<Option<Request<'_>>> {
    let Some(head) = Head::read(bytes) else {
        return Ok(None);
    };
    let Some(body) = bytes.get(head.len..head.len + head.body_len()?) else {
        return Ok(None);
    };
    let path = head.first_line.split(|byte| *byte == b' ').nth(1);
    let endpoint = path
        .and_then(|path| path.strip_prefix(PATH.as_bytes()))
        .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok())
        .context("a request for something that is no endpoint")?;
    let webhook_id = head
        .field("webhook-id")
        .context("a delivery without webhook-id")?;
    Ok(Some(Request {
        endpoint,
        webhook_id,
        body,
        len: head.len + body.len(),
    }))
}

/// Which message has which `webhook-id` at which endpoint.
#[derive(Default)]
pub struct Deliveries {
    messages: HashMap<(usize, u64), (u32, u64)>,
}

impl Deliveries {
    /// The answer is whether the id is new or was that of the same message before.
    pub fn note(&mut self, request: &Request<'_>, stamp: &Stamp) -> bool {
        // FNV-1a: short, and the sender is not an enemy.
        let id = request
            .webhook_id
            .iter()
            .fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
            });
        let message = (stamp.publisher, stamp.sequence);
        let known = self.messages.entry((request.endpoint, id));
        *known.or_insert(message) == message
    }

    pub fn distinct(&self) -> u64 {
        self.messages.len() as u64
    }
}

impl Engine {
    /// Takes all connections that wait.
    pub(super) fn accept(&mut self) -> Result<()> {
        while let Some(listener) = &self.listener {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept a delivery"),
            };
            let conn = Conn::accepted(stream, Language::Requests)?;
            self.poll.add(conn.fd(), self.conns.len() as u64, false)?;
            self.conns.push(conn);
            self.roles.push(Role::Deliverer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"POST /endpoint/12 HTTP/1.1\r\nhost: a\r\nWebhook-Id: msg_1\r\n\
                             content-length: 5\r\n\r\nhelloPOST";

    #[test]
    fn a_delivery_is_read_when_all_of_it_is_there() {
        let request = read(REQUEST).unwrap().unwrap();
        assert_eq!((request.endpoint, request.body), (12, b"hello".as_slice()));
        assert_eq!(request.webhook_id, b"msg_1");
        assert_eq!(request.len, REQUEST.len() - 4);
        assert!(read(&REQUEST[..request.len - 1]).unwrap().is_none());
    }

    #[test]
    fn an_id_belongs_to_one_message() {
        let request = read(REQUEST).unwrap().unwrap();
        let stamp = |sequence| Stamp {
            sequence,
            at_ns: 0,
            publisher: 0,
            mark: 0,
        };
        let mut deliveries = Deliveries::default();
        assert!(deliveries.note(&request, &stamp(1)));
        assert!(deliveries.note(&request, &stamp(1)));
        assert!(!deliveries.note(&request, &stamp(2)));
        assert_eq!(deliveries.distinct(), 1);
    }
}
