//! What the broker counts. Counters are added to once per batch, not per message.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or with [`Counter::sub`] a gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Takes away from it.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it to `value` if it is lower.
    pub fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// A figure that goes up and down, and is told late by some: between two of them it may be below 0.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.with(0)
    }

    /// What it will be once `more` was added, which is negative in two's complement.
    fn with(&self, more: u64) -> u64 {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(more);
        u64::try_from(value as i64).unwrap_or(0)
    }

    fn change(&self, more: u64) {
        if more != 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// Why a message did not reach a subscriber, or a publish was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// QoS 0, and the receiver does not read fast enough.
    SlowReceiver,
    /// QoS 0 for a session that is not connected.
    Absent,
    /// The session's queue is full.
    QueueFull,
    /// Its Message Expiry Interval ran out.
    Expired,
    /// Longer than the receiver accepts.
    TooLarge,
    /// The session ended before it was delivered.
    SessionEnded,
    /// The publisher has no right to publish there.
    PublishDenied,
    /// The receiver's right to receive it was withdrawn while it waited.
    ReceiveDenied,
    /// The limit of retained messages is reached.
    RetainedFull,
    /// The store takes no more messages.
    StoreFull,
    /// It cannot be read back from the store.
    Damaged,
    /// A Topic Name beyond the limits.
    TopicInvalid,
    /// A payload that is not the UTF-8 it is declared to be.
    PayloadFormat,
    /// Its stream gave it up before a session that replays it came to it. Where nobody knows how many
    /// there were, one is counted.
    StreamGap,
}

/// All reasons, with the names under which they are shown.
pub const DROPS: [(Drop, &str); 14] = [
    (Drop::SlowReceiver, "slow_receiver"),
    (Drop::Absent, "absent"),
    (Drop::QueueFull, "queue_full"),
    (Drop::Expired, "expired"),
    (Drop::TooLarge, "too_large"),
    (Drop::SessionEnded, "session_ended"),
    (Drop::PublishDenied, "publish_denied"),
    (Drop::ReceiveDenied, "receive_denied"),
    (Drop::RetainedFull, "retained_full"),
    (Drop::StoreFull, "store_full"),
    (Drop::Damaged, "damaged"),
    (Drop::TopicInvalid, "topic_invalid"),
    (Drop::PayloadFormat, "payload_format"),
    (Drop::StreamGap, "stream_gap"),
];

/// How an attempt to deliver to a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum AttemptEnd {
    /// 2xx.
    Delivered,
    /// Another answer.
    Refused,
    /// No complete answer in time.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable,
}

/// All ends, with the names under which they are shown.
pub const ATTEMPT_ENDS: [(AttemptEnd, &str); 4] = [
    (AttemptEnd::Delivered, "delivered"),
    (AttemptEnd::Refused, "refused"),
    (AttemptEnd::TimedOut, "timed_out"),
    (AttemptEnd::Unreachable, "unreachable"),
];

/// Up to how many milliseconds the attempts of each bucket take.
pub const ATTEMPT_MILLIS: [u64; 8] = [1, 5, 25, 100, 500, 2_500, 10_000, 30_000];

/// What is counted of webhooks, over all endpoints.
#[derive(Debug, Default)]
pub struct WebhookStats {
    /// By [`AttemptEnd`].
    attempts: [Counter; ATTEMPT_ENDS.len()],
    /// By [`ATTEMPT_MILLIS`]; the last for those that take longer.
    buckets: [Counter; ATTEMPT_MILLIS.len() + 1],
    /// What all attempts took together.
    pub millis: Counter,
    /// Attempts under way.
    pub in_flight: Counter,
    /// Messages that were delivered.
    pub delivered: Counter,
    /// Messages that became dead letters.
    pub dead: Counter,
    /// Messages of QoS 0 whose only attempt failed.
    pub discarded: Counter,
    /// Endpoints that were disabled because they are gone or only failed.
    pub disabled: Counter,
    /// Endpoints of which most of the last attempts failed, so that they are left alone for a while.
    pub broken: Counter,
    /// Tasks that ended by a defect.
    pub panicked: Counter,
}

