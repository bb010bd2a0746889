//! Sessions: what a subscriber is to the broker, connected or not.
//!
//! A session owns its subscriptions, its outgoing queue and acknowledgement state, the Packet
//! Identifiers of QoS 2 messages it received, its will, and while it is connected its link. All of
//! it is under one lock that is held for a few instructions at a time, never across an await.
//! What a session does when a message arrives is in `deliver`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, MutexGuard};
use tidings_protocol::mqtt::{SubscriptionOptions, Version};

use super::clock::Millis;
use super::deliver::Context;
use super::encode::OutgoingAliases;
use super::endpoint::EndpointQueue;
use super::feed::Feed;
use super::message::Run;
use super::outbox::Outbox;
use super::outgoing::Outgoing;
use super::reading::Reading;
use super::retained::Replay;
use super::will::Will;
use crate::access::Principal;

/// How well a session can take a message now, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Readiness {
    /// Connected, with room in its window.
    Ready,
    /// Connected, but messages queue up.
    Busy,
    /// Not connected; messages of QoS 1 and 2 are queued.
    Absent,
    /// It has ended.
    Ended,
}

impl Readiness {
    fn from_u8(value: u8) -> Readiness {
        match value {
            0 => Readiness::Ready,
            1 => Readiness::Busy,
            2 => Readiness::Absent,
            _ => Readiness::Ended,
        }
    }
}

/// A session. Shared by its connection, the subscription table and whoever delivers to it.
pub struct Session {
    number: u64,
    client_id: Arc<str>,
    readiness: AtomicU8,
    /// When its connection last sent anything, in milliseconds of the broker's clock.
    heard_at: AtomicU64,
    /// Whose rights decide what it receives; none if it may receive everything.
    receives_as: ArcSwapOption<Principal>,
    stands_for: StandsFor,
    state: Mutex<State>,
}

/// What a session is to itself. Of one that stands for something else nothing but its number and its
/// rights is used.
enum StandsFor {
    Client,
    Feed(Arc<Feed>),
    Endpoint(Arc<EndpointQueue>),
}

/// What is under the session's lock.
pub struct State {
    /// Counts the connections this session has had: one that finds another number here has been
    /// taken over and must not touch the session any more.
    pub epoch: u64,
    /// The connection, while there is one.
    pub link: Option<Box<Link>>,
    /// Who it belongs to.
    pub principal: Principal,
    /// Session Expiry Interval in seconds; [`NEVER`] if it does not expire.
    pub expiry_secs: u32,
    /// Subscriptions by the Topic Filter as the client wrote it, `$share/…` included.
    pub subscriptions: HashMap<Arc<str>, Held, RandomState>,
    /// Messages on their way out.
    pub outgoing: Outgoing,
    /// Packet Identifiers of received QoS 2 messages that are not released [MQTT-4.3.3-10].
    pub received: HashSet<u16, RandomState>,
    /// Retained Messages that its subscriptions are still to receive.
    pub replays: VecDeque<Replay>,
    /// Subscriptions that read a stream.
    pub readings: VecDeque<Reading>,
    /// The will to publish when the connection ends badly.
    pub will: Option<Box<Will>>,
    /// A will that waits for its delay, and when it is due.
    pub will_due: Option<Millis>,
    /// When it was left without a connection.
    pub disconnected_at: Option<Millis>,
    /// When its connection began, or the last one it had.
    pub connected_at: Millis,
    /// Whether the store keeps its queue: it was begun to outlive its connection.
    pub kept: bool,
    /// Whether the store has a record of it; also of one that is not kept, but has a will.
    pub recorded: bool,
    /// Messages are being read back for it.
    pub loading: bool,
    /// It has ended: nothing may be queued or subscribed any more.
    pub ended: bool,
}

/// A Session Expiry Interval that means "does not expire" (MQTT 5 §3.1.2.11.2).
pub const NEVER: u32 = u32::MAX;

