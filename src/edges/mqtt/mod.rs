//! The MQTT edge: connections that speak MQTT 3.1, 3.1.1 or 5 over any stream of bytes.
//!
//! A connection is one task. It lives through [`handshake`] (CONNECT, authentication, CONNACK) and
//! then in [`connection`], which reads whatever has arrived, hands complete packets to
//! [`inbound`], and writes whatever the session's outbox holds, all of it at once. How a
//! connection ends, and what the client is told, is in [`farewell`]. Listening and admission are
//! in [`listener`]. What packets mean for sessions and subscribers is the broker's business.

mod aliases;
mod answers;
mod connection;
mod farewell;
mod handshake;
mod inbound;
mod listener;
mod publishes;
mod subscriptions;

use std::sync::Arc;

pub use listener::{Admission, run, serve_stream};

use crate::access::Access;
use crate::broker::Broker;

/// What all connections of this edge share.
pub struct Edge {
    /// The core.
    pub broker: Arc<Broker>,
    /// Who is let in.
    pub access: Access,
    /// How many connections there are and may be.
    pub admission: Admission,
}
