//! `[webhooks]` and `[[webhook]]`: where messages are sent by HTTP, and within which limits.
//!
//! A [`Definition`] is what an endpoint is told to be, whether by the configuration or over the
//! API: the same fields, read by the same code, with the same errors.

mod declared;
mod definition;
mod fields;
mod headers;
mod hidden;
mod section;
mod target;
#[cfg(test)]
mod tests;

pub use declared::{DeclaredWebhook, GENERATED_PREFIX};
pub use definition::{BinaryPayload, DEFINITION_FIELDS, Definition, Ordering, PayloadMode, Policy};
pub use fields::FieldError;
pub(crate) use fields::Fields;
pub use headers::HIDDEN;
pub use hidden::Hidden;
pub use section::{Proxy, WebhooksConfig};
pub(crate) use target::check_address;
pub use target::{Target, TargetError};