/// A subscription as the session remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What was granted.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier; 0 if there is none.
    pub identifier: u32,
}

/// A session's connection, as the broker sees it.
pub struct Link {
    /// The protocol it speaks.
    pub version: Version,
    /// What waits to be written to it.
    pub outbox: Outbox,
    /// PUBLISH packets in `outbox`.
    pub outbox_messages: usize,
    /// Wakes the task that writes; taken by the first who adds something.
    pub waker: Option<Waker>,
    /// Its client does not take what was written: there is no use in waking its task for more.
    pub blocked: bool,
    /// Its task has something to do before more can be sent: have messages read back, or wait for
    /// the store.
    pub stalled: bool,
    /// Messages of QoS 1 and 2 that may be in flight towards it [MQTT-3.3.4-9].
    pub receive_maximum: u16,
    /// The longest packet it accepts [MQTT-3.1.2-24].
    pub packet_size_max: usize,
    /// The topic aliases it allows.
    pub aliases: Option<Box<OutgoingAliases>>,
    /// Silence that ends the connection, in milliseconds; 0 for no limit [MQTT-3.1.2-22].
    pub silence_max: u64,
    /// Why it must end, once that is decided.
    pub closing: Option<Closing>,
    /// Those who wait for it to be gone.
    pub successors: Vec<Waker>,
}

/// Why the broker ends a connection from its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Another connection has the same Client Identifier [MQTT-3.1.4-3].
    TakenOver,
    /// It was silent for one and a half times its Keep Alive [MQTT-3.1.2-22].
    KeepAliveTimeout,
    /// The broker stops.
    ShuttingDown,
    /// Its queue is full, and `limits.queue_full` says "disconnect".
    QueueFull,
    /// Its rights were taken away by a changed configuration.
    NotAuthorized,
    /// The store has failed: nothing can be promised to it any more.
    StoreFailed,
}

impl Session {
    /// A new session without connection.
    pub fn new(
        number: u64,
        client_id: Arc<str>,
        principal: Principal,
        expiry_secs: u32,
    ) -> Session {
        let session = Session {
            number,
            client_id,
            readiness: AtomicU8::new(Readiness::Absent as u8),
            heard_at: AtomicU64::new(0),
            receives_as: ArcSwapOption::empty(),
            stands_for: StandsFor::Client,
            state: Mutex::new(State {
                epoch: 0,
                link: None,
                principal: principal.clone(),
                expiry_secs,
                subscriptions: HashMap::default(),
                outgoing: Outgoing::default(),
                received: HashSet::default(),
                replays: VecDeque::new(),
                readings: VecDeque::new(),
                will: None,
                will_due: None,
                disconnected_at: None,
                connected_at: Millis(0),
                kept: expiry_secs > 0,
                recorded: false,
                loading: false,
                ended: false,
            }),
        };
        session.receive_as(&principal);
        if expiry_secs > 0 {
            session.lock().outgoing.keep_record();
        }
        session
    }

    /// What stands for a feed in the subscription table and in the store.
    pub(super) fn of_feed(number: u64, feed: Arc<Feed>) -> Session {
        // Readers are asked for their rights, each for its own.
        let mut session = Session::new(number, "".into(), Principal::nobody(), 0);
        session.receives_as = ArcSwapOption::empty();
        session.stands_for = StandsFor::Feed(feed);
        session
    }

    /// What stands for an endpoint's queue in the subscription table and in the store.
    pub(super) fn of_endpoint(number: u64, queue: Arc<EndpointQueue>) -> Session {
        let mut session = Session::new(number, "".into(), Principal::nobody(), 0);
        session.stands_for = StandsFor::Endpoint(queue);
        session
    }

    /// The feed that it stands for.
    pub(super) fn feed(&self) -> Option<&Arc<Feed>> {
        match &self.stands_for {
            StandsFor::Feed(feed) => Some(feed),
            StandsFor::Client | StandsFor::Endpoint(_) => None,
        }
    }

