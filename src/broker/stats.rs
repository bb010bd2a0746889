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
    /// Its stream gave it up before a session that replays it came to it.
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
    /// Bytes of the messages in all queues, wherever they are.
    pub queued_bytes: Counter,
    /// Bytes of memory that they take.
    pub held_bytes: Counter,
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

impl Counter {
    fn change(&self, before: u64, after: u64) {
        match after.checked_sub(before) {
            Some(more) => self.add(more),
            None => self.sub(before - after),
        }
    }
}

impl Stats {
    /// Counts messages that were not delivered or accepted.
    pub fn dropped(&self, reason: Drop, count: u64) {
        self.dropped[reason as usize].add(count);
    }

    /// Notes that one session's queue went from `before` to `after`.
    pub fn queue_changed(&self, before: QueueWeight, after: QueueWeight) {
        self.queued_bytes.change(before.bytes, after.bytes);
        self.held_bytes.change(before.held, after.held);
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
}

impl Tally {
    /// Counts messages that were not delivered.
    pub fn dropped(&mut self, reason: Drop, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// Adds everything to `stats` and starts again from 0.
    pub fn settle(&mut self, stats: &Stats) {
        stats.publish_sent.add(std::mem::take(&mut self.sent));
        for (index, count) in self.dropped.iter_mut().enumerate() {
            stats.dropped[index].add(std::mem::take(count));
        }
    }
}
