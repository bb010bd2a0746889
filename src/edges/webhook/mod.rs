//! The webhook edge: POSTs what is queued for endpoints.
//!
//! [`Driver`] keeps one task for each endpoint, the `worker`. What it may send next is the business
//! of `flow`, how much of it of `breaker`, `rate` and `places`; `attempt` makes requests of
//! messages, `verdict` judges answers, and `outcome` says what becomes of the messages. Below that,
//! `client` keeps connections, and `connector` makes them, only to addresses that may be reached.
//!
//! Which endpoints there are and what operators do with them is in [`crate::webhooks`], what is
//! queued for them in [`crate::broker::endpoint`].

mod attempt;
mod breaker;
mod client;
mod connector;
mod driver;
mod flow;
mod now;
mod outcome;
mod peer;
mod places;
mod proxy;
mod rate;
mod reading;
mod resolve;
#[cfg(test)]
mod tests;
mod tls;
mod told;
mod verdict;
mod worker;

pub use driver::Driver;
pub use resolve::{Resolve, Resolving, SystemResolver};
