//! The webhook edge: POSTs what is queued for endpoints.
//!
//! `client` keeps connections, and `connector` makes them, only to addresses that may be reached.

mod attempt;
mod breaker;
mod client;
mod connector;
mod flow;
mod now;
mod peer;
mod places;
mod proxy;
mod rate;
mod resolve;
mod tls;
mod verdict;

pub use resolve::{Resolve, Resolving, SystemResolver};
