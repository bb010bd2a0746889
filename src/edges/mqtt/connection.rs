//! One connection: a task that reads whatever has arrived, has it handled, and writes whatever
//! waits, each with as few system calls as possible.
//!
//! The stream is anything that carries bytes in order; MQTT over WebSocket is this code over
//! another stream. Reading goes through a buffer that all connections of a worker thread share:
//! a connection owns memory only for a packet that has arrived in part, and for what it could not
//! write yet, so an idle one owns none.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tidings_protocol::mqtt::fixed_header;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Edge;
use super::answers::WAITING_MAX;
use super::farewell::Farewell;
use super::handshake::{Accepted, handshake};
use super::inbound::Client;
use super::listener::Pending;
use crate::broker::link::Waiting;
use crate::broker::session::Closing;
use crate::broker::{Ending, SHARED_PAYLOAD_MIN};

/// Bytes read at a time. Larger reads make larger batches; beyond this they gain little.
const READ_SIZE: usize = 64 * 1024;

/// Reads before the task lets others have a turn.
const READS_MAX: usize = 8;

/// Bytes waiting to be written to a client at which nothing more is read from it: one that does
/// not take the answers to what it asks may not ask for more.
const UNWRITTEN_MAX: usize = 1024 * 1024;

/// Bytes in one read that count as a sign of life although they complete no packet, so that a
/// large one may take its time. A client that drips a byte now and then is silent all the same
/// [MQTT-3.1.2-22].
const HEARD_MIN: usize = 512;

/// QoS 2 messages that a version 3 client may leave unreleased at the least.
const UNRELEASED_MAX_V3: u16 = 1024;

thread_local! {
    static READ_BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Serves one connection until it ends.
pub async fn serve<S>(mut stream: S, peer: String, edge: Arc<Edge>, pending: Pending)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // Boxed, so that an idle connection does not keep what only its beginning and its end need.
    let greeting = Box::pin(greet(&mut stream, &peer, edge, pending));
    let Some(mut connection) = greeting.await else {
        return;
    };
    let farewell = connection.run(&mut stream).await;
    Box::pin(connection.end(stream, farewell, peer)).await;
}

/// Lets a connection in, or says why not.
async fn greet<S>(
    stream: &mut S,
    peer: &str,
    edge: Arc<Edge>,
    pending: Pending,
) -> Option<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let connect_timeout = edge.broker.mqtt().connect_timeout;
    let refused = || edge.broker.stats.connections_refused.add(1);
    match tokio::time::timeout(connect_timeout, handshake(stream, &edge)).await {
        Ok(Ok(accepted)) => {
            drop(pending);
            Some(Connection::new(accepted, edge))
        }
        Ok(Err(refusal)) => {
            refused();
            refusal.say(stream, peer).await;
            None
        }
        Err(_) => {
            refused();
            tracing::debug!(address = peer, "connection refused: no CONNECT in time");
            None
        }
    }
}

/// A connection that was let in. However it ends, by a panic too, its session is told.
struct Connection {
    client: Client,
    /// The beginning of a packet whose rest has not arrived.
    partial: BytesMut,
    /// The client does not take what is to be written.
    blocked: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let client = &self.client;
        let broker = &client.edge.broker;
        broker.close(&client.session, client.epoch, client.ending);
    }
}

impl Connection {
    fn new(accepted: Accepted, edge: Arc<Edge>) -> Connection {
        let mqtt = edge.broker.mqtt();
        let receive_maximum = mqtt.receive_maximum.get();
        edge.broker.stats.packets_received.add(1);
        let mut connection = Connection {
            // An empty one would keep the memory of CONNECT.
            partial: match accepted.rest.is_empty() {
                true => BytesMut::new(),
                false => accepted.rest,
            },
            blocked: false,
            client: Client {
                session: accepted.opened.session,
                epoch: accepted.opened.epoch,
                principal: accepted.principal,
                rights: edge.broker.rights_generation(),
                version: accepted.version,
                explain: accepted.explain,
                packet_size_max: accepted.packet_size_max,
                method: accepted.method,
                expiry_secs: accepted.expiry_secs,
                receive_maximum: match accepted.version.is_v5() {
                    true => receive_maximum,
                    // MQTT 3 cannot be told of a maximum, so it gets one that no honest client
                    // meets.
                    false => receive_maximum.max(UNRELEASED_MAX_V3),
                },
                topic_limits: edge.broker.topic_limits(),
                out: Default::default(),
                answers: Default::default(),
                last_ticket: Default::default(),
                packets_sent: 1,
                aliases: None,
                routes: None,
                exchange: None,
                ending: Ending::Lost,
                edge,
            },
        };
        let out = &mut connection.client.out;
        out.tail().extend_from_slice(&accepted.answer);
        connection
    }

