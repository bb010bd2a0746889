//! The HTTP edge from outside: exact bytes over TCP, with MQTT clients on the other side.

mod client;

mod events;
mod paths;
mod publish;
mod sessions;
