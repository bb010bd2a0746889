//! What is done with endpoints: made, changed, stopped, started, tried.
//!
//! A definition is first drafted, which judges it, and then made true: in between, whoever serves the
//! API can look up where its URL leads, which takes a network.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidings_protocol::mqtt::{PropertiesBuilder, Property};
use tidings_protocol::topic;

use super::documents;
use super::endpoint::{Endpoint, Source, State, Status};
use super::error::WebhookError;
use super::keyring::Keyring;
use super::owner::{Owner, administers};
use super::registry::Webhooks;
use crate::access::Principal;
use crate::config::{Definition, FieldError, GENERATED_PREFIX, HIDDEN, Policy};
use crate::store::Ticket;

/// What an endpoint is shown with that nobody can set.
const READ_ONLY: [&str; 12] = [
    "id",
    "source",
    "state",
    "disabled_reason",
    "user",
    "public_key",
    "old_secret_until",
    "created",
    "updated",
    "queued",
    "retrying",
    "dead_letters",
];

/// A change that was judged and is not made yet.
pub struct Draft {
    /// What the endpoint is to be.
    pub definition: Definition,
    /// What it was when that was worked out.
    before: Arc<Definition>,
}

/// What was made of a request, and what the store must have before that is certain.
pub struct Made<T> {
    pub value: T,
    pub ticket: Ticket,
}

const DECLARED: WebhookError =
    WebhookError::Conflict("this webhook stands in the configuration: change it there and reload");

impl Webhooks {
    /// Judges the fields of a new endpoint.
    ///
    /// # Errors
    /// When fields are wrong, or the principal may not read what it is to get.
    pub fn draft(
        &self,
        principal: &Principal,
        fields: &Map<String, Value>,
    ) -> Result<Definition, WebhookError> {
        if principal.user().is_none() && !administers(principal) {
            let why = "a webhook belongs to a user: log in, or be allowed to subscribe to \
                       $SYS/webhooks/#";
            return Err(WebhookError::NotAuthorized(why.to_owned()));
        }
        let definition = self.read(fields)?;
        may_have(principal, &definition)?;
        let user = principal.user().map(str::to_owned);
        Ok(Definition { user, ..definition })
    }

    fn read(&self, fields: &Map<String, Value>) -> Result<Definition, WebhookError> {
        let (read_only, rest): (Map<_, _>, Map<_, _>) = fields
            .clone()
            .into_iter()
            .partition(|(key, _)| READ_ONLY.contains(&key.as_str()) || key == "secret");
        let config = self.config();
        let policy = Policy {
            allow_http: config.allow_http,
            allow_networks: &config.allow_networks,
            topic_limits: self.broker.topic_limits(),
        };
        let read = Definition::read(&rest, &[], &policy);
        let mut errors = read.as_ref().err().cloned().unwrap_or_default();
        errors.extend(read_only.into_iter().map(|(field, _)| {
            FieldError {
                detail: match &*field {
                    "secret" => "the broker makes it: rotate-secret makes another one",
                    _ => "it cannot be set",
                }
                .to_owned(),
                field,
            }
        }));
        match read {
            Ok(definition) if errors.is_empty() => Ok(definition),
            _ => Err(WebhookError::Invalid(errors)),
        }
    }

    /// Makes an endpoint. Answers it with its secret, which is shown this once.
    ///
    /// # Errors
    /// When there are too many, or it cannot be kept.
    pub fn create(
        &self,
        definition: Definition,
    ) -> Result<Made<(Arc<Endpoint>, String)>, WebhookError> {
        let _changing = self.changing.lock();
        if self.registered() >= self.config().max_endpoints {
            return Err(WebhookError::TooMany);
        }
        let id = self.new_id();
        self.make(&id, Source::Api, definition, None)
    }

    /// Identifiers begin with the time, so that a list of them is in order of creation.
    fn new_id(&self) -> String {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("a broker without randomness must not make secrets");
        let now_ms = self.broker.clock.now().0;
        format!(
            "{GENERATED_PREFIX}{now_ms:012x}{:016x}",
            u64::from_be_bytes(random)
        )
    }