impl WebhookStats {
    /// Counts an attempt.
    pub fn attempted(&self, end: AttemptEnd, millis: u64) {
        self.attempts[end as usize].add(1);
        self.buckets[ATTEMPT_MILLIS.partition_point(|most| *most < millis)].add(1);
        self.millis.add(millis);
    }

    /// How many attempts ended so.
    pub fn attempts(&self, end: AttemptEnd) -> u64 {
        self.attempts[end as usize].get()
    }

    /// Attempts that took at most so long, of each of [`ATTEMPT_MILLIS`], and all.
    pub fn attempts_up_to(&self) -> [u64; ATTEMPT_MILLIS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|index| {
            sum += self.buckets[index].get();
            sum
        })
    }
}

/// The broker's counters.
#[derive(Debug, Default)]
pub struct Stats {
    pub connections_total: Counter,
    pub connections_refused: Counter,
    pub connections_panicked: Counter,
    pub clients_connected: Counter,
    pub clients_maximum: Counter,
    pub publish_received: Counter,
    pub publish_sent: Counter,
    pub publish_bytes_received: Counter,
    pub packets_received: Counter,
    /// Packets sent other than PUBLISH, which `publish_sent` counts.
    pub packets_sent: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
    pub webhooks: WebhookStats,
    /// Bytes of the messages in all queues, wherever they are.
    pub queued_bytes: Gauge,
    /// Bytes of memory that they take.
    pub held_bytes: Gauge,
    dropped: [Counter; DROPS.len()],
}

/// What one queue adds to the broker's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueWeight {
    /// Bytes of topics, properties and payloads.
    pub bytes: u64,
    /// Bytes of memory.
    pub held: u64,
}

impl Stats {
    /// Counts messages that were not delivered or accepted.
    pub fn dropped(&self, reason: Drop, count: u64) {
        self.dropped[reason as usize].add(count);
    }

    /// Notes that one session's queue went from `before` to `after`.
    pub fn queue_changed(&self, before: QueueWeight, after: QueueWeight) {
        self.queued_bytes
            .change(after.bytes.wrapping_sub(before.bytes));
        self.held_bytes.change(after.held.wrapping_sub(before.held));
    }

    /// How many were dropped for this reason.
    pub fn dropped_for(&self, reason: Drop) -> u64 {
        self.dropped[reason as usize].get()
    }

    /// How many were dropped in all.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum()
    }
}

/// Counts of one batch, added to [`Stats`] at its end.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub dropped: [u64; DROPS.len()],
    /// What queues have more than before; less, in two's complement.
    queued: QueueWeight,
}

impl Tally {
    /// Counts messages that were not delivered.
    pub fn dropped(&mut self, reason: Drop, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// Notes that one session's queue went from `before` to `after`: a count of all that every worker
    /// would have to touch for every message otherwise.
    pub fn queue_changed(&mut self, before: QueueWeight, after: QueueWeight) {
        let queued = &mut self.queued;
        queued.bytes = queued
            .bytes
            .wrapping_add(after.bytes.wrapping_sub(before.bytes));
        queued.held = queued
            .held
            .wrapping_add(after.held.wrapping_sub(before.held));
    }

    /// The bytes in all queues, those of this batch among them.
    pub fn queued_bytes(&self, stats: &Stats) -> u64 {
        stats.queued_bytes.with(self.queued.bytes)
    }

    /// The bytes of memory that all queues take, those of this batch among them.
    pub fn held_bytes(&self, stats: &Stats) -> u64 {
        stats.held_bytes.with(self.queued.held)
    }

    /// Adds everything to `stats` and starts again from 0.
    pub fn settle(&mut self, stats: &Stats) {
        stats.publish_sent.add(std::mem::take(&mut self.sent));
        for (index, count) in self.dropped.iter_mut().enumerate() {
            stats.dropped[index].add(std::mem::take(count));
        }
        stats.queue_changed(QueueWeight::default(), std::mem::take(&mut self.queued));
    }
}
