//! What is under HTTP on a connection: the bytes that were looked at already, and the deadlines of a
//! client that sends or takes nothing.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::config::HttpConfig;

/// How a status line begins, as far as its code.
const STATUS_LINE: usize = "HTTP/1.1 400".len();

/// Where a connection is between requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is there of the next request.
    Idle,
    /// A part of the head of a request is there.
    Head,
    /// A request is being answered; over HTTP/2, several may be.
    Busy,
    /// An answer is on its way out, all of it.
    Answered,
}

/// The stage, for the wire and for who answers requests on it.
pub(super) type Progress = Arc<Mutex<Stage>>;

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// What was read to find out who is to read it.
    before: Bytes,
    progress: Progress,
    header_timeout: Duration,
    keep_alive: Duration,
    send_timeout: Duration,
    /// When the client has to have sent more of a request.
    reading: Pin<Box<Sleep>>,
    /// When a client that takes nothing has to have taken something.
    sending: Option<Pin<Box<Sleep>>>,
    /// The beginning of an answer that was kept back.
    kept_back: Vec<u8>,
    timed_out: Option<Stage>,
}

impl Wire {
    /// A connection of which this was read already. The head of the first request has to be there by
    /// the deadline.
    pub(super) fn new(
        stream: TcpStream,
        before: Bytes,
        deadline: Instant,
        progress: Progress,
        config: &HttpConfig,
    ) -> Wire {
        Wire {
            stream,
            before,
            progress,
            header_timeout: config.header_timeout,
            keep_alive: config.keep_alive,
            send_timeout: config.send_timeout,
            reading: Box::pin(sleep_until(deadline)),
            sending: None,
            kept_back: Vec::new(),
            timed_out: None,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Where the connection was when the client was too slow, if it was.
    pub(super) fn timed_out(&self) -> Option<Stage> {
        self.timed_out
    }

    /// The status of an answer that no request has brought about, if there was one. It was not
    /// sent.
    pub(super) fn kept_back(&self) -> Option<u16> {
        let code = self.kept_back.get(STATUS_LINE - 3..STATUS_LINE)?;
        std::str::from_utf8(code).ok()?.parse().ok()
    }

    /// Whether what is written now is an answer to no request: that to bytes which are no request.
    /// Others write a better one.
    fn is_uncalled_for(&self) -> bool {
        matches!(*self.progress.lock(), Stage::Idle | Stage::Head)
    }

    fn keep_back(&mut self, bytes: &[u8]) -> usize {
        let missing = STATUS_LINE.saturating_sub(self.kept_back.len());
        self.kept_back
            .extend_from_slice(&bytes[..missing.min(bytes.len())]);
        bytes.len()
    }

    /// Ends the connection of a client that has taken nothing for too long.
    fn sent<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.sending = None;
            return written;
        }
        let timeout = self.send_timeout;
        let sending = self.sending.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(sending.as_mut().poll(cx));
        self.timed_out = Some(Stage::Answered);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let count = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before[..count]);
            self.before.advance(count);
            return Poll::Ready(Ok(()));
        }
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let stage = *self.progress.lock();
        if read.is_pending() && matches!(stage, Stage::Idle | Stage::Head) {
            ready!(self.reading.as_mut().poll(cx));
            self.timed_out = Some(stage);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if buffer.filled().len() > had && stage == Stage::Idle {
            *self.progress.lock() = Stage::Head;
            let deadline = Instant::now() + self.header_timeout;
            self.reading.as_mut().reset(deadline);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_uncalled_for() {
            return Poll::Ready(Ok(self.keep_back(bytes)));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_uncalled_for() {
            let kept = slices.iter().map(|slice| self.keep_back(slice)).sum();
            return Poll::Ready(Ok(kept));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Everything was written: from here on the client is to send.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let was_answered = {
            let mut stage = self.progress.lock();
            let was_answered = *stage == Stage::Answered;
            if was_answered {
                *stage = Stage::Idle;
            }
            was_answered
        };
        if was_answered {
            let deadline = Instant::now() + self.keep_alive;
            self.reading.as_mut().reset(deadline);
            // Registers it: a read that is pending already may not be tried again before.
            let _ = self.reading.as_mut().poll(cx);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
