//! One endpoint, driven by one task: pages of its queue, messages read when they are about to be
//! sent, attempts side by side, and results told to the store in batches.
//!
//! A unit goes from the [`Flow`] to `unread`, is read on a thread that may wait for the disk, waits
//! in `ready` for a place, is attempted, and comes back to the flow: released, or as a retry. What
//! is held in memory is bounded by the window of the [`Breaker`] and by [`IN_HAND_MAX`].

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Wake, Waker};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, Sleep, timeout};

use super::attempt::Read;
use super::breaker::{Breaker, Standing};
use super::client::{Answer, Dial, Exchange, SendError};
use super::flow::{Admitted, Flow, Unit};
use super::now::{self, Now};
use super::outcome::{Ended, Outcomes, Scene};
use super::places::{NoPlace, Place, Places};
use super::rate::Rate;
use super::reading::{self, ReadBack};
use super::told::Told;
use super::verdict::Verdict;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::stats::Drop as Reason;
use crate::store::{StoreError, StoredMessage, until_durable};
use crate::webhooks::{Endpoint, Ordering, State, Waiting, Webhooks};

/// Units that are read ahead of the window, so that one visit to the disk serves many; from a
/// window of [`AHEAD_FROM`] on.
const AHEAD_MAX: usize = 64;
const AHEAD_FROM: usize = 8;
/// Bytes of messages that are being read, sent, or wait for that; one message may have more.
const IN_HAND_MAX: u64 = 8 * 1024 * 1024;
/// When a read is tried again that failed without saying that the message is lost, in milliseconds.
const READ_AGAIN: u64 = 1_000;
/// What all endpoints share.
pub(super) struct Common<D> {
    pub broker: Arc<Broker>,
    pub webhooks: Arc<Webhooks>,
    pub places: Places,
    pub dial: D,
    pub now: Now,
    pub random: RandomState,
}

type Attempting = Pin<Box<dyn Future<Output = Ended> + Send>>;

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

struct Worker<D: Dial> {
    common: Arc<Common<D>>,
    endpoint: Arc<Endpoint>,
    told: Told<D::Exchange>,
    /// Rung when the queue has more.
    bell: Arc<Bell>,
    waker: Waker,
    flow: Flow,
    breaker: Breaker,
    rate: Rate,
    state: State,
    /// Whose rights decide what it receives.
    principal: Option<Principal>,
    /// The order changed: nothing new is taken until all that was is back.
    must_rebuild: bool,
    /// Where its tests are published.
    test_topic: Box<str>,
    unread: VecDeque<Unit>,
    reading: Option<JoinHandle<ReadBack>>,
    ready: VecDeque<(Unit, Vec<Read>)>,
    attempts: FuturesUnordered<Attempting>,
    bytes_in_hand: u64,
    /// A place that was waited for.
    place: Option<Place>,
    waiting: Option<Pin<Box<dyn Future<Output = Place> + Send>>>,
    /// When its turn is, if it needs one and has asked for it.
    turn: Option<u64>,
    outcomes: Outcomes,
    /// Whether it is counted among the endpoints whose breaker is open.
    is_counted_broken: bool,
}

/// Drives an endpoint until it is removed, or the server stops: then what is under way may end, for
/// as long as `grace`.
pub(super) async fn drive<D: Dial>(
    common: Arc<Common<D>>,
    endpoint: Arc<Endpoint>,
    mut stopping: watch::Receiver<Option<Duration>>,
) {
    let mut changes = endpoint.changes();
    let mut worker = Worker::start(common, endpoint).await;
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let grace = loop {
        if worker.endpoint.is_removed() {
            return worker.outcomes.forget(&worker.endpoint);
        }
        let now = worker.common.now.ms();
        worker.fill(now);
        worker.settle();
        let is_set = set(timer.as_mut(), worker.next_look(now));
        tokio::select! {
            Some(ended) = worker.attempts.next() => {
                worker.ended(ended);
                while let Some(Some(ended)) = worker.attempts.next().now_or_never() {
                    worker.ended(ended);
                }
            }
            read = wait_for(&mut worker.reading) => {
                worker.reading = None;
                worker.read(read);
            }
            place = wait_for(&mut worker.waiting) => {
                worker.waiting = None;
                worker.place = Some(place);
            }
            () = worker.bell.0.notified() => worker.flow.more(),
            changed = changes.changed() => match changed {
                Ok(()) => worker.renew().await,
                Err(_) => return,
            },
            () = timer.as_mut(), if is_set => {}
            grace = until_stopping(&mut stopping) => break grace,
        }
        if worker.must_rebuild && worker.attempts.is_empty() && worker.reading.is_none() {
            worker.rebuild().await;
        }
    };
    let under_way = async {
        while let Some(ended) = worker.attempts.next().await {
            worker.ended(ended);
        }
    };
    // What has no answer by then is attempted again after the next start.
    let _ = timeout(grace, under_way).await;
    worker.settle();
}

