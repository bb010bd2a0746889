//! A small HTTP/1.1 client that shows what is on the wire.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A broker that says nothing for so long has failed the scenario.
const PATIENCE: Duration = Duration::from_secs(30);

/// The headers that open a WebSocket (RFC 6455 §4.1).
pub const HANDSHAKE: &str = "upgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A connection on which the head of an answer was read.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    /// What came in chunks and was not asked for yet.
    unread: Vec<u8>,
}

/// Sends one request and reads the head of the answer. `headers` are whole lines, each ending in
/// CR LF.
pub async fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let headers = format!("content-length: {}\r\n{headers}", body.len());
    begin(address, method, target, &headers)
        .await
        .finish(body)
        .await
}

/// A request whose head was sent, and perhaps a part of its body.
pub struct Begun(TcpStream);

/// Sends the head of a request; `headers` as for [`send`], which says how long the body is.
pub async fn begin(address: SocketAddr, method: &str, target: &str, headers: &str) -> Begun {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut begun = Begun(stream);
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    begun.send(head.as_bytes()).await;
    begun
}

/// Sends a request that is written out in full, and reads the head of the answer.
pub async fn raw(address: SocketAddr, request: &str) -> Answer {
    let stream = TcpStream::connect(address).await.expect("it listens");
    Begun(stream).finish(request.as_bytes()).await
}

impl Begun {
    /// Sends more of the body.
    pub async fn send(&mut self, part: &[u8]) {
        self.0.write_all(part).await.expect("written");
    }

    /// Sends the rest of the body, and reads the head of the answer.
    pub async fn finish(mut self, rest: &[u8]) -> Answer {
        self.send(rest).await;
        self.answer().await
    }

    /// Reads the head of the answer.
    pub async fn answer(self) -> Answer {
        let mut answer = Answer {
            status: 0,
            headers: Vec::new(),
            stream: BufReader::new(self.0),
            unread: Vec::new(),
        };
        let status = answer.wire_line().await;
        answer.status = status
            .strip_prefix("HTTP/1.1 ")
            .and_then(|it| it.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {status:?}"));
        loop {
            let line = answer.wire_line().await;
            if line.is_empty() {
                return answer;
            }
            let (name, value) = line.split_once(':').expect("a header");
            let value = value.trim().to_owned();
            answer.headers.push((name.to_ascii_lowercase(), value));
        }
    }
}

impl Answer {
    async fn wire_line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut line))
            .await
            .expect("a line in time")
            .expect("a line");
        line.strip_suffix("\r\n").expect("a whole line").to_owned()
    }

    /// Sends a text frame on what has become a WebSocket; with a mask that changes nothing
    /// (RFC 6455 §5.3).
    pub async fn send_frame(&mut self, text: &str) {
        let length = u16::try_from(text.len()).expect("a short frame");
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.expect("written");
    }

    /// The next text frame of what has become a WebSocket.
    pub async fn frame(&mut self) -> Value {
        let reading = async {
            let first = self.stream.read_u8().await.expect("a frame");
            assert_eq!(first, 0x81, "a text frame in one piece");
            let length = match self.stream.read_u8().await.expect("a length") {
                126 => usize::from(self.stream.read_u16().await.expect("a length")),
                length => usize::from(length),
            };
            let mut text = vec![0; length];
            self.stream.read_exact(&mut text).await.expect("the text");
            serde_json::from_slice(&text).expect("JSON")
        };
        timeout(PATIENCE, reading).await.expect("a frame in time")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of a header that may be there more than once.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.headers.iter().filter(move |(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The `detail` of a problem.
    pub async fn detail(self) -> String {
        let problem = self.json().await;
        let detail = problem["detail"].as_str();
        detail.unwrap_or_else(|| panic!("{problem}")).to_owned()
    }

    /// The body of an answer with a Content-Length, as text.
    pub async fn text(self) -> String {
        String::from_utf8(self.body().await).expect("UTF-8")
    }

    /// The body of an answer with a Content-Length.
    pub async fn body(mut self) -> Vec<u8> {
        let length = self.header("content-length").expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        timeout(PATIENCE, self.stream.read_exact(&mut body))
            .await
            .expect("the body in time")
            .expect("the body");
        body
    }

    pub async fn json(self) -> Value {
        serde_json::from_slice(&self.body().await).expect("JSON")
    }

    /// The next lines of a stream in chunks, up to an empty one; none at the end of the stream.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|it| it == b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let mut block = std::mem::replace(&mut self.unread, rest);
                block.truncate(end);
                return Some(String::from_utf8(block).expect("UTF-8"));
            }
            let size = self.wire_line().await;
            let size = usize::from_str_radix(&size, 16).expect("the size of a chunk");
            let mut chunk = vec![0; size + 2];
            timeout(PATIENCE, self.stream.read_exact(&mut chunk))
                .await
                .expect("a chunk in time")
                .expect("a chunk");
            assert_eq!(chunk.split_off(size), b"\r\n");
            if size == 0 {
                assert_eq!(self.unread, b"", "half an event at the end");
                return None;
            }
            self.unread.extend(chunk);
        }
    }

    /// The next block of a stream that is not a comment.
    pub async fn event(&mut self) -> String {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if !block.starts_with(':') {
                return block;
            }
        }
    }
}

/// The value of a field of an event.
pub fn field<'b>(block: &'b str, name: &str) -> Option<&'b str> {
    let of = |line: &'b str| line.strip_prefix(name)?.strip_prefix(": ");
    block.lines().find_map(of)
}
