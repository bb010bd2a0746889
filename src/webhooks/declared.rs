//! Endpoints of the configuration: made, changed and ended as it says, at the start and at each
//! reload.

use std::sync::Arc;

use super::endpoint::{Endpoint, Source};
use super::error::WebhookError;
use super::keyring::Keyring;
use super::owner::Owner;
use super::registry::Webhooks;
use crate::config::DeclaredWebhook;
use tidings_protocol::webhook::Secret;

impl Webhooks {
    /// Brings the endpoints of the configuration in line with it.
    pub(super) fn declare(&self, declared: &[DeclaredWebhook]) {
        let _changing = self.changing.lock();
        *self.declared_secrets.write() = declared
            .iter()
            .filter(|it| it.secret.is_some())
            .map(|it| it.name.as_str().into())
            .collect();
        for endpoint in self.list_all() {
            let is_left = declared.iter().any(|it| *it.name == *endpoint.id);
            if endpoint.source == Source::Api || is_left {
                continue;
            }
            let id = &*endpoint.id;
            match self.remove(&endpoint) {
                Ok(_) => tracing::info!(
                    endpoint = id,
                    "webhook ended: it is not in the configuration any more"
                ),
                Err(error) => {
                    tracing::error!(endpoint = id, %error, "the end of a webhook is not kept");
                }
            }
        }
        for webhook in declared {
            let done = match self.endpoint(&webhook.name) {
                Some(endpoint) => self.follow(&endpoint, webhook),
                None => self.add(webhook),
            };
            if let Err(error) = done {
                tracing::error!(endpoint = webhook.name, %error, "a webhook of the configuration is not in force");
            }
        }
    }

    /// Whether the configuration says what the endpoint signs with.
    pub(super) fn has_declared_secret(&self, id: &str) -> bool {
        self.declared_secrets.read().contains(id)
    }

    fn add(&self, webhook: &DeclaredWebhook) -> Result<(), WebhookError> {
        let signature_v1a = webhook.definition.signature_v1a;
        let keyring = Keyring::new(secret_of(webhook), signature_v1a);
        let definition = webhook.definition.clone();
        self.make(
            &webhook.name,
            Source::Configuration,
            definition,
            Some(keyring),
        )?;
        Ok(())
    }

    /// Changes it only if something is different: a restart writes nothing.
    fn follow(
        &self,
        endpoint: &Arc<Endpoint>,
        webhook: &DeclaredWebhook,
    ) -> Result<(), WebhookError> {
        let secret = secret_of(webhook);
        let same = {
            let status = endpoint.status();
            let keyring = status.keyring.as_ref();
            let same_secret = match (&secret, keyring) {
                (Some(secret), Some(keyring)) => secret.reveal() == keyring.reveal(),
                (Some(_), None) => false,
                (None, _) => true,
            };
            // Without its secret it does not know its headers either.
            same_secret && *status.definition == webhook.definition
        };
        if same {
            return Ok(());
        }
        let (now_ms, grace) = (self.broker.clock.now().0, self.config().rotation_grace);
        self.change(endpoint, |status| {
            let signature_v1a = webhook.definition.signature_v1a;
            match (&mut status.keyring, secret) {
                (Some(keyring), secret) => {
                    if let Some(secret) = secret.filter(|it| it.reveal() != keyring.reveal()) {
                        keyring.rotate(Some(secret), now_ms, grace);
                    }
                    keyring.sign_v1a(signature_v1a);
                }
                (None, Some(secret)) => {
                    status.keyring = Some(Keyring::new(Some(secret), signature_v1a));
                }
                (None, None) => {}
            }
            status.definition = Arc::new(webhook.definition.clone());
            status.owner = Owner::of(webhook.definition.user.as_deref(), true);
            status.principal = status.owner.principal(&self.access, &endpoint.id);
            Ok(())
        })?;
        Ok(())
    }
}

/// It was checked when the configuration was read.
fn secret_of(webhook: &DeclaredWebhook) -> Option<Secret> {
    webhook.secret.as_ref()?.reveal().parse().ok()
}
