//! What browsers and services use: event streams, WebSockets and POST requests, as a client that
//! costs next to nothing. Setting up is in `streams` and `requests`; what comes during a run is
//! unwrapped where it was read and never becomes an object.

mod chunks;
mod frames;
pub mod head;
pub mod requests;
pub mod streams;
pub mod wrap;

use std::net::SocketAddr;

/// What a connection says, once unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Mqtt,
    /// A message a line: text over WebSocket.
    Lines,
    /// Server-sent events.
    Events,
    /// Answers to requests that publish.
    Answers,
    /// Requests that deliver to a webhook.
    Requests,
}

/// How subscribers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SubscribeOver {
    #[default]
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// Server-Sent Events.
    Sse,
    /// JSON over WebSocket, or whatever the server has.
    Ws,
}

/// How publishers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PublishOver {
    #[default]
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// POST, the next before the last is answered.
    Http,
}

/// Whose paths and messages are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    #[default]
    Tidings,
    /// nginx with nchan: `/pub/TOPIC` and `/sub/TOPIC`, messages without envelope.
    Nchan,
}

#[derive(clap::Args, Clone, Debug)]
pub struct WebOptions {
    /// Where the broker listens for HTTP and WebSockets.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// How subscribers are connected.
    #[arg(long, value_enum, default_value_t)]
    pub subscribe_over: SubscribeOver,
    /// How publishers are connected.
    #[arg(long, value_enum, default_value_t)]
    pub publish_over: PublishOver,
    /// What is spoken over HTTP and WebSockets.
    #[arg(long, value_enum, default_value_t)]
    pub server: Server,
    /// Event streams: payloads instead of JSON envelopes.
    #[arg(long)]
    pub raw: bool,
    /// `streams`: each subscriber has a Topic Filter of its own beside the common one.
    #[arg(long)]
    pub own_filter: bool,
    /// `webhooks`: deliveries that each endpoint takes at once.
    #[arg(long, default_value_t = 64)]
    pub max_in_flight: u16,
    /// `webhooks`: endpoints beside the others that are dead.
    #[arg(long, default_value_t = 0)]
    pub dead: usize,
    /// `webhooks`: what a dead endpoint does.
    #[arg(long, value_enum, default_value_t)]
    pub dead_by: DeadBy,
}

/// How an endpoint fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeadBy {
    /// Nobody listens.
    #[default]
    Refusing,
    /// Connections are taken, requests never answered.
    Hanging,
}

impl WebOptions {
    /// Whether payloads have to be text.
    pub fn text(&self) -> bool {
        matches!(self.subscribe_over, SubscribeOver::Sse | SubscribeOver::Ws)
    }
}
