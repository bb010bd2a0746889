//! The webhook edge: POSTs what is queued for endpoints.
//!
//! `client` keeps connections, and `connector` makes them, only to addresses that may be reached.

mod client;
mod connector;
mod peer;
mod proxy;
mod resolve;
mod tls;

pub use resolve::{Resolve, Resolving, SystemResolver};