    pub(super) fn make(
        &self,
        id: &str,
        source: Source,
        definition: Definition,
        keyring: Option<Keyring>,
    ) -> Result<Made<(Arc<Endpoint>, String)>, WebhookError> {
        let now_ms = self.broker.clock.now().0;
        let keyring = keyring.unwrap_or_else(|| Keyring::new(None, definition.signature_v1a));
        let secret = keyring.reveal();
        let owner = Owner::of(definition.user.as_deref(), source == Source::Configuration);
        let mut status = Status {
            principal: owner.principal(&self.access, id),
            owner,
            definition: Arc::new(definition),
            paused: false,
            disabled: None,
            created_ms: now_ms,
            updated_ms: now_ms,
            keyring: Some(keyring),
            sealed: String::new(),
        };
        let ticket = self.keep(id, source, &mut status)?;
        let endpoint = self.build(id, source, status);
        self.insert(Arc::clone(&endpoint));
        // What opened its queue was appended after that.
        let ticket = ticket.max(self.broker.store().appended());
        Ok(Made {
            value: (endpoint, secret),
            ticket,
        })
    }

    /// Judges a change: a JSON Merge Patch (RFC 7396) of the fields.
    ///
    /// # Errors
    /// When fields are wrong, or the principal or the owner may not read what it is to get.
    pub fn redraft(
        &self,
        principal: &Principal,
        id: &str,
        patch: &Map<String, Value>,
    ) -> Result<Draft, WebhookError> {
        let endpoint = self.get(principal, id)?;
        if endpoint.source == Source::Configuration {
            return Err(DECLARED);
        }
        let (before, owner, has_secret) = {
            let status = endpoint.status();
            (
                Arc::clone(&status.definition),
                status.principal.clone(),
                status.keyring.is_some(),
            )
        };
        if !has_secret {
            return Err(WebhookError::Conflict(
                "its secret cannot be read: rotate it first",
            ));
        }
        let definition = self.read(&patched(&before, patch))?;
        may_have(principal, &definition)?;
        if let Some(owner) = owner {
            may_have(&owner, &definition)?;
        }
        let user = before.user.clone();
        Ok(Draft {
            definition: Definition { user, ..definition },
            before,
        })
    }

    /// Makes a change.
    ///
    /// # Errors
    /// When the endpoint was changed by somebody else meanwhile, or it cannot be kept.
    pub fn replace(
        &self,
        principal: &Principal,
        id: &str,
        draft: Draft,
    ) -> Result<Made<Arc<Endpoint>>, WebhookError> {
        let _changing = self.changing.lock();
        let endpoint = self.get(principal, id)?;
        if !Arc::ptr_eq(&endpoint.definition(), &draft.before) {
            return Err(WebhookError::Conflict(
                "somebody else has changed it meanwhile: look at it, and try again",
            ));
        }
        let ticket = self.change(&endpoint, |status| {
            if let Some(keyring) = &mut status.keyring {
                keyring.sign_v1a(draft.definition.signature_v1a);
            }
            status.definition = Arc::new(draft.definition);
            Ok(())
        })?;
        Ok(Made {
            value: endpoint,
            ticket,
        })
    }

    /// Changes the status of an endpoint, and keeps it; all stays as it was if it cannot be kept.
    /// `changing` must be held.
    pub(super) fn change(
        &self,
        endpoint: &Endpoint,
        change: impl FnOnce(&mut Status) -> Result<(), WebhookError>,
    ) -> Result<Ticket, WebhookError> {
        {
            let mut status = endpoint.status();
            let mut changed = status.clone();
            change(&mut changed)?;
            changed.updated_ms = self.broker.clock.now().0;
            self.keep(&endpoint.id, endpoint.source, &mut changed)?;
            *status = changed;
        }
        self.open(endpoint);
        endpoint.changed();
        Ok(self.broker.store().appended())
    }

    /// Ends an endpoint, with all that is queued for it.
    ///
    /// # Errors
    /// When the configuration declares it.
    pub fn delete(&self, principal: &Principal, id: &str) -> Result<Ticket, WebhookError> {
        let _changing = self.changing.lock();
        let endpoint = self.get(principal, id)?;
        match endpoint.source {
            Source::Configuration => Err(DECLARED),
            Source::Api => self.remove(&endpoint),
        }
    }

