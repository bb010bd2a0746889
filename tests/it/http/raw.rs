//! A connection of which every byte is the scenario's own.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::client::send;
use crate::harness::*;

/// A broker that says nothing for so long has failed the scenario.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Raw(pub TcpStream);

/// An answer that was read to the end of its connection, or of its Content-Length.
pub struct Whole {
    pub head: String,
    pub body: Vec<u8>,
}

impl Whole {
    pub fn status(&self) -> u16 {
        let code = self.head.get(9..12).expect("a status line");
        code.parse().expect("a status")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A problem (RFC 9457) of this status, which is also in it.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status(), status, "{}", self.head);
        let content_type = self.header("content-type");
        assert_eq!(content_type, Some("application/problem+json"));
        let problem: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], status);
        problem
    }
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Raw {
        Raw(TcpStream::connect(address).await.expect("it listens"))
    }

    /// One whose receive buffer is small, so that what it does not read soon stays with the broker.
    pub async fn open_narrow(address: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        Raw(socket.connect(address).await.expect("it listens"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("written");
    }

    pub async fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
    }

    pub async fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        let read = timeout(PATIENCE, self.0.read(&mut byte)).await;
        let count = read.expect("a byte in time").expect("read");
        (count == 1).then_some(byte[0])
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        read.expect("bytes in time").expect("read");
        bytes
    }

    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await.expect("a whole head"));
        }
        String::from_utf8(head).expect("text")
    }

    /// The next answer, which has a Content-Length.
    pub async fn answer(&mut self) -> Whole {
        let mut whole = Whole {
            head: self.head().await,
            body: Vec::new(),
        };
        let length = whole.header("content-length").expect("a length");
        whole.body = self.exactly(length.parse().expect("a number")).await;
        whole
    }

    /// What comes until the other side closes, however it does.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let reading = self.0.read_to_end(&mut rest);
        // A reset is an end as well.
        let _ = timeout(PATIENCE, reading).await.expect("it ends in time");
        rest
    }
}

/// The value of a figure of `/metrics`, with its labels.
pub async fn figure(broker: &Broker, name: &str) -> u64 {
    let answer = send(broker.http, "GET", "/metrics", "connection: close\r\n", b"").await;
    let body = String::from_utf8(answer.body().await).expect("text");
    let line = body.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {body}"));
    value.trim().parse().expect("a number")
}

/// Asks until the figure is `value`.
pub async fn until_figure(broker: &Broker, name: &str, value: u64) {
    let asking = async {
        while figure(broker, name).await != value {
            tokio::task::yield_now().await;
        }
    };
    let in_time = timeout(PATIENCE, asking).await;
    in_time.unwrap_or_else(|_| panic!("{name} does not become {value}"));
}
