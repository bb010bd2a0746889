//! Why something was not done.

use super::vault::VaultError;
use crate::config::FieldError;
use crate::store::StoreError;

/// Why an endpoint was not made, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// There is none with this identifier that the caller may know of.
    #[error("there is no such webhook")]
    NotFound,
    /// There is no such dead letter.
    #[error(
        "there is no such dead letter: it was delivered, discarded or replayed, or never was one"
    )]
    NoDeadLetter,
    /// Fields that are wrong; never empty.
    #[error("{}", .0.iter().map(|it| format!("{}: {}", it.field, it.detail)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// The caller may not do that.
    #[error("{0}")]
    NotAuthorized(String),
    /// It does not go with how the endpoint is.
    #[error("{0}")]
    Conflict(&'static str),
    /// There are `webhooks.max_endpoints` already.
    #[error("there are webhooks.max_endpoints already")]
    TooMany,
    /// Nothing secret can be kept.
    #[error("{0}")]
    Vault(#[from] VaultError),
    /// It could not be kept.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl WebhookError {
    pub(super) fn field(field: &str, detail: impl Into<String>) -> WebhookError {
        WebhookError::Invalid(vec![FieldError {
            field: field.to_owned(),
            detail: detail.into(),
        }])
    }
}
