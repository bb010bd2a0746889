//! The HTTP edge: publishing, Retained Messages, Server-Sent Events, long polls, JSON WebSockets,
//! MQTT over WebSocket, health and figures, and a page to try it all.
//!
//! [`listener`] accepts as many as [`admission`] lets in; [`http1`] and [`http2`] speak the protocol,
//! by way of hyper, over a [`wire`] that has the deadlines. [`router`] finds who answers, [`auth`]
//! who is asking. A stream is a [`pull`] of a feed, written by [`event_stream`] or [`ws`]; over
//! HTTP/1.1 it has the connection for itself, see [`direct`]. What messages are for subscribers is
//! the broker's business; how a message looks is in [`render`] and [`envelope`].

mod admission;
mod auth;
mod bodies;
mod direct;
mod envelope;
mod event_stream;
mod events;
mod health;
mod http1;
mod http2;
mod idempotency;
mod listener;
mod login;
mod metrics;
mod mqtt_ws;
mod named;
mod page;
mod problem;
mod property_headers;
mod publish;
mod pull;
mod query;
mod render;
mod respond;
mod retained;
mod router;
mod session_stream;
mod sessions;
mod streaming;
mod webhooks;
mod wire;
mod ws;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use listener::run;

use crate::access::{Access, Tickets};
use crate::broker::Broker;
use crate::config::HttpConfig;
use crate::store::RecoveredDocument;
use crate::webhooks::Webhooks;
use admission::Places;
use bodies::Bodies;
use idempotency::Keys;
use page::Page;

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// Serves MQTT over a stream of bytes: whoever starts the edges puts the MQTT edge here.
pub type ServeMqtt = Box<
    dyn Fn(Box<dyn ByteStream>, SocketAddr) -> Pin<Box<dyn Future<Output = ()> + Send>>
        + Send
        + Sync,
>;

/// What all connections of this edge share.
pub struct Edge {
    broker: Arc<Broker>,
    access: Access,
    tickets: Tickets,
    webhooks: Arc<Webhooks>,
    config: HttpConfig,
    serve_mqtt: ServeMqtt,
    page: Page,
    keys: Keys,
    bodies: Bodies,
    connections: Arc<Places>,
    streams: Arc<Places>,
    /// Changes once, when the server stops.
    stopping: watch::Sender<bool>,
}

impl Edge {
    /// An edge of this broker, with what the store kept for it. MQTT clients are taken at
    /// `mqtt_port`, if there is one.
    #[expect(
        clippy::too_many_arguments,
        reason = "what the edge is wired to, each once"
    )]
    pub fn new(
        broker: Arc<Broker>,
        access: Access,
        webhooks: Arc<Webhooks>,
        tickets_max: usize,
        config: HttpConfig,
        mqtt_port: Option<u16>,
        documents: &[RecoveredDocument],
        serve_mqtt: ServeMqtt,
    ) -> Edge {
        Edge {
            broker,
            tickets: Tickets::new(access.clone(), tickets_max),
            access,
            webhooks,
            config,
            serve_mqtt,
            page: Page::new(mqtt_port),
            keys: Keys::restore(documents),
            bodies: Bodies::default(),
            connections: Arc::default(),
            streams: Arc::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Streams, long polls and WebSockets at this moment.
    pub fn streams(&self) -> usize {
        self.streams.taken()
    }

    /// Has every connection end: requests are answered, streams are told. The broker is to be
    /// stopped before.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ready once the server stops.
    async fn stopped(&self) {
        // The sender is here, so there is no error.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }
}
