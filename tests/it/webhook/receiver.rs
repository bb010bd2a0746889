//! An endpoint that does as it is told, whatever that is. HTTP/1.1 is written by hand, so that every
//! byte and every silence is the scenario's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A broker that sends nothing for so long has failed the scenario.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with this status and no body.
    Status(u16),
    /// Answers with these lines after the status line, each ending in CR LF, and this body.
    Answer(u16, String, Vec<u8>),
    /// Says nothing until the other side gives up.
    Hang,
    /// Ends the connection with a RST.
    Reset,
    /// Ends the connection without an answer.
    Close,
    /// Answers 200 and a body that has no end.
    Endless,
    /// Answers 200 and begins a body of which the rest never comes.
    Drip,
    /// Answers what is no HTTP.
    Garbage,
    /// Answers 200 once it was told to: see [`Receiver::release`].
    Wait,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came over, from 0.
    pub connection: usize,
    /// Whether the answer is to be a success.
    pub accepted: bool,
}

impl Request {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The payload of the message in a CloudEvent in structured mode.
    pub fn data(&self) -> String {
        let event = self.json();
        event["data"]
            .as_str()
            .unwrap_or_else(|| panic!("data is a string: {event}"))
            .to_owned()
    }

    pub fn attempt(&self) -> u32 {
        self.header("webhook-attempt").parse().expect("a number")
    }
}

#[derive(Default)]
struct Script {
    /// What to do with the next requests, one each.
    once: VecDeque<Act>,
    /// And with all others.
    always: Option<Act>,
    connections: usize,
}

/// See the module.
pub struct Receiver {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: mpsc::UnboundedReceiver<Request>,
    gate: Arc<tokio::sync::Semaphore>,
    /// Goes with the receiver.
    serving: JoinSet<()>,
}

impl Receiver {
    /// On a port that the system chooses; answers 200 unless it is told otherwise.
    pub async fn start() -> Receiver {
        Receiver::at("127.0.0.1:0").await
    }

    pub async fn at(address: &str) -> Receiver {
        Receiver::serve(address, None).await
    }

    /// With TLS.
    pub async fn with_tls(acceptor: TlsAcceptor) -> Receiver {
        Receiver::serve("127.0.0.1:0", Some(acceptor)).await
    }

    async fn serve(address: &str, acceptor: Option<TlsAcceptor>) -> Receiver {
        let listener = TcpListener::bind(address).await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let script = Arc::new(Mutex::new(Script::default()));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (sender, requests) = mpsc::unbounded_channel();
        let mut serving = JoinSet::new();
        let shared = Shared {
            script: script.clone(),
            gate: gate.clone(),
            sender,
        };
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                let number = {
                    let mut script = shared.script.lock().expect("no panic");
                    script.connections += 1;
                    script.connections - 1
                };
                connections.spawn(async move {
                    match acceptor {
                        // A client that does not believe us leaves in the handshake.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection(stream, number, shared).await;
                            }
                        }
                        None => plain(stream, number, shared).await,
                    }
                });
            }
        });
        Receiver {
            address,
            script,
            requests,
            gate,
            serving,
        }
    }

    /// Another one at the same address: it sees nothing of what was sent to this one.
    pub async fn again(mut self) -> Receiver {
        self.serving.shutdown().await;
        Receiver::at(&self.address.to_string()).await
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    /// Does this with the next requests, one each.
    pub fn next(&self, acts: impl IntoIterator<Item = Act>) -> &Receiver {
        self.script.lock().expect("no panic").once.extend(acts);
        self
    }

    /// Does this with all requests that nothing else is said of.
    pub fn always(&self, act: Act) -> &Receiver {
        self.script.lock().expect("no panic").always = Some(act);
        self
    }

    /// Lets this many of those that wait have their answer, now or later.
    pub fn release(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// The next request that arrives.
    pub async fn request(&mut self) -> Request {
        timeout(PATIENCE, self.requests.recv())
            .await
            .expect("a request in time")
            .expect("the receiver is there")
    }

    /// The next requests.
    pub async fn some(&mut self, count: usize) -> Vec<Request> {
        let mut requests = Vec::with_capacity(count);
        for _ in 0..count {
            requests.push(self.request().await);
        }
        requests
    }

    /// What has arrived and was not asked for.
    pub fn arrived(&mut self) -> Vec<Request> {
        let mut arrived = Vec::new();
        while let Ok(request) = self.requests.try_recv() {
            arrived.push(request);
        }
        arrived
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.script.lock().expect("no panic").connections
    }
}

#[derive(Clone)]
struct Shared {
    script: Arc<Mutex<Script>>,
    gate: Arc<tokio::sync::Semaphore>,
    sender: mpsc::UnboundedSender<Request>,
}

async fn plain(stream: TcpStream, number: usize, shared: Shared) {
    let _ = stream.set_nodelay(true);
    let reset = socket2::SockRef::from(&stream)
        .try_clone()
        .expect("a socket");
    if connection(stream, number, shared).await {
        // With no time to linger, closing sends a RST.
        let _ = reset.set_linger(Some(Duration::ZERO));
    }
}

/// Serves one connection; true if it is to end with a RST.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    number: usize,
    shared: Shared,
) -> bool {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(mut request) = read(&mut stream, number).await else {
            return false;
        };
        let act = {
            let mut script = shared.script.lock().expect("no panic");
            let always = script.always.clone();
            script
                .once
                .pop_front()
                .or(always)
                .unwrap_or(Act::Status(200))
        };
        request.accepted = match act {
            Act::Status(status) | Act::Answer(status, ..) => status / 100 == 2,
            _ => false,
        };
        // The scenario that does not listen any more is over.
        let _ = shared.sender.send(request);
        match act {
            Act::Reset => return true,
            Act::Close => return false,
            act => {
                if perform(&mut stream, act, &shared.gate).await.is_none() {
                    return false;
                }
            }
        }
    }
}

async fn read(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    connection: usize,
) -> Option<Request> {
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        target,
        headers,
        body,
        connection,
        accepted: false,
    })
}

/// Answers; none if the connection is of no use any more.
async fn perform(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    act: Act,
    gate: &tokio::sync::Semaphore,
) -> Option<()> {
    let (status, headers, body) = match act {
        Act::Status(status) => (status, String::new(), Vec::new()),
        Act::Answer(status, headers, body) => (status, headers, body),
        Act::Wait => {
            gate.acquire().await.expect("never closed").forget();
            (200, String::new(), Vec::new())
        }
        Act::Garbage => {
            stream.write_all(b"what?\r\n\r\n").await.ok()?;
            return None;
        }
        Act::Endless => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
                .await
                .ok()?;
            loop {
                stream.write_all(&[b'x'; 4096]).await.ok()?;
            }
        }
        Act::Drip => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx";
            stream.write_all(head).await.ok()?;
            return until_gone(stream).await;
        }
        Act::Hang | Act::Reset | Act::Close => return until_gone(stream).await,
    };
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    let mut answer = head.into_bytes();
    answer.extend(body);
    stream.write_all(&answer).await.ok()
}

/// Waits until the other side has closed.
async fn until_gone(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> Option<()> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    None
}