/// How long what is under way may take, once the server stops.
async fn until_stopping(stopping: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let grace = stopping.wait_for(Option::is_some).await;
    grace.ok().and_then(|grace| *grace).unwrap_or_default()
}

/// Sets a timer, if there is something to wait for.
fn set(mut timer: Pin<&mut Sleep>, at: Option<Instant>) -> bool {
    if let Some(at) = at
        && (timer.deadline() != at || timer.is_elapsed())
    {
        timer.as_mut().reset(at);
    }
    at.is_some()
}

/// Waits for a future, if there is one.
async fn wait_for<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl<D: Dial> Drop for Worker<D> {
    fn drop(&mut self) {
        let stats = &self.common.broker.stats.webhooks;
        stats.in_flight.sub(self.attempts.len() as u64);
        stats.broken.sub(u64::from(self.is_counted_broken));
        self.endpoint.gauges.in_flight.store(0, Relaxed);
    }
}

impl<D: Dial> Worker<D> {
    async fn start(common: Arc<Common<D>>, endpoint: Arc<Endpoint>) -> Worker<D> {
        let told = Told::of(&common, &endpoint).await;
        let bell = Arc::new(Bell(Notify::new()));
        let mut worker = Worker {
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            flow: Flow::new(told.definition.ordering, told.limits(), Vec::new()),
            breaker: told.breaker(),
            rate: told.rate(),
            state: State::Paused,
            principal: None,
            must_rebuild: false,
            test_topic: format!("$SYS/webhooks/{}/test", endpoint.id).into(),
            unread: VecDeque::new(),
            reading: None,
            ready: VecDeque::new(),
            attempts: FuturesUnordered::new(),
            bytes_in_hand: 0,
            place: None,
            waiting: None,
            turn: None,
            outcomes: Outcomes::new(endpoint.failing_since_ms()),
            is_counted_broken: false,
            common,
            endpoint,
            told,
        };
        let waiting = worker.revived();
        worker.flow = worker.told.flow(&worker.common, waiting).await;
        worker.renew().await;
        worker
    }

    /// Takes over what has changed.
    async fn renew(&mut self) {
        let state = self.endpoint.state();
        let was_active = self.is_active();
        if state == State::Active && !was_active {
            // Whoever says so may have mended it.
            self.breaker = self.told.breaker();
            if matches!(self.state, State::Disabled { .. }) {
                self.outcomes.forget_failures();
            }
        }
        self.state = state;
        self.principal = self.endpoint.principal();
        if !self.is_active() {
            (self.place, self.waiting) = (None, None);
            for (unit, _) in self.ready.drain(..).rev() {
                self.unread.push_front(unit);
            }
        }
        let definition = self.endpoint.definition();
        let config = self.common.webhooks.config();
        let is_same = Arc::ptr_eq(&definition, &self.told.definition)
            && Arc::ptr_eq(&config, &self.told.config);
        if !is_same {
            let told = Told::of(&self.common, &self.endpoint).await;
            let before = std::mem::replace(&mut self.told, told);
            self.must_rebuild |= before.is_batch() != self.told.is_batch();
            let (before, now) = (&before.definition, &self.told.definition);
            if before.rate_limit != now.rate_limit {
                self.rate = self.told.rate();
            }
            if (&before.url, before.max_in_flight) != (&now.url, now.max_in_flight) {
                self.breaker = self.told.breaker();
            }
            self.must_rebuild |= before.ordering != now.ordering;
            self.flow.limit(self.told.limits());
        }
        for (due, unit) in self.revived() {
            self.flow.wait(due, unit);
        }
    }

