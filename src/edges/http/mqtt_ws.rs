//! MQTT over WebSocket (MQTT 5 §6): another stream of bytes under the MQTT edge.
//!
//! Packets are not aligned to frames [MQTT-6.0.0-2]; a frame that is not binary closes the
//! connection [MQTT-6.0.0-1].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::Edge;
use super::problem::Problem;
use super::query::Query;
use super::respond::Body;
use super::ws::{Socket, handshake};

/// Both names are in use [MQTT-6.0.0-3]; the second is that of MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// How long a client has to take the close frame.
const FAREWELL: Duration = Duration::from_secs(2);

/// `GET /mqtt`.
pub(super) fn upgrade(
    edge: &Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let handshake = handshake(edge, &request, &SUBPROTOCOLS)?;
    if handshake.subprotocol.is_none() {
        return Err(Problem::bad_request(
            "no-subprotocol",
            "No subprotocol that is known",
            "offer mqtt: new WebSocket(url, \"mqtt\")",
        ));
    }
    let place = edge.place(peer)?;
    let edge = Arc::clone(edge);
    let message_max = edge.broker.mqtt().max_packet_size;
    Ok(handshake.then(message_max, async move |socket| {
        let _place = place;
        let stream = Frames {
            socket,
            read: Bytes::new(),
            farewell: Farewell::None,
            idle: false,
        };
        (edge.serve_mqtt)(Box::new(stream), peer).await;
    }))
}

/// Binary frames as a stream of bytes.
struct Frames {
    socket: Socket,
    /// What of the last frame was not read yet.
    read: Bytes,
    farewell: Farewell,
    /// All that has come was read, and all that was said is on its way.
    idle: bool,
}

/// How far the end of a connection is after a frame that is not binary.
enum Farewell {
    /// There was none.
    None,
    Due,
    /// Until the client has taken the close frame, or this has passed.
    Said(Pin<Box<Sleep>>),
}

fn broken(error: Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for Frames {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The library takes some steps to find that there is nothing to do.
        if self.idle && self.socket.get_mut().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        self.idle = false;
        // What a full socket kept back before: nobody else would come by to send it.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
            return Poll::Ready(Err(broken(error)));
        }
        while self.read.is_empty() {
            if !matches!(self.farewell, Farewell::None) {
                return self.poll_farewell(cx).map(Ok);
            }
            let Poll::Ready(next) = Pin::new(&mut self.socket).poll_next(cx) else {
                // What answers a ping may have found no room.
                self.idle = Pin::new(&mut self.socket).poll_flush(cx).is_ready();
                return Poll::Pending;
            };
            match next {
                Some(Ok(Message::Binary(bytes))) => self.read = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => self.farewell = Farewell::Due,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        if self.read.is_empty() {
            // An empty slice would keep the frame's memory.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Frames {
    /// Closes with 1003, unsupported data (RFC 6455 §7.4.1), and is ready when the connection may
    /// be dropped.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Farewell::Due = self.farewell {
            if ready!(Pin::new(&mut self.socket).poll_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let frame = CloseFrame {
                code: CloseCode::Unsupported,
                reason: Utf8Bytes::from_static("MQTT is in binary frames"),
            };
            let closing = Message::Close(Some(frame));
            if Pin::new(&mut self.socket).start_send(closing).is_err() {
                return Poll::Ready(());
            }
            self.farewell = Farewell::Said(Box::pin(sleep(FAREWELL)));
        }
        let Farewell::Said(until) = &mut self.farewell else {
            return Poll::Ready(());
        };
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if ready!(Pin::new(&mut self.socket).poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        // Its end is the client's own close frame.
        while let Some(Ok(_)) = ready!(Pin::new(&mut self.socket).poll_next(cx)) {}
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: Bytes) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        let count = bytes.len();
        let sent = Pin::new(&mut self.socket).start_send(Message::Binary(bytes));
        sent.map_err(broken)?;
        // What cannot leave now leaves with the next write: `poll_ready` waits for that.
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(sent) => sent.map_err(broken)?,
            Poll::Pending => self.idle = false,
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Frames {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, Bytes::copy_from_slice(buffer))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One frame for all of them.
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.poll_send(cx, Bytes::from(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}
