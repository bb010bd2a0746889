//! Webhook endpoints: who they are, what is known of them, and what operators do with them.
//!
//! [`Webhooks`] holds all [`Endpoint`]s, those of the configuration and those that were registered
//! over the API, each with its definition, its secrets, its queue in the broker, its dead letters
//! and the log of its attempts. Everything is kept as documents of the store, so a restart knows
//! what was known. What is secret is sealed by the [`Vault`] before it is kept.
//!
//! This folder opens no socket and sends nothing: whoever drives the endpoints takes what is queued,
//! and tells here how it went. Start reading at [`Webhooks`], then `endpoint`.

mod attempts;
mod change;
mod dead;
mod declared;
mod documents;
mod endpoint;
mod error;
mod keyring;
mod letters;
mod owner;
mod registry;
mod replay;
mod selection;
#[cfg(test)]
mod tests;
mod vault;

pub use crate::config::{
    BinaryPayload, Definition, FieldError, Hidden, Ordering, PayloadMode, Target, WebhooksConfig,
};
pub use attempts::{Attempt, AttemptLog, EXCERPT_BYTES_MAX};
pub use change::{Draft, Made};
pub use dead::DeadLetters;
pub use documents::{
    DeadRecord, FailingRecord, RetryRecord, dead_key, failing_key, message_id, retry_key,
};
pub use endpoint::{Endpoint, Gauges, Overview, Source, State, Waiting};
pub use error::WebhookError;
pub use keyring::Signers;
pub use letters::Counts;
pub use owner::Owner;
pub use registry::Webhooks;
pub use replay::{RATE_DEFAULT, RATE_MAX, ReplayProgress, StreamReplay};
pub use selection::Selection;
pub use vault::{Vault, VaultError};