    /// Begins anew with what the queue has, and with what waits. Nothing is under way.
    async fn rebuild(&mut self) {
        self.must_rebuild = false;
        self.settle();
        // The queue shows what is done until that is committed.
        let _ = until_durable(self.common.broker.store(), self.outcomes.ticket()).await;
        let empty = Flow::new(Ordering::None, self.told.limits(), Vec::new());
        let mut waiting = std::mem::replace(&mut self.flow, empty).into_retries();
        let now = self.common.now.ms();
        let in_hand = self.ready.drain(..).map(|(unit, _)| unit);
        let in_hand = in_hand.chain(self.unread.drain(..));
        waiting.extend(in_hand.filter(|unit| unit.is_kept).map(|unit| (now, unit)));
        for (_, unit) in &mut waiting {
            unit.key = None;
        }
        self.bytes_in_hand = 0;
        self.flow = self.told.flow(&self.common, waiting).await;
    }

    /// What waits for a retry and is not known of, with when it is due.
    fn revived(&mut self) -> Vec<(u64, Unit)> {
        let mut waiting = self.endpoint.take_revived();
        // What was sent together stays together.
        waiting.sort_unstable_by_key(|it| (it.record.batch, it.seq));
        let mut revived: Vec<(u64, Unit)> = Vec::new();
        let mut batch = None;
        for Waiting { seq, record } in waiting {
            let page = self.endpoint.queue.page(seq - 1, 1, Some(&self.waker));
            let Some(entry) = page.first().filter(|entry| entry.seq == seq) else {
                self.outcomes.drop_document(&self.endpoint, seq);
                continue;
            };
            self.outcomes.kept.insert(seq);
            match revived.last_mut() {
                Some((_, unit)) if record.batch.is_some() && record.batch == batch => {
                    unit.entries.push(*entry);
                }
                _ => revived.push((
                    record.due_ms,
                    Unit {
                        entries: vec![*entry],
                        key: None,
                        attempts: record.attempts,
                        first_ms: record.first_ms,
                        is_kept: true,
                    },
                )),
            }
            batch = record.batch;
        }
        // The waker may have been used up for a page that was not the next.
        self.flow.more();
        revived
    }

    fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// Takes and starts as much as may be at this moment.
    fn fill(&mut self, now: u64) {
        if !self.is_active() {
            return;
        }
        // While nothing may be sent nobody asks for more, and no publisher wakes this task for nothing.
        while let Some((after, max)) = self.flow.wants_page(self.room(now)) {
            let page = self.endpoint.queue.page(after, max, Some(&self.waker));
            let dead = &self.endpoint.dead;
            self.flow.page(&page, max, |seq| dead.contains(seq));
        }
        self.start_attempts(now);
        self.choose(now);
    }

    /// Units that are read ahead.
    fn ahead(&self, now: u64) -> usize {
        match self.breaker.window(now) {
            0..AHEAD_FROM => 0,
            window => window.min(AHEAD_MAX),
        }
    }

    /// How many more units may be taken.
    fn room(&self, now: u64) -> usize {
        let may_be_taken = self.breaker.window(now) + self.ahead(now);
        may_be_taken.saturating_sub(self.flow.taken())
    }

    /// Takes what is to be sent next, and begins to read it.
    fn choose(&mut self, now: u64) {
        if self.reading.is_some() || self.ready.len() > self.ahead(now) / 2 {
            return;
        }
        if self.room(now) > 0 && !self.must_rebuild && self.has_turn(now) {
            while self.room(now) > 0
                && (self.bytes_in_hand < IN_HAND_MAX || self.flow.taken() == 0)
                && let Some(unit) = self.flow.take(now)
            {
                self.bytes_in_hand += unit.bytes();
                self.unread.push_back(unit);
                self.turn = None;
            }
        }
        if !self.unread.is_empty() {
            let units = self.unread.drain(..).collect();
            self.reading = Some(reading::begin(&self.common.broker, units));
        }
    }

