//! One endpoint: what it is told to be, how it is, and what waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::attempts::AttemptLog;
use super::dead::DeadLetters;
use super::documents::RetryRecord;
use super::keyring::{Keyring, Signers};
use super::owner::Owner;
use super::replay::ReplayProgress;
use crate::access::Principal;
use crate::broker::endpoint::EndpointQueue;
use crate::config::Definition;
use crate::store::Seq;

/// Who made an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stands in the configuration.
    Configuration,
    /// It was registered.
    Api,
}

impl Source {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Configuration => "configuration",
            Source::Api => "api",
        }
    }
}

/// How an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It gets its messages.
    Active,
    /// Its messages are queued and not delivered.
    Paused,
    /// Nothing is delivered. Unless it is only its secret that is missing, it takes no new messages
    /// either; what is queued already stays.
    Disabled { reason: Box<str> },
}

impl State {
    /// As it is shown.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Active => "active",
            State::Paused => "paused",
            State::Disabled { .. } => "disabled",
        }
    }
}

/// What is shown of an endpoint. Times are in Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub state: State,
    pub created_ms: u64,
    pub updated_ms: u64,
    /// With which `v1a` signatures are verified.
    pub public_key: Option<String>,
    /// Until when a secret that was replaced signs too.
    pub old_secret_until_ms: Option<u64>,
}

/// A message that waits for another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its entry in the queue.
    pub seq: Seq,
    pub record: RetryRecord,
}

/// Figures that whoever drives an endpoint keeps up to date, for those who look at it.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Messages that wait for another attempt.
    pub retrying: AtomicU64,
    /// Requests under way.
    pub in_flight: AtomicU64,
}

/// An endpoint.
pub struct Endpoint {
    pub id: Box<str>,
    pub source: Source,
    pub queue: Arc<EndpointQueue>,
    pub attempts: AttemptLog,
    pub dead: DeadLetters,
    pub gauges: Gauges,
    status: Mutex<Status>,
    /// What was put back to be delivered and not taken yet.
    revived: Mutex<Vec<Waiting>>,
    failing_since_ms: AtomicU64,
    removed: AtomicBool,
    changes: watch::Sender<u64>,
    /// Held while its document is changed, so that the store has the last that was true.
    pub(super) replay: Mutex<Option<ReplayProgress>>,
}

/// What changes of an endpoint when somebody changes it.
#[derive(Clone)]
pub(super) struct Status {
    pub definition: Arc<Definition>,
    pub owner: Owner,
    /// None if the owner is not let in.
    pub principal: Option<Principal>,
    pub paused: bool,
    pub disabled: Option<Box<str>>,
    pub created_ms: u64,
    pub updated_ms: u64,
    /// None if it could not be unsealed; then `sealed` is what is kept.
    pub keyring: Option<Keyring>,
    pub sealed: String,
}

impl Endpoint {
    pub(super) fn new(
        id: &str,
        source: Source,
        queue: Arc<EndpointQueue>,
        attempts: AttemptLog,
        dead: DeadLetters,
        status: Status,
    ) -> Endpoint {
        Endpoint {
            id: id.into(),
            source,
            queue,
            attempts,
            dead,
            gauges: Gauges::default(),
            status: Mutex::new(status),
            revived: Mutex::default(),
            failing_since_ms: AtomicU64::new(0),
            removed: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            replay: Mutex::default(),
        }
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock()
    }

    /// What it is told to be.
    pub fn definition(&self) -> Arc<Definition> {
        Arc::clone(&self.status().definition)
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.status().state()
    }

    /// What signs an attempt that is made at this time (Unix milliseconds); nothing if the secret is
    /// lost.
    pub fn signers(&self, now_ms: u64) -> Arc<Signers> {
        let mut status = self.status();
        let keyring = status.keyring.as_mut();
        keyring.map(|it| it.signers(now_ms)).unwrap_or_default()
    }

    /// What is shown of it beside its definition.
    pub fn overview(&self, now_ms: u64) -> Overview {
        let status = self.status();
        let keyring = status.keyring.as_ref();
        Overview {
            state: status.state(),
            created_ms: status.created_ms,
            updated_ms: status.updated_ms,
            public_key: keyring.and_then(Keyring::public_key),
            old_secret_until_ms: keyring.and_then(|it| it.old_until_ms(now_ms)),
        }
    }

    /// The last replay out of a stream, if there was one since the start.
    pub fn replay(&self) -> Option<ReplayProgress> {
        self.replay.lock().clone()
    }

    /// Whose rights decide what it receives, and what is published on its behalf; none if they are
    /// not let in any more.
    pub fn principal(&self) -> Option<Principal> {
        self.status().principal.clone()
    }

    /// Changes with definition, state and secrets, when dead letters were put back
    /// ([`Endpoint::take_revived`]) or discarded, and when it is removed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether it was removed: nothing is to be delivered or kept for it any more.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Messages that wait for another attempt and that whoever drives the endpoint does not know
    /// of: at first those that the store kept, later dead letters that were put back. Their
    /// documents are there.
    pub fn take_revived(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.revived.lock())
    }

    /// Since when it had failed without a success, as the store kept it; in Unix milliseconds.
    pub fn failing_since_ms(&self) -> Option<u64> {
        Some(self.failing_since_ms.load(Ordering::Relaxed)).filter(|&since| since > 0)
    }

    pub(super) fn set_failing_since(&self, since_ms: u64) {
        self.failing_since_ms.store(since_ms, Ordering::Relaxed);
    }

    pub(super) fn revive(&self, waiting: impl IntoIterator<Item = Waiting>) {
        self.revived.lock().extend(waiting);
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn removed(&self) {
        self.removed.store(true, Ordering::Release);
        self.changed();
    }
}

impl Status {
    pub fn state(&self) -> State {
        let reason = match self {
            Status {
                disabled: Some(reason),
                ..
            } => reason.clone(),
            Status {
                principal: None,
                owner,
                ..
            } => match owner {
                Owner::User(user) => format!("the user {user:?} is not let in any more").into(),
                _ => "anonymous clients are not let in any more".into(),
            },
            Status { keyring: None, .. } => {
                "its secret cannot be read, because the key in webhooks.key beside the store is \
                 lost or another one: bring it back and restart; or rotate the secret, give its \
                 headers and client key again, and resume it"
                    .into()
            }
            Status { paused: true, .. } => return State::Paused,
            _ => return State::Active,
        };
        State::Disabled { reason }
    }

    /// The filters of which it takes messages now.
    pub fn filters(&self, id: &str) -> Vec<String> {
        let (Some(principal), None) = (&self.principal, &self.disabled) else {
            return Vec::new();
        };
        let topics = self.definition.topics.iter();
        topics
            .filter(|topic| {
                let allowed = principal.may_subscribe(topic);
                if !allowed {
                    tracing::warn!(endpoint = id, topic, owner = ?self.owner,
                        "a webhook gets nothing of a topic that its owner may not subscribe to");
                }
                allowed
            })
            .cloned()
            .collect()
    }
}
