//! The log: segment files of records, in the order in which things happened.
//!
//! `format` owns the bytes of a segment, `scan` reads them back and tells a torn tail from
//! damage, `pending` gathers what the broker appends, `committer` owns all writes, `catalog`
//! knows the segments, `index` where each message of one is, `read` fetches messages, `open` replays,
//! `compact` rewrites segments of which little is needed. What the records mean is not known
//! here.
//!
//! Locks, in the order in which they may be taken: `pending`, `catalog`. Neither is held during
//! a write or a flush.

pub(crate) mod catalog;
pub(crate) mod committer;
pub(crate) mod compact;
pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod needs;
pub(crate) mod open;
pub(crate) mod pending;
pub(crate) mod read;
pub(crate) mod scan;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::files::Files;
use super::wait::Progress;
use super::{Appended, Failure, Record, StoreError};
use catalog::Catalog;
use pending::Pending;

/// A place in the log: a byte of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) byte: u64,
}

/// What the appending threads, the committer, readers and upkeep share.
pub(crate) struct Log {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) dir: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) pending: Pending,
    pub(crate) catalog: Catalog,
    pub(crate) progress: Arc<Progress>,
    pub(crate) figures: Figures,
}

/// How the log is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    pub(crate) segment_bytes: u64,
    /// Flush at this interval instead of before each acknowledgement.
    pub(crate) interval: Option<Duration>,
    pub(crate) commit_bytes_max: u64,
}

/// Counters, for [`super::Stats`].
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) waiting_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    pub(crate) commit_micros_max: AtomicU64,
}

impl Log {
    /// Adds records to what the committer will write next.
    pub(crate) fn append(
        &self,
        records: &[Record<'_>],
        urgent: bool,
        commit_bytes_max: u64,
    ) -> Result<Appended, StoreError> {
        let Some((appended, bytes)) = self.pending.append(records, urgent)? else {
            self.progress.check()?;
            return Err(StoreError::Failed(Arc::new(Failure::Closed)));
        };
        let waiting = self
            .figures
            .waiting_bytes
            .fetch_add(bytes, Ordering::AcqRel)
            .wrapping_add(bytes);
        // The committer may have taken the bytes off before they were added: below 2^63 it did
        // not.
        if waiting > commit_bytes_max && waiting < u64::MAX / 2 {
            self.progress.set_pressure(true);
            let now = self.figures.waiting_bytes.load(Ordering::Acquire);
            if now <= commit_bytes_max / 2 {
                // It was all committed meanwhile, and nothing else would end the pressure.
                self.progress.set_pressure(false);
            }
        }
        Ok(appended)
    }
}
