//! The broker core: sessions, subscriptions, retained messages, wills, and the way of a message
//! from a publisher to everybody who should hear it.
//!
//! One interface serves all edges: [`Broker::open`] a session for an authenticated
//! [`Principal`](crate::access::Principal), [`Broker::subscribe`], publish through a [`Batch`],
//! take what waits in the session's [`Outbox`](outbox::Outbox), acknowledge, [`Broker::close`]
//! with a reason. The core opens no socket, starts no task, reads no clock but its own
//! [`clock::Clock`], and touches no file.
//!
//! # Locks
//!
//! In the order in which they may be taken while another is held; none is held across an await:
//!
//! 1. `connecting`, striped by Client Identifier: opening and taking over a session.
//! 2. `topics`, striped by Topic Name: setting the Retained Message and delivering it is one step,
//!    so that retained state and all subscribers agree on what came last.
//! 3. The lock of one [`session::Session`]; never two at a time.
//! 4. The lists of feeds and of endpoints.
//! 5. The lock of one [`feed::Feed`] or [`endpoint::EndpointQueue`]; never two at a time.
//! 6. The subscription table, the retained table, the timers, a group's members, a publisher's bell,
//!    and what the store locks to take records and to show a queue: leaves, under which nothing else is locked, except
//!    that leaving a group happens under the table's.
//!
//! Delivery looks subscribers up under the table's read lock, releases it, and then takes one
//! session's lock after the other.

pub mod clock;
mod close;
mod deliver;
mod encode;
pub mod endpoint;
mod entries;
pub mod feed;
mod journal;
pub mod link;
mod message;
mod open;
pub mod outbox;
pub mod outgoing;
mod page;
mod publish;
mod reading;
mod replay;
mod restore;
mod retained;
mod rights;
pub mod session;
mod shared;
pub mod stats;
mod subscribe;
mod sys;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
#[doc(hidden)]
pub mod topics;
mod will;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tidings_protocol::topic::TopicLimits;

pub use close::Ending;
pub use journal::Remembered;
pub use message::{Bell, Message, Publication, Run, SHARED_PAYLOAD_MIN};
pub use open::{Open, OpenError, Opened};
pub use publish::{Batch, Published, Refused, Route, RouteCache};
pub use restore::Restored;
pub use subscribe::{Request, SubscribeError};

use clock::{Clock, Millis};
use endpoint::Endpoints;
use feed::Feeds;
use retained::Retained;
use session::Session;
use stats::Stats;
use timers::Timers;
use topics::SubscriptionTable;

use crate::config::{LimitsConfig, MqttConfig};
use crate::store::{Report, Store};

/// How many stripes a striped lock has: enough that two workers rarely want the same.
const STRIPES: usize = 256;

/// The core that all edges share.
pub struct Broker {
    mqtt: MqttConfig,
    limits: LimitsConfig,
    /// What time it is.
    pub clock: Clock,
    /// What was counted.
    pub stats: Stats,
    sessions: DashMap<Arc<str>, Arc<Session>, RandomState>,
    next_session: AtomicU64,
    table: SubscriptionTable,
    retained: Retained,
    /// How far the search for expired Retained Messages has got.
    retained_looked_at: Mutex<Option<Arc<str>>>,
    timers: Mutex<Timers>,
    delayed_wills: AtomicU64,
    /// What has to outlive connections goes here as well.
    store: Arc<dyn Store>,
    /// What the opening of the store found.
    recovery: Report,
    stopping: AtomicBool,
    rights: AtomicU64,
    hasher: RandomState,
    connecting: Box<[Mutex<()>]>,
    /// When the store has the end of the last session that it kept, of each stripe of Client
    /// Identifiers.
    ended: Box<[AtomicU64]>,
    topics: Box<[Mutex<()>]>,
    feeds: Feeds,
    endpoints: Endpoints,
}

impl Broker {
    /// A broker without sessions over a store that is empty. [`Broker::restore`] makes one over a
    /// store that is not.
    pub fn new(mqtt: MqttConfig, limits: LimitsConfig, store: Arc<dyn Store>) -> Broker {
        Broker::at(Millis(0), mqtt, limits, store)
    }

    /// A broker whose clock shows no time before `earliest`.
    fn at(
        earliest: Millis,
        mqtt: MqttConfig,
        limits: LimitsConfig,
        store: Arc<dyn Store>,
    ) -> Broker {
        let stripes = || (0..STRIPES).map(|_| Mutex::new(())).collect();
        Broker {
            mqtt,
            limits,
            clock: Clock::start(earliest),
            stats: Stats::default(),
            sessions: DashMap::default(),
            next_session: AtomicU64::new(1),
            table: SubscriptionTable::default(),
            retained: Retained::default(),
            retained_looked_at: Mutex::default(),
            timers: Mutex::default(),
            delayed_wills: AtomicU64::new(0),
            store,
            recovery: Report::default(),
            stopping: AtomicBool::new(false),
            rights: AtomicU64::new(0),
            hasher: RandomState::default(),
            connecting: stripes(),
            ended: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            topics: stripes(),
            feeds: Feeds::default(),
            endpoints: Endpoints::default(),
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &LimitsConfig {
        &self.limits
    }

    /// The MQTT settings in force.
    pub fn mqtt(&self) -> &MqttConfig {
        &self.mqtt
    }

    /// What a Topic Name or Topic Filter may be.
    pub fn topic_limits(&self) -> TopicLimits {
        TopicLimits {
            bytes_max: self.limits.topic_bytes_max,
            levels_max: self.limits.topic_levels_max,
        }
    }

    /// How many sessions there are, connected or not.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the broker is being stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn stripe<'a>(&self, stripes: &'a [Mutex<()>], key: &str) -> MutexGuard<'a, ()> {
        stripes[self.stripe_of(key)].lock()
    }

    fn stripe_of(&self, key: &str) -> usize {
        self.hasher.hash_one(key) as usize % STRIPES
    }
}
