//! The HTTP edge from outside: exact bytes over TCP, with MQTT clients on the other side.

mod client;
mod raw;

mod events;
mod h2;
mod paths;
mod places;
mod publish;
mod sessions;
mod transport;
mod webhooks;