    /// Whether something may be taken at this moment: at any time from an endpoint that accepted the
    /// last attempt, in its turn from any other.
    fn has_turn(&mut self, now: u64) -> bool {
        if self.breaker.standing() == Standing::Proven {
            return true;
        }
        if !self.flow.has_some(now) {
            return false;
        }
        let places = &self.common.places;
        *self.turn.get_or_insert_with(|| places.turn(now)) <= now
    }

    /// Takes in what was read: what can be sent is ready, in the order in which it was taken.
    fn read(&mut self, read: Result<ReadBack, JoinError>) {
        let (units, messages) = match read {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends.
            Err(_) => return,
        };
        let now = self.common.now.ms();
        let mut messages = messages.into_iter();
        for mut unit in units {
            let bytes = unit.bytes();
            let read: Vec<_> = messages.by_ref().take(unit.entries.len()).collect();
            if read
                .iter()
                .any(|it| it.as_ref().is_err_and(|error| !reading::is_lost(error)))
            {
                self.bytes_in_hand -= bytes;
                self.flow.retry(now + READ_AGAIN, unit);
                continue;
            }
            let mut wanted: Vec<Read> = Vec::with_capacity(read.len());
            for (entry, message) in unit.entries.iter().zip(read) {
                match self.still_wanted(message, now) {
                    Ok(message) => wanted.push((*entry, message)),
                    Err(reason) => {
                        self.common.broker.stats.dropped(reason, 1);
                        self.outcomes.discard(&self.endpoint, *entry);
                    }
                }
            }
            unit.entries = wanted.iter().map(|(entry, _)| *entry).collect();
            self.bytes_in_hand -= bytes - unit.bytes();
            let Some((_, first)) = wanted.first() else {
                self.flow.release(unit.key);
                continue;
            };
            let key = self.common.random.hash_one(first.topic());
            let bytes = unit.bytes();
            match self.flow.admit(unit, key) {
                Admitted::Yes(unit) => self.ready.push_back((unit, wanted)),
                Admitted::Held => self.bytes_in_hand -= bytes,
            }
        }
    }

    /// Whether a message that was queued once is still to be delivered; if not, why.
    fn still_wanted(
        &self,
        message: Result<StoredMessage, StoreError>,
        now: u64,
    ) -> Result<StoredMessage, Reason> {
        let message = message.map_err(|error| {
            tracing::error!(endpoint = &*self.endpoint.id, %error, "a queued message is lost");
            Reason::Damaged
        })?;
        match message.expires_ms {
            Some(expires) if expires <= now => return Err(Reason::Expired),
            _ => {}
        }
        let topic = message.topic();
        let may = |principal: &Principal| {
            // A test is the endpoint's own.
            principal.may_receive(topic) || *topic == *self.test_topic
        };
        match self.principal.as_ref().is_some_and(may) {
            true => Ok(message),
            false => Err(Reason::ReceiveDenied),
        }
    }

    /// Starts attempts while there are messages, the window is open and there are places.
    fn start_attempts(&mut self, now: u64) {
        let window = self.breaker.window(now);
        while self.attempts.len() < window && self.rate.free_at() <= now && !self.ready.is_empty() {
            let standing = self.breaker.standing();
            let place = match self.place.take() {
                Some(place) => place,
                None if self.waiting.is_some() => return,
                None => match self.common.places.take(standing, self.attempts.len()) {
                    Ok(place) => place,
                    Err(NoPlace::OwnShare) => return,
                    Err(NoPlace::Full) => {
                        let waiting = self.common.places.wait(standing);
                        self.waiting = Some(Box::pin(waiting));
                        return;
                    }
                },
            };
            if let Some((unit, messages)) = self.ready.pop_front() {
                self.attempt(unit, messages, place, now);
            }
        }
        if self.ready.is_empty() {
            (self.place, self.waiting) = (None, None);
        }
    }