    /// Stops delivering; what comes is queued.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn pause(
        &self,
        principal: &Principal,
        id: &str,
        paused: bool,
    ) -> Result<Made<Arc<Endpoint>>, WebhookError> {
        self.with(principal, id, |status| {
            status.paused = paused;
            Ok(())
        })
    }

    /// Begins again to take and to deliver messages.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn enable(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<Made<Arc<Endpoint>>, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let since = endpoint.failing_since_ms();
        let made = self.with(principal, id, |status| {
            status.disabled = None;
            // Before whoever drives it is told.
            endpoint.set_failing_since(0);
            Ok(())
        });
        let made = made.inspect_err(|_| endpoint.set_failing_since(since.unwrap_or(0)))?;
        self.broker.forget(&documents::failing_key(id));
        self.clear_event(id);
        Ok(made)
    }

    /// Takes and delivers nothing any more; what is queued stays.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn disable_by(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<Made<Arc<Endpoint>>, WebhookError> {
        let reason = match principal.user() {
            Some(user) => format!("disabled by {user}"),
            None => "disabled by request".to_owned(),
        };
        let made = self.with(principal, id, |status| {
            status.disabled.get_or_insert(reason.into());
            Ok(())
        })?;
        self.tell_disabled(&made.value);
        Ok(made)
    }

    /// The same for whoever drives it, and finds that it is gone or only fails. The event is
    /// published on `$SYS/webhooks/<id>/disabled`.
    pub fn disable(&self, id: &str, reason: &str) {
        let _changing = self.changing.lock();
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        let changed = self.change(&endpoint, |status| {
            status.disabled.get_or_insert(reason.into());
            Ok(())
        });
        if let Err(error) = changed {
            tracing::error!(endpoint = id, %error, "a webhook cannot be disabled");
            return;
        }
        tracing::warn!(endpoint = id, reason, "webhook disabled");
        self.tell_disabled(&endpoint);
    }

    fn with(
        &self,
        principal: &Principal,
        id: &str,
        change: impl FnOnce(&mut Status) -> Result<(), WebhookError>,
    ) -> Result<Made<Arc<Endpoint>>, WebhookError> {
        let _changing = self.changing.lock();
        let endpoint = self.get(principal, id)?;
        let ticket = self.change(&endpoint, change)?;
        Ok(Made {
            value: endpoint,
            ticket,
        })
    }

    /// Makes another secret, which is shown this once; the one before signs until
    /// `webhooks.rotation_grace` has passed.
    ///
    /// # Errors
    /// When the secret stands in the configuration, or cannot be kept.
    pub fn rotate_secret(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<Made<(Arc<Endpoint>, String)>, WebhookError> {
        if self.has_declared_secret(id) {
            return Err(WebhookError::Conflict(
                "its secret stands in the configuration: change it there and reload; the old one \
                 signs for a while, too",
            ));
        }
        let (now_ms, grace) = (self.broker.clock.now().0, self.config().rotation_grace);
        let mut secret = String::new();
        let made = self.with(principal, id, |status| {
            match &mut status.keyring {
                Some(keyring) => keyring.rotate(None, now_ms, grace),
                None => {
                    let signature_v1a = status.definition.signature_v1a;
                    status.keyring = Some(Keyring::new(None, signature_v1a));
                    // Headers and client key were lost with it. What is queued does not leave without
                    // them before somebody says so.
                    status.paused = true;
                }
            }
            secret = status
                .keyring
                .as_ref()
                .map(Keyring::reveal)
                .unwrap_or_default();
            Ok(())
        })?;
        if !matches!(made.value.state(), State::Disabled { .. }) {
            self.clear_event(id);
        }
        Ok(Made {
            value: (made.value, secret),
            ticket: made.ticket,
        })
    }

    /// Queues a message for this endpoint alone.
    ///
    /// # Errors
    /// When it is not delivered to, or the store takes nothing.
    pub fn test(&self, principal: &Principal, id: &str) -> Result<Ticket, WebhookError> {
        let endpoint = self.get(principal, id)?;
        match endpoint.state() {
            State::Active => {}
            State::Paused => return Err(WebhookError::Conflict("it is paused: resume it first")),
            State::Disabled { .. } => {
                return Err(WebhookError::Conflict("it is disabled: enable it first"));
            }
        }
        let payload = json!({"test": true, "webhook": id}).to_string();
        let mut properties = PropertiesBuilder::default();
        properties.push(Property::ContentType("application/json"));
        let topic = test_topic(id);
        let queue = &endpoint.queue;
        let properties = properties.as_properties();
        let published = self
            .broker
            .publish_to(queue, &topic, properties, payload.as_bytes());
        Ok(published?)
    }

    pub(super) fn tell_disabled(&self, endpoint: &Endpoint) {
        if let State::Disabled { reason } = endpoint.state() {
            let event = json!({"id": &*endpoint.id, "reason": &*reason});
            let topic = disabled_topic(&endpoint.id);
            let mut batch = self.broker.batch();
            batch.publish_internal(&topic, event.to_string().as_bytes());
        }
    }

    /// It is retained, so that who comes later sees it: until it is not true any more.
    pub(super) fn clear_event(&self, id: &str) {
        let topic = disabled_topic(id);
        if self.broker.retained(&topic).is_some() {
            self.broker.batch().publish_internal(&topic, b"");
        }
    }
}

