//! All endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use super::attempts::{AttemptLog, Write};
use super::dead::DeadLetters;
use super::documents::{self, Kind, StoredEndpoint, parse_key};
use super::endpoint::{Endpoint, Source, Status, Waiting};
use super::error::WebhookError;
use super::keyring::{Keyring, StoredKeyring};
use super::owner::{Owner, administers};
use super::vault::Vault;
use crate::access::{Access, Principal};
use crate::broker::Broker;
use crate::broker::endpoint::Change;
use crate::config::{Config, Definition, WebhooksConfig};
use crate::store::{Record, RecoveredDocument, Ticket};

/// Streams that are read through for a replay at a time, be it to count alone.
const REPLAYS_MAX: usize = 4;

/// All webhook endpoints of a broker.
pub struct Webhooks {
    pub(super) broker: Arc<Broker>,
    pub(super) access: Access,
    pub(super) vault: Vault,
    config: RwLock<Arc<WebhooksConfig>>,
    endpoints: RwLock<BTreeMap<Box<str>, Arc<Endpoint>>>,
    /// Held while an endpoint is made, changed or removed: one at a time. Before the locks of
    /// endpoints and of the list.
    pub(super) changing: Mutex<()>,
    list: watch::Sender<u64>,
    /// Endpoints whose secret the configuration says.
    pub(super) declared_secrets: RwLock<BTreeSet<Box<str>>>,
    pub(super) replays: Arc<Semaphore>,
    /// Replays out of streams since the start.
    pub(super) runs: AtomicU64,
}

/// What is sealed of an endpoint.
#[derive(Serialize, Deserialize)]
struct Sealed {
    keyring: StoredKeyring,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    client_key: Option<String>,
}

