//! The HTTP edge from outside: exact bytes over TCP, with MQTT clients on the other side.

mod client;

pub use client::send;

mod events;
mod paths;
mod publish;
mod replay;
mod sessions;
