//! What the engine is told to do, what it says while it does it, and what it found.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::client::Client;
use crate::histogram::Histogram;
use crate::wire::{Template, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Load = 0,
    /// Nothing new is published; what is under way may arrive.
    Drain = 1,
    Quit = 2,
}

/// What the main thread says and hears while a generator thread runs.
pub struct Control {
    phase: AtomicU8,
    /// Messages of this time and later are in the latency figures.
    measure_from_ns: AtomicU64,
    /// Over all threads, a little late.
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub delivered: AtomicU64,
    /// Publishers that have sent all they were asked to and have it acknowledged and delivered.
    pub finished: AtomicU64,
    pub errors: AtomicU64,
}

impl Control {
    pub fn new() -> Arc<Control> {
        Arc::new(Control {
            phase: AtomicU8::new(Phase::Load as u8),
            measure_from_ns: AtomicU64::new(u64::MAX),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        })
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Load,
            1 => Phase::Drain,
            _ => Phase::Quit,
        }
    }

    pub fn measured_from(&self) -> u64 {
        self.measure_from_ns.load(Relaxed)
    }

    pub fn measure_from(&self, at_ns: u64) {
        self.measure_from_ns.store(at_ns, Relaxed);
    }
}

/// When a publisher sends.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At most `window` messages in flight, sent `batch` or more at a time.
    Closed { window: u64, batch: u64 },
    /// One message every so many nanoseconds, whatever comes back.
    Open { interval_ns: u64, first_at_ns: u64 },
}

pub struct PublisherPlan {
    pub client: Client,
    pub pace: Pace,
    /// One per topic, gone through in turn.
    pub templates: Vec<Template>,
    /// Stop after so many.
    pub limit: u64,
}

pub struct GroupPlan {
    pub publishers: Vec<PublisherPlan>,
    pub subscribers: Vec<Client>,
    /// Webhook endpoints, which are subscribers too. The first group has endpoint 0.
    pub endpoints: usize,
    /// The subscribers are members of one shared subscription: each message goes to one of them.
    pub shared: bool,
    /// The loop is closed by acknowledgements alone: the receivers are not connected.
    pub unheard: bool,
}

pub struct EnginePlan {
    pub groups: Vec<GroupPlan>,
    pub version: Version,
    pub qos: u8,
    pub stall: Duration,
    pub spin: bool,
    /// Marks the payloads of this run.
    pub mark: u32,
    /// Where webhooks are delivered to, all of them in one thread.
    pub listener: Option<TcpListener>,
}

#[derive(Default)]
pub struct Outcome {
    pub sent: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub late: u64,
    /// Times that a closed window was given up because nothing moved.
    pub stalls: u64,
    /// PUBLISH packets that the broker answered with a failure.
    pub refused: u64,
    /// Different values of `webhook-id` at different endpoints.
    pub webhook_ids: u64,
    /// Deliveries whose `webhook-id` was that of another message, or was another one before.
    pub wrong_ids: u64,
    pub errors: Vec<String>,
    pub latency: Histogram,
    /// Open loop: how late the generator itself was.
    pub send_delay: Histogram,
}

impl Outcome {
    /// Waits for the threads of a run, and puts together what came of them.
    pub fn gather(threads: Vec<JoinHandle<Result<Outcome>>>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for thread in threads {
            let joined = thread
                .join()
                .map_err(|_| anyhow!("a generator thread panicked"))?;
            outcome.merge(joined?);
        }
        Ok(outcome)
    }

    pub fn merge(&mut self, other: Outcome) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.stalls += other.stalls;
        self.refused += other.refused;
        self.webhook_ids += other.webhook_ids;
        self.wrong_ids += other.wrong_ids;
        self.errors.extend(other.errors);
        self.latency.merge(&other.latency);
        self.send_delay.merge(&other.send_delay);
    }
}
