//! A stream of events straight on its TCP connection. While there is nothing to send, it has no
//! buffer.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::Edge;
use super::streaming::Streaming;
use crate::broker::stats::Drop as Reason;

/// The head of a chunk: 16 digits at the most.
const CHUNK_HEAD: usize = 18;

/// Why it ends.
enum End {
    /// All was said, or the client is gone.
    Done,
    /// The client takes nothing.
    TooSlow,
}

/// A stream on its connection.
pub(super) struct Direct {
    socket: TcpStream,
    stream: Box<Streaming>,
    /// Otherwise the end of the connection is the end of the stream.
    chunked: bool,
    /// What comes before `body`: the head of the answer, the head of a chunk.
    head: Vec<u8>,
    body: Vec<u8>,
    /// How much of both was sent.
    sent: usize,
    /// When a client that takes nothing has to have taken something.
    sending: Option<Pin<Box<Sleep>>>,
}

impl Direct {
    /// A stream that is to follow this head of an answer, in chunks (RFC 9112 §7.1) if the client
    /// knows them.
    pub(super) fn new(
        socket: TcpStream,
        head: Vec<u8>,
        chunked: bool,
        stream: Box<Streaming>,
    ) -> Direct {
        Direct {
            socket,
            stream,
            chunked,
            head,
            body: Vec::new(),
            sent: 0,
            sending: None,
        }
    }

    /// Runs until the stream ends or the client is gone.
    pub(super) async fn run(mut self, edge: &Edge) {
        let mut stopped = pin!(edge.stopped());
        let mut is_stopping = false;
        let end = poll_fn(|cx| {
            // The stream knows by itself what to do then.
            is_stopping = is_stopping || stopped.as_mut().poll(cx).is_ready();
            self.turn(edge, cx)
        });
        match end.await {
            End::Done => {
                // One that is gone already has no use for it.
                let _ = self.socket.shutdown().await;
            }
            End::TooSlow => {
                edge.broker.stats.dropped(Reason::SlowReceiver, 1);
                tracing::debug!("a stream was ended: its client takes nothing");
            }
        }
    }

    /// One turn of the task: ready only when the stream is to end.
    fn turn(&mut self, edge: &Edge, cx: &mut Context<'_>) -> Poll<End> {
        if self.is_closed(cx) {
            return Poll::Ready(End::Done);
        }
        loop {
            while self.sent < self.head.len() + self.body.len() {
                match self.write(cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        self.sent += count;
                        self.sending = None;
                    }
                    Poll::Ready(_) => return Poll::Ready(End::Done),
                    Poll::Pending => {
                        let timeout = edge.config.send_timeout;
                        let sending = self.sending.get_or_insert_with(|| Box::pin(sleep(timeout)));
                        ready!(sending.as_mut().poll(cx));
                        return Poll::Ready(End::TooSlow);
                    }
                }
            }
            if self.stream.has_ended() {
                return Poll::Ready(End::Done);
            }
            self.collect(cx);
            if self.head.is_empty() && self.body.is_empty() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the client is gone. What it sends has no meaning any more.
    fn is_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ignored = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut ignored);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        match self.sent.checked_sub(self.head.len()) {
            Some(sent) => socket.poll_write(cx, &self.body[sent..]),
            None => {
                let slices = [
                    IoSlice::new(&self.head[self.sent..]),
                    IoSlice::new(&self.body),
                ];
                socket.poll_write_vectored(cx, &slices)
            }
        }
    }

    /// Takes what the stream has to say next. All of the last was sent.
    fn collect(&mut self, cx: &mut Context<'_>) {
        if self.sent > 0 {
            // Not the memory either: nobody knows how long nothing comes.
            (self.head, self.body, self.sent) = (Vec::new(), Vec::new(), 0);
        }
        if self.stream.poll(cx, &mut self.body).is_pending() || !self.chunked {
            return;
        }
        if !self.body.is_empty() {
            self.head.reserve_exact(CHUNK_HEAD);
            let size = format!("{:x}\r\n", self.body.len());
            self.head.extend_from_slice(size.as_bytes());
            self.body.extend_from_slice(b"\r\n");
        }
        if self.stream.has_ended() {
            self.body.extend_from_slice(b"0\r\n\r\n");
        }
    }
}