    fn attempt(&mut self, unit: Unit, messages: Vec<Read>, place: Place, now: u64) {
        let signers = self.endpoint.signers(now);
        let (format, attempt) = (&self.told.format, unit.attempts + 1);
        let made = format.request(&messages, &signers, now::wall_ms(), attempt);
        let outgoing = match made {
            Ok(outgoing) => outgoing,
            Err(error) => {
                self.bytes_in_hand -= unit.bytes();
                self.flow.release(unit.key);
                self.common.broker.stats.webhooks.dead.add(1);
                let error = error.to_string();
                let outcomes = &mut self.outcomes;
                return outcomes.bury(&self.endpoint, &unit, &messages, None, &error, now);
            }
        };
        self.rate.take(now);
        let limit = self.told.definition.timeout;
        let client = self.told.client.clone();
        let began = Instant::now();
        let attempting = async move {
            let result: Result<Answer, SendError> = match client {
                Ok(client) => timeout(limit, client.exchange(&outgoing))
                    .await
                    .unwrap_or(Err(SendError::Timeout)),
                Err(why) => Err(SendError::Unusable(why)),
            };
            drop(place);
            Ended {
                unit,
                messages,
                result,
                at_ms: now,
                millis: began.elapsed().as_millis() as u64,
            }
        };
        self.attempts.push(Box::pin(attempting));
        self.common.broker.stats.webhooks.in_flight.add(1);
    }

    /// Takes in how an attempt ended.
    fn ended(&mut self, ended: Ended) {
        let stats = &self.common.broker.stats.webhooks;
        stats.in_flight.sub(1);
        self.bytes_in_hand -= ended.unit.bytes();
        let now = self.common.now.ms();
        let verdict = ended.judge(now::wall_ms());
        self.breaker.record(now, verdict.health());
        if let Verdict::SlowDown(after) = verdict {
            self.breaker.hold(now + after.as_millis() as u64);
        }
        if self.breaker.is_open() != self.is_counted_broken {
            self.is_counted_broken = self.breaker.is_open();
            match self.is_counted_broken {
                true => stats.broken.add(1),
                false => stats.broken.sub(1),
            }
        }
        let first = ended.unit.first();
        let key = ended.unit.key;
        let scene = Scene {
            webhooks: &self.common.webhooks,
            endpoint: &self.endpoint,
            definition: &self.told.definition,
            config: &self.told.config,
            now,
            random: self
                .common
                .random
                .hash_one((first, ended.unit.attempts, now)),
        };
        let settled = self.outcomes.take(&scene, ended, verdict);
        match settled {
            Some((due, unit)) => self.flow.retry(due, unit),
            None => self.flow.release(key),
        }
    }

    /// Tells the store what is done.
    fn settle(&mut self) {
        self.outcomes.settle(&self.endpoint);
        let gauges = &self.endpoint.gauges;
        gauges.retrying.store(self.flow.waiting() as u64, Relaxed);
        gauges.in_flight.store(self.attempts.len() as u64, Relaxed);
    }

    /// When to look again, if nothing happens before. `now` is when it was looked last.
    fn next_look(&self, now: u64) -> Option<Instant> {
        let mut next: Option<u64> = None;
        let mut at = |ms: Option<u64>| {
            if let Some(ms) = ms.filter(|ms| *ms > now) {
                next = Some(next.map_or(ms, |next| next.min(ms)));
            }
        };
        if self.is_active() {
            at(self.flow.next_due());
            at(self.breaker.opens_at());
            at(self.turn);
            if !self.ready.is_empty() {
                at(Some(self.rate.free_at()));
            }
        }
        let next = next.map(|ms| self.common.now.instant(ms));
        let sweep = match &self.told.client {
            Ok(client) if self.attempts.is_empty() => client.sweep(),
            _ => None,
        };
        next.into_iter().chain(sweep).min()
    }
}
