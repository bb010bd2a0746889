//! Tests of the store as a whole: one contract for both implementations, crashes and faults on a
//! simulated disk, damage to real files, and the fixtures of released formats.

mod admin;
mod contract;
mod crash;
mod damage;
mod epoch;
mod faults;
mod fixtures;
mod garbage;
mod history;
mod model;
mod owed;
mod space;
mod speed;
mod withdraw;

use std::path::Path;
use std::sync::Arc;

use super::durable::{Durability, Options};
use super::files::sim::SimFiles;
use super::log::committer::Step;
use super::open::{Parts, open_parts};
use super::{Failure, List, Message, Record, Retained, StoreError, Target};

/// Options with small files, so that a short history crosses many of them.
pub(super) fn small(path: impl AsRef<Path>) -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 32 << 10,
        disk_free_min: 0,
        durability: Durability::Fsync,
        ..Options::new(path.as_ref())
    }
}

/// Opens the store on a simulated disk.
pub(super) fn open_sim(disk: &SimFiles, options: &Options) -> Result<Parts, StoreError> {
    open_parts(Arc::new(disk.clone()), options, &mut |dir| {
        Ok(disk.table(dir))
    })
}

impl Parts {
    /// Commits what was appended; the committer's thread does this in a real store.
    pub(super) fn commit(&mut self) -> Result<Step, Failure> {
        let kept = Arc::clone(&self.kept);
        // Something to do is there, or this would wait.
        self.log.pending.nudge();
        self.committer.step(&mut |group, end, release| {
            kept.owe(group, end);
            release();
        })
    }

    pub(super) fn append(&self, records: &[Record<'_>]) -> Result<super::Appended, StoreError> {
        self.log.append(records, true, 1 << 30)
    }
}

/// A message to `targets`.
pub(super) fn message<'a>(payload: &'a [u8], targets: &'a [Target<'a>]) -> Message<'a> {
    Message {
        topic: "a/b",
        properties: b"",
        payload,
        qos: 1,
        retain: false,
        published_ms: 1_000,
        expires_ms: None,
        publisher: 0,
        retained: Retained::Unchanged,
        inbound: None,
        targets: List::Given(targets),
    }
}

pub(super) fn target(session: u64, seq: u64) -> Target<'static> {
    Target {
        session,
        seq,
        qos: 1,
        flags: 0,
        subscription_ids: List::Given(&[]),
    }
}

pub(super) fn session_put(session: u64) -> Record<'static> {
    Record::SessionPut {
        session,
        record: super::SessionView {
            client_id: "device",
            expiry_interval_secs: 3_600,
            ..super::SessionView::default()
        },
    }
}