    /// The queue of the endpoint that it stands for.
    pub(super) fn endpoint(&self) -> Option<&Arc<EndpointQueue>> {
        match &self.stands_for {
            StandsFor::Endpoint(queue) => Some(queue),
            StandsFor::Client | StandsFor::Feed(_) => None,
        }
    }

    /// Has what it stands for take the publications of a run that are in `range`; false if it is a
    /// client's own.
    pub(super) fn pass(&self, run: &Run<'_>, range: &Range<usize>, cx: &mut Context<'_>) -> bool {
        match &self.stands_for {
            StandsFor::Client => return false,
            StandsFor::Feed(feed) => feed.deliver(self.number, run, range.clone(), cx),
            StandsFor::Endpoint(queue) => queue.deliver(run, range.clone(), cx),
        }
        true
    }

    /// Its number, which no other session of this store has or had.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its Client Identifier.
    pub fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// Locks the session.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How well it can take a message, without taking its lock.
    pub fn readiness(&self) -> Readiness {
        Readiness::from_u8(self.readiness.load(Ordering::Relaxed))
    }

    /// Brings [`Session::readiness`] up to date; called before the lock is released.
    pub fn refresh_readiness(&self, state: &State) {
        let readiness = if state.ended {
            Readiness::Ended
        } else {
            match &state.link {
                None => Readiness::Absent,
                Some(link)
                    if link.closing.is_none()
                        && !state.outgoing.has_waiting()
                        && state.outgoing.room(link.receive_maximum) > 0 =>
                {
                    Readiness::Ready
                }
                Some(_) => Readiness::Busy,
            }
        };
        if self.readiness.load(Ordering::Relaxed) != readiness as u8 {
            self.readiness.store(readiness as u8, Ordering::Relaxed);
        }
    }

    /// Notes that its connection has sent something.
    pub fn heard(&self, now: Millis) {
        self.heard_at.store(now.0, Ordering::Relaxed);
    }

    /// When its connection last sent something.
    pub fn heard_at(&self) -> Millis {
        Millis(self.heard_at.load(Ordering::Relaxed))
    }

    /// Whether its principal may receive messages of `topic`.
    pub fn may_receive(&self, topic: &str) -> bool {
        match &*self.receives_as.load() {
            None => true,
            Some(principal) => principal.may_receive(topic),
        }
    }

    /// Whose rights decide from now on what it receives; true if that may have changed anything.
    pub fn receive_as(&self, principal: &Principal) -> bool {
        let restricted = !principal.may_receive_all();
        let before = self
            .receives_as
            .swap(restricted.then(|| Arc::new(principal.clone())));
        restricted || before.is_some()
    }
}

impl State {
    /// Whether the session outlives its connection, so that its messages must be kept.
    pub fn is_persistent(&self) -> bool {
        self.expiry_secs > 0
    }

    /// Whether the subscription to this Topic Filter is still to receive Retained Messages.
    pub fn replays_of(&self, filter: &str) -> bool {
        self.replays
            .iter()
            .any(|replay| **replay.filter() == *filter)
    }

    /// The link, if the connection of this epoch still has it.
    pub fn link_of(&mut self, epoch: u64) -> Option<&mut Link> {
        if self.epoch == epoch {
            self.link.as_deref_mut()
        } else {
            None
        }
    }
}

impl Link {
    /// Whether another `bytes` fit in the outbox. One message always fits in an empty one.
    pub fn has_room(
        &self,
        bytes: usize,
        messages: usize,
        limits: &crate::config::LimitsConfig,
    ) -> bool {
        self.outbox.is_empty()
            || (self.outbox.len() + bytes <= limits.mailbox_bytes_max
                && self.outbox_messages + messages <= limits.mailbox_messages_max)
    }

    /// Has the connection end, unless that is decided already.
    pub fn close(&mut self, why: Closing) -> Option<Waker> {
        self.closing.get_or_insert(why);
        self.waker.take()
    }
}