/// What the store had of one endpoint.
#[derive(Default)]
struct Found<'d> {
    endpoint: Option<&'d [u8]>,
    retries: Vec<(u64, &'d [u8])>,
    dead: Vec<(u64, &'d [u8])>,
    attempts: Vec<(u64, &'d [u8])>,
    failing: Option<&'d [u8]>,
    replay: Option<&'d [u8]>,
}

impl Webhooks {
    /// Goes on with what the store kept, and with what the configuration declares. To be called
    /// once, before anybody can publish: what comes before is not queued for any endpoint. Waits
    /// for the disk.
    pub fn start(
        broker: Arc<Broker>,
        access: Access,
        config: &Config,
        documents: &[RecoveredDocument],
    ) -> Arc<Webhooks> {
        let directory = (!broker.store().is_in_memory()).then_some(&*config.store.path);
        let webhooks = Arc::new(Webhooks {
            vault: Vault::open(directory),
            broker,
            access,
            config: RwLock::new(Arc::new(config.webhooks.clone())),
            endpoints: RwLock::default(),
            changing: Mutex::default(),
            list: watch::Sender::new(0),
            declared_secrets: RwLock::default(),
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            runs: AtomicU64::new(0),
        });
        webhooks.restore(documents);
        webhooks.declare(&config.declared_webhooks);
        webhooks
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<WebhooksConfig> {
        Arc::clone(&self.config.read())
    }

    /// Takes over other settings, endpoints of the configuration and rights.
    pub fn reload(&self, config: &Config) {
        *self.config.write() = Arc::new(config.webhooks.clone());
        self.declare(&config.declared_webhooks);
        let _changing = self.changing.lock();
        for endpoint in self.list_all() {
            {
                let mut status = endpoint.status();
                status.principal = status.owner.principal(&self.access, &endpoint.id);
            }
            self.open(&endpoint);
            endpoint.changed();
        }
    }

    /// Changes when an endpoint comes or goes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.list.subscribe()
    }

    /// All endpoints, by their identifiers.
    pub fn list_all(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.read().values().cloned().collect()
    }

    /// The broker whose messages are delivered.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The endpoint with this identifier.
    pub fn endpoint(&self, id: &str) -> Option<Arc<Endpoint>> {
        self.endpoints.read().get(id).cloned()
    }

    /// How many were registered over the API.
    pub(super) fn registered(&self) -> usize {
        let endpoints = self.endpoints.read();
        let by_api = endpoints.values().filter(|it| it.source == Source::Api);
        by_api.count()
    }

    /// The endpoint with this identifier, if it is one that the principal may see and change.
    ///
    /// # Errors
    /// When there is none, or it is somebody else's: which of both is not told.
    pub fn get(&self, principal: &Principal, id: &str) -> Result<Arc<Endpoint>, WebhookError> {
        let endpoint = self.endpoint(id).ok_or(WebhookError::NotFound)?;
        let is_theirs = administers(principal) || endpoint.status().owner.is(principal);
        is_theirs.then_some(endpoint).ok_or(WebhookError::NotFound)
    }

    /// The first `max` endpoints behind the identifier `after` that the principal may see.
    pub fn list(&self, principal: &Principal, after: &str, max: usize) -> Vec<Arc<Endpoint>> {
        let all = administers(principal);
        let endpoints = self.endpoints.read();
        let behind = (
            std::ops::Bound::Excluded(after),
            std::ops::Bound::<&str>::Unbounded,
        );
        endpoints
            .range::<str, _>(behind)
            .map(|(_, endpoint)| endpoint)
            .filter(|endpoint| all || endpoint.status().owner.is(principal))
            .take(max)
            .cloned()
            .collect()
    }

    /// What happens by itself: attempts are written down. To be called about once a second.
    pub fn tick(&self) {
        let now_ms = self.broker.clock.now().0;
        for endpoint in self.list_all() {
            write_attempts(&endpoint, now_ms);
        }
    }

    fn restore(self: &Arc<Self>, documents: &[RecoveredDocument]) {
        let mut found: BTreeMap<&str, Found<'_>> = BTreeMap::new();
        for document in documents {
            let Some((id, kind)) = parse_key(&document.key) else {
                continue;
            };
            let found = found.entry(id).or_default();
            let value = &*document.value;
            match kind {
                Kind::Endpoint => found.endpoint = Some(value),
                Kind::Retry(seq) => found.retries.push((seq, value)),
                Kind::Dead(seq) => found.dead.push((seq, value)),
                Kind::Attempts(first) => found.attempts.push((first, value)),
                Kind::Failing => found.failing = Some(value),
                Kind::Replay => found.replay = Some(value),
            }
        }
        for (id, found) in found {
            if found.endpoint.is_some() {
                self.restore_endpoint(id, found);
                continue;
            }
            // What a crash left of one that was removed.
            let of_it = |it: &&RecoveredDocument| parse_key(&it.key).is_some_and(|it| it.0 == id);
            for document in documents.iter().filter(of_it) {
                self.broker.forget(&document.key);
            }
        }
        for id in self.broker.endpoint_ids() {
            if self.endpoint(&id).is_none() {
                self.broker.remove_endpoint(&id);
            }
        }
    }

    fn restore_endpoint(self: &Arc<Self>, id: &str, mut found: Found<'_>) {
        let read = found
            .endpoint
            .and_then(|value| self.read_endpoint(id, value));
        let Some((source, status)) = read else {
            tracing::error!(
                endpoint = id,
                "a webhook cannot be understood: it is left as it is, and nothing is delivered"
            );
            return;
        };
        let endpoint = self.build(id, source, status);
        found.attempts.sort_unstable_by_key(|it| it.0);
        for (first, value) in found.attempts {
            endpoint.attempts.restore(first, value);
        }
        for (seq, value) in found.dead {
            match serde_json::from_slice(value) {
                // More than there may be are left of a time when there could be: as good as the rest.
                Ok(record) => {
                    for gone in endpoint.dead.insert(seq, record) {
                        let key = documents::dead_key(id, gone.seq);
                        endpoint
                            .queue
                            .done(&[gone], &[Change::Remove { key: &key }]);
                    }
                }
                Err(error) => {
                    tracing::warn!(endpoint = id, seq, %error, "a dead letter is damaged: it is delivered again")
                }
            }
        }
        let waiting = found.retries.into_iter().filter_map(|(seq, value)| {
            let record = serde_json::from_slice(value).ok()?;
            Some(Waiting { seq, record })
        });
        endpoint.revive(waiting);
        if let Some(failing) = found.failing
            && let Ok(record) = serde_json::from_slice::<documents::FailingRecord>(failing)
        {
            endpoint.set_failing_since(record.since_ms);
        }
        if let Some(replay) = found.replay {
            self.restore_replay(&endpoint, replay);
        }
        // The broker's own topics are not kept.
        self.tell_disabled(&endpoint);
        self.insert(endpoint);
    }

    /// Makes an endpoint of its status, with its queue; it is not in the list yet.
    pub(super) fn build(&self, id: &str, source: Source, status: Status) -> Arc<Endpoint> {
        let config = self.config();
        let principal = status.principal.clone().unwrap_or_else(Principal::nobody);
        let filters = status.filters(id);
        let qos = status.definition.qos;
        let (queue, _) = self.broker.open_endpoint(id, &filters, qos, &principal);
        Arc::new(Endpoint::new(
            id,
            source,
            queue,
            AttemptLog::new(id, config.attempts_kept, config.attempts_max_age),
            DeadLetters::new(config.dead_letters_max),
            status,
        ))
    }

    /// Has the queue of an endpoint take what its status says.
    pub(super) fn open(&self, endpoint: &Endpoint) {
        let status = endpoint.status();
        let principal = status.principal.clone().unwrap_or_else(Principal::nobody);
        let filters = status.filters(&endpoint.id);
        let qos = status.definition.qos;
        self.broker
            .open_endpoint(&endpoint.id, &filters, qos, &principal);
    }

    pub(super) fn insert(&self, endpoint: Arc<Endpoint>) {
        self.endpoints.write().insert(endpoint.id.clone(), endpoint);
        self.list.send_modify(|count| *count += 1);
    }

    /// Ends an endpoint with all that is queued for it and known of it.
    pub(super) fn remove(&self, endpoint: &Endpoint) -> Result<Ticket, WebhookError> {
        let id = &*endpoint.id;
        self.endpoints.write().remove(id);
        endpoint.removed();
        // It keeps nothing more.
        endpoint.replay.lock().take();
        let mut keys = vec![
            documents::endpoint_key(id),
            documents::failing_key(id),
            documents::replay_key(id),
        ];
        keys.append(&mut endpoint.attempts.keys());
        let every = super::Selection::default();
        let dead = endpoint.dead.list(0, usize::MAX, &every);
        keys.extend(dead.iter().map(|(seq, _)| documents::dead_key(id, *seq)));
        let revived = endpoint.take_revived();
        keys.extend(revived.iter().map(|it| documents::retry_key(id, it.seq)));
        let records: Vec<Record<'_>> = keys
            .iter()
            .map(|key| Record::DocumentRemove { key })
            .collect();
        let appended = self.broker.store().append(&records)?;
        let ticket = self.broker.remove_endpoint(id);
        self.clear_event(id);
        self.list.send_modify(|count| *count += 1);
        Ok(ticket.max(appended.ticket))
    }

    /// Keeps what an endpoint is.
    pub(super) fn keep(
        &self,
        id: &str,
        source: Source,
        status: &mut Status,
    ) -> Result<Ticket, WebhookError> {
        if let Some(keyring) = &status.keyring {
            let sealed = Sealed {
                keyring: keyring.to_stored(),
                headers: status.definition.headers.clone(),
                client_key: status
                    .definition
                    .client_key
                    .as_ref()
                    .map(|key| key.reveal().to_owned()),
            };
            status.sealed = self.vault.seal(id, &documents::to_json(&sealed))?;
        }
        let mut definition = status.definition.to_json(true);
        definition.remove("headers");
        let stored = StoredEndpoint {
            declared: source == Source::Configuration,
            definition,
            paused: status.paused,
            disabled: status.disabled.clone(),
            created_ms: status.created_ms,
            updated_ms: status.updated_ms,
            sealed: status.sealed.clone(),
        };
        let record = Record::DocumentPut {
            key: &documents::endpoint_key(id),
            value: &documents::to_json(&stored),
            expires_ms: None,
        };
        Ok(self.broker.store().append(&[record])?.ticket)
    }

    fn read_endpoint(&self, id: &str, value: &[u8]) -> Option<(Source, Status)> {
        let stored: StoredEndpoint = serde_json::from_slice(value).ok()?;
        let unsealed = self.vault.unseal(id, &stored.sealed);
        let sealed: Option<Sealed> = unsealed.and_then(|it| serde_json::from_slice(&it).ok());
        let keyring = sealed
            .as_ref()
            .and_then(|it| Keyring::from_stored(&it.keyring));
        if keyring.is_none() {
            tracing::error!(
                endpoint = id,
                "the secret of a webhook cannot be read: nothing is delivered until it is rotated"
            );
        }
        let mut definition: Map<String, Value> = stored.definition;
        if let Some(sealed) = sealed {
            let headers = sealed.headers.into_iter();
            let headers = headers.map(|(name, value)| (name, value.into()));
            definition.insert("headers".to_owned(), Value::Object(headers.collect()));
            if let Some(key) = sealed.client_key {
                definition.insert("client_key".to_owned(), key.into());
            }
        }
        let definition = Definition::read_stored(&definition)
            .inspect_err(|errors| tracing::error!(endpoint = id, ?errors, "a webhook is damaged"))
            .ok()?;
        let source = match stored.declared {
            true => Source::Configuration,
            false => Source::Api,
        };
        let owner = Owner::of(definition.user.as_deref(), stored.declared);
        let status = Status {
            principal: owner.principal(&self.access, id),
            owner,
            definition: Arc::new(definition),
            paused: stored.paused,
            disabled: stored.disabled,
            created_ms: stored.created_ms,
            updated_ms: stored.updated_ms,
            keyring,
            sealed: stored.sealed,
        };
        Some((source, status))
    }
}

/// Writes down the attempts of an endpoint that were not yet.
pub(super) fn write_attempts(endpoint: &Endpoint, now_ms: u64) {
    let writes = endpoint.attempts.take_writes(now_ms);
    let changes: Vec<Change<'_>> = writes
        .iter()
        .map(|write| match write {
            Write::Put {
                key,
                value,
                expires_ms,
            } => Change::Put {
                key,
                value,
                expires_ms: Some(*expires_ms),
            },
            Write::Remove { key } => Change::Remove { key },
        })
        .collect();
    // A removed endpoint is to leave nothing behind.
    if !changes.is_empty() && !endpoint.is_removed() {
        endpoint.queue.keep(&changes);
    }
}