    /// Runs until the connection has a reason to end.
    async fn run<S>(&mut self, stream: &mut S) -> Farewell
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // What came together with CONNECT.
        if !self.partial.is_empty()
            && let Err(farewell) = self.handle_partial()
        {
            return farewell;
        }
        poll_fn(|cx| self.turn(stream, cx)).await
    }

    /// One turn of the task: ready only when the connection is to end.
    fn turn<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Farewell>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for reads in 0..READS_MAX {
            let mut read = Poll::Pending;
            let reading = self.may_read(cx);
            if reading {
                read = self.read(stream, cx);
            }
            if let Poll::Ready(Err(farewell)) = read {
                return Poll::Ready(farewell);
            }
            if let Poll::Ready(Err(farewell)) = self.write(stream, cx) {
                // What a client sent before it was taken over still counts: its DISCONNECT may be
                // behind what was read just now.
                let taken_over = matches!(farewell, Farewell::Closing(Closing::TakenOver));
                if taken_over && read.is_ready() && reads + 1 < READS_MAX {
                    continue;
                }
                return Poll::Ready(farewell);
            }
            // Whoever puts something into the outbox from here on wakes this task, and so does
            // the stream.
            if read.is_pending() && (reading || !self.may_read(cx)) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether more may be read: not while the client does not take its answers, nor while it
    /// waits for the disk with more than its share.
    fn may_read(&self, cx: &mut Context<'_>) -> bool {
        let client = &self.client;
        client.out.len() < UNWRITTEN_MAX
            && client.answers.len() < WAITING_MAX
            && !(client.answers.len() > 0
                && client.edge.broker.store().register_pressure(cx.waker()))
    }

    /// Reads once, and handles what is complete.
    fn read<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), Farewell>>
    where
        S: AsyncRead + Unpin,
    {
        let mut buffer = READ_BUFFER
            .take()
            .unwrap_or_else(|| vec![0; READ_SIZE].into_boxed_slice());
        let result = self.read_into(&mut buffer, stream, cx);
        READ_BUFFER.set(Some(buffer));
        result
    }

    fn read_into<S>(
        &mut self,
        buffer: &mut [u8],
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Farewell>>
    where
        S: AsyncRead + Unpin,
    {
        // A short beginning of a packet goes in front of what is read now, so that nothing is
        // handled out of a buffer of the connection's own; a long one is completed where it is.
        let before = if self.partial.len() < SHARED_PAYLOAD_MIN {
            self.partial.len()
        } else {
            0
        };
        buffer[..before].copy_from_slice(&self.partial[..before]);
        let mut read_buffer = ReadBuf::new(&mut buffer[before..]);
        if ready!(Pin::new(stream).poll_read(cx, &mut read_buffer)).is_err() {
            return Poll::Ready(Err(Farewell::Gone));
        }
        let count = read_buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(Farewell::Gone));
        }
        self.client
            .edge
            .broker
            .stats
            .bytes_received
            .add(count as u64);
        if count >= HEARD_MIN {
            self.client.heard();
        }
        if before == 0 && !self.partial.is_empty() {
            self.partial.extend_from_slice(&buffer[..count]);
            return Poll::Ready(self.handle_partial());
        }
        let data = &buffer[..before + count];
        let handled = self.client.packets(data)?;
        let rest = &data[handled..];
        if rest.is_empty() {
            if self.partial.capacity() > 0 {
                self.partial = BytesMut::new();
            }
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        Poll::Ready(Ok(()))
    }

    /// Handles what is complete in the connection's own buffer. A large packet is handed over with
    /// its buffer, so that its payload is not copied again.
    fn handle_partial(&mut self) -> Result<(), Farewell> {
        let size_max = self.client.edge.broker.mqtt().max_packet_size;
        while let Some(header) = fixed_header(&self.partial, size_max)? {
            let len = header.total_len();
            if self.partial.len() < len {
                return Ok(());
            }
            if len >= SHARED_PAYLOAD_MIN {
                let packet = self.partial.split_to(len).freeze();
                self.client.packet(&packet)?;
            } else {
                let rest = std::mem::take(&mut self.partial);
                let handled = self.client.packets(&rest)?;
                self.partial = rest;
                self.partial.advance(handled);
            }
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        Ok(())
    }

    /// Takes what waits in the session's outbox, and writes; pending while the client does not take
    /// what there is.
    fn write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), Farewell>>
    where
        S: AsyncWrite + Unpin,
    {
        let client = &mut self.client;
        let broker = Arc::clone(&client.edge.broker);
        broker
            .stats
            .packets_sent
            .add(std::mem::take(&mut client.packets_sent));
        if client.answers.len() > 0 {
            client
                .answers
                .release(&broker, client.version, &mut client.out, cx.waker())
                .map_err(Farewell::Closing)?;
        }
        loop {
            let waiting = if self.blocked {
                // What it does not take stays in its session, where the limits are.
                let watched = broker.watch(&client.session, client.epoch, cx.waker());
                watched.map(|()| Waiting {
                    messages: true,
                    ..Waiting::default()
                })
            } else {
                broker.collect(&client.session, client.epoch, &mut client.out, cx.waker())
            };
            let waiting = waiting.map_err(Farewell::Closing)?;
            if waiting.page {
                // Wakes this task when it is done.
                let (broker, session) = (Arc::clone(&broker), Arc::clone(&client.session));
                let epoch = client.epoch;
                tokio::task::spawn_blocking(move || broker.load_page(&session, epoch));
            }
            let mut written = 0;
            while !client.out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = client.out.slices(&mut slices);
                let result = if filled == 1 {
                    Pin::new(&mut *stream).poll_write(cx, &slices[0])
                } else {
                    Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..filled])
                };
                match result {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                        return Poll::Ready(Err(Farewell::Gone));
                    }
                    Poll::Ready(Ok(count)) => {
                        client.out.advance(count);
                        written += count as u64;
                    }
                    Poll::Pending => {
                        broker.stats.bytes_sent.add(written);
                        self.blocked = true;
                        let watched = broker.watch(&client.session, client.epoch, cx.waker());
                        return match watched {
                            Ok(()) => Poll::Pending,
                            Err(why) => Poll::Ready(Err(Farewell::Closing(why))),
                        };
                    }
                }
            }
            self.blocked = false;
            broker.stats.bytes_sent.add(written);
            let replayed = waiting.replays && broker.replay(&client.session, client.epoch);
            let pulled = waiting.readings && broker.pull(&client.session, client.epoch, cx.waker());
            if !replayed && !pulled && !waiting.messages {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Tells the client why, and lets the session go.
    async fn end<S>(mut self, mut stream: S, farewell: Farewell, peer: String)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        farewell.log(self.client.session.client_id(), &peer);
        let out = std::mem::take(&mut self.client.out);
        let (version, explain) = (self.client.version, self.client.explain);
        let packet_size_max = self.client.packet_size_max;
        // The session is let go first: a client that is slow to hear the last words must not keep
        // its will, or those who share its subscriptions, waiting.
        drop(self);
        farewell
            .say(&mut stream, version, explain, packet_size_max, out)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn size_of_future<F, A, B, C, D>(_: fn(A, B, C, D) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    /// Ten thousand connections that do nothing should cost megabytes, not tens of them: what is
    /// large has to be boxed for as long as it is needed.
    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of_future(serve::<TcpStream>);
        assert!(size <= 512, "{size} bytes");
    }
}