pub(super) fn test_topic(id: &str) -> String {
    format!("$SYS/webhooks/{id}/test")
}

fn disabled_topic(id: &str) -> String {
    format!("$SYS/webhooks/{id}/disabled")
}

/// Whether a principal may have what a definition gives: read all of its topics, and publish the
/// responses.
fn may_have(principal: &Principal, definition: &Definition) -> Result<(), WebhookError> {
    let refused = |filter: &&String| !principal.may_subscribe(filter);
    if let Some(filter) = definition.topics.iter().find(refused) {
        let why = format!("topics: no right to subscribe to {filter:?}");
        return Err(WebhookError::NotAuthorized(why));
    }
    if let Some(reply) = &definition.reply_topic {
        if !principal.may_publish(reply) {
            let why = format!("reply_topic: no right to publish to {reply:?}");
            return Err(WebhookError::NotAuthorized(why));
        }
        let own = |filter: &&String| topic::matches(filter, reply);
        if let Some(filter) = definition.topics.iter().find(own) {
            let why = format!(
                "its own filter {filter:?} matches it: each response would be delivered and \
                 answered again, without end"
            );
            return Err(WebhookError::field("reply_topic", why));
        }
    }
    Ok(())
}

/// The fields of a definition with a JSON Merge Patch over them.
fn patched(before: &Definition, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = before.to_json(false);
    fields.remove("user");
    if let Some(key) = &before.client_key {
        fields.insert("client_key".to_owned(), key.reveal().into());
    }
    for (name, value) in patch {
        match (fields.get_mut(name), value) {
            // Headers are the only object, and have none within.
            (Some(Value::Object(headers)), Value::Object(changes)) => {
                for (header, value) in changes {
                    headers.retain(|it, _| value == HIDDEN || !it.eq_ignore_ascii_case(header));
                    // What was shown in place of a value means that value.
                    if !value.is_null() && value != HIDDEN {
                        headers.insert(header.clone(), value.clone());
                    }
                }
            }
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use tidings_protocol::topic::TopicLimits;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => panic!("an object"),
        }
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let policy = Policy {
            allow_http: false,
            allow_networks: &[],
            topic_limits: TopicLimits {
                bytes_max: 100,
                levels_max: 10,
            },
        };
        let read = |fields: &Map<String, Value>| Definition::read(fields, &[], &policy).unwrap();
        let before = read(&object(json!({
            "url": "https://example.com/",
            "topics": ["a"],
            "headers": {"Authorization": "Bearer x", "X-Shop": "1"},
            "timeout": "3s",
        })));
        let check = |patch: Value, expected: Value| {
            let after = read(&patched(&before, &object(patch.clone())));
            let after = Value::Object(after.to_json(false));
            for (name, value) in object(expected) {
                assert_eq!(after[&name], value, "{patch}: {name}");
            }
        };
        let headers = json!({"Authorization": "Bearer x", "X-Shop": "1"});
        check(json!({}), json!({"headers": headers, "timeout": "3s"}));
        check(json!({"timeout": null}), json!({"timeout": "15s"}));
        check(
            json!({"topics": ["b"]}),
            json!({"topics": ["b"], "timeout": "3s"}),
        );
        check(json!({"headers": null}), json!({"headers": {}}));
        check(
            json!({"headers": {"x-shop": "2", "X-New": "3"}}),
            json!({"headers": {"Authorization": "Bearer x", "x-shop": "2", "X-New": "3"}}),
        );
        check(
            json!({"headers": {"Authorization": HIDDEN, "X-Shop": null}}),
            json!({"headers": {"Authorization": "Bearer x"}}),
        );
    }
}
