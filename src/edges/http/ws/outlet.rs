//! What a WebSocket is sent, straight on its connection. A frame that was made once for all readers
//! goes there by way of a buffer of the thread, and all frames of a turn in one write; nothing is
//! copied for a socket that has room. The library, which has the connection otherwise, writes what
//! answers a ping, and what closes.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::{Sink, SinkExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::Socket;

/// The largest buffer that a thread keeps for the next socket.
const BUFFER_MAX: usize = 256 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Appends a text frame of this message (RFC 6455 §5.2), which has to be UTF-8. A server's frames
/// are not masked (§5.1).
pub(in crate::edges::http) fn write_text_frame(message: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    debug_assert!(std::str::from_utf8(message).is_ok(), "text is UTF-8");
    let len = message.len();
    out.reserve(header.len(len as u64) + len);
    if let Err(error) = header.format(len as u64, out) {
        tracing::error!(%error, "a vector did not take a frame");
        return;
    }
    out.extend_from_slice(message);
}

/// The way out of a socket: what its connection had no room for yet.
#[derive(Default)]
pub(super) struct Outlet {
    unsent: BytesMut,
}

impl Outlet {
    /// Whether something has to be sent by [`Outlet::finish`] before anything else is.
    pub(super) fn is_full(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Has `say` write frames into a buffer, and sends them as far as the connection takes them at
    /// once; pending when `say` is, and what it has said until then is sent all the same.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        say: impl FnOnce(&mut Context<'_>, &mut Vec<u8>) -> Poll<T>,
    ) -> Poll<Result<T, Error>> {
        let mut buffer = BUFFER.take();
        buffer.clear();
        let said = say(cx, &mut buffer);
        let sent = match buffer.is_empty() {
            true => Ok(()),
            false => self.send(cx, socket, &buffer),
        };
        if buffer.capacity() <= BUFFER_MAX {
            BUFFER.set(buffer);
        }
        sent?;
        Poll::Ready(Ok(ready!(said)))
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        frames: &[u8],
    ) -> Result<(), Error> {
        // Never in the middle of what the library has begun to write.
        let sent = match self.is_full() || Pin::new(&mut *socket).poll_flush(cx)?.is_pending() {
            true => 0,
            false => match Pin::new(socket.get_mut()).poll_write(cx, frames)? {
                Poll::Ready(sent) => sent,
                Poll::Pending => 0,
            },
        };
        self.unsent.extend_from_slice(&frames[sent..]);
        Ok(())
    }

    /// Sends the rest, however long the client takes. If it is dropped before, it goes on where it was
    /// when it is called again.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) async fn finish(&mut self, socket: &mut Socket) -> Result<(), Error> {
        socket.flush().await?;
        let stream: &mut tokio::net::TcpStream = socket.get_mut();
        stream.write_all_buf(&mut self.unsent).await?;
        // Not the memory either: nobody knows how long nothing comes.
        self.unsent = BytesMut::new();
        Ok(())
    }
}
