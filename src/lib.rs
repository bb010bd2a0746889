//! Tidings: an MQTT broker that can be started inside another program.
//!
//! [`Server::start`] makes a broker from a [`Config`](config::Config) and answers the addresses it
//! really listens on. Nothing is global to the process, so a test can run ten of them. Where a
//! message goes, from socket to subscriber, is told in the README's section on architecture.

pub mod access;
pub mod broker;
mod chunks;
pub mod config;
pub mod edges;
pub mod ops;
mod server;
pub mod signing_key;
pub mod store;
pub mod webhooks;

pub use server::{Addresses, Server, StartError};
