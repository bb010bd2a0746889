//! A stream of events straight on its TCP connection. It has memory of its own only for what the
//! connection has no room for: an idle one has none.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::Edge;
use super::streaming::Streaming;
use crate::broker::stats::Drop as Reason;

/// Room for the head of a chunk: 16 digits at the most.
const CHUNK_HEAD: usize = 18;

/// The largest buffer that a thread keeps for the next stream.
const BUFFER_MAX: usize = 256 * 1024;

thread_local! {
    /// What streams of this thread say goes through it on its way into their connections.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

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
    /// What the connection had no room for yet.
    unsent: Vec<u8>,
    /// How much of it was sent since.
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
            unsent: head,
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
            while self.sent < self.unsent.len() {
                let rest = &self.unsent[self.sent..];
                match Pin::new(&mut self.socket).poll_write(cx, rest) {
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
            if self.sent > 0 {
                // Not the memory either: nobody knows how long nothing comes.
                (self.unsent, self.sent) = (Vec::new(), 0);
            }
            if self.stream.has_ended() {
                return Poll::Ready(End::Done);
            }
            let mut buffer = BUFFER.take();
            buffer.clear();
            let said = self.say(cx, &mut buffer);
            if buffer.capacity() <= BUFFER_MAX {
                BUFFER.set(buffer);
            }
            if ready!(said).is_err() {
                return Poll::Ready(End::Done);
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

    /// Sends what the stream has to say next, as far as the connection takes it at once; pending
    /// while that is nothing.
    fn say(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<()>> {
        let mut begin = match self.chunked {
            true => CHUNK_HEAD,
            false => 0,
        };
        buffer.resize(begin, 0);
        ready!(self.stream.poll(cx, buffer));
        if self.chunked {
            let len = buffer.len() - begin;
            if len > 0 {
                let mut head = [0; CHUNK_HEAD];
                let mut left = &mut head[..];
                write!(left, "{len:x}\r\n")?;
                let left = left.len();
                let head = &head[..CHUNK_HEAD - left];
                begin -= head.len();
                buffer[begin..CHUNK_HEAD].copy_from_slice(head);
                buffer.extend_from_slice(b"\r\n");
            }
            if self.stream.has_ended() {
                buffer.extend_from_slice(b"0\r\n\r\n");
            }
        }
        let said = &buffer[begin..];
        let sent = match Pin::new(&mut self.socket).poll_write(cx, said) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.unsent.extend_from_slice(&said[sent..]);
        Poll::Ready(Ok(()))
    }
}
