//! The edges: each speaks one protocol to its clients and the broker's one interface to the core.
//! They do not know each other; what they share is how to listen.

pub mod http;
pub mod listen;
pub mod mqtt;
pub mod webhook;
