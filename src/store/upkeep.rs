//! What goes on in the background: the checkpoint, the snapshot, and giving disk space back.
//!
//! A checkpoint writes what changed since the last one, and then the log position from which a
//! replay has to start. It takes the position first and the values later, in slices, so that
//! commits never wait for it; a value may therefore be newer than the position, which replay
//! does not mind (see `state`). A value is never newer than what is flushed in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::durable::Options;
use super::format_file::{self, Says};
use super::kept::{Kept, KeptLock};
use super::log::{Log, Position};
use super::open::snapshot_path;
use super::snapshot::SnapshotWriter;
use super::state::DirtyKey;
use super::state::table::{META_KEY, Meta};
use super::table::{Change, Table};
use super::{StoreError, Ticket};

/// Changes that are gathered before they are written.
const SLICE_BYTES: usize = 2 << 20;
/// Keys that are encoded under one lock.
const SLICE_KEYS: usize = 128;
/// A checkpoint is made this long after the last one even if little was appended.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// How often free space is looked at, and whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often sparse segments are looked for.
const COMPACT_EVERY: Duration = Duration::from_secs(5);

/// How long giving space back rests after it failed.
const REST: Duration = Duration::from_secs(30);
/// With nothing new for so long since the last checkpoint, the snapshot follows it.
const IDLE: Duration = Duration::from_secs(2);

/// What others say to the upkeep thread, and what it shows.
#[derive(Default)]
pub(crate) struct Control {
    wishes: Mutex<Wishes>,
    changed: Condvar,
    /// Free bytes when there are too few; `u64::MAX` when there are enough.
    disk_low: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
}

/// Puts encoded changes where they belong.
type WriteChanges<'a> = &'a mut dyn FnMut(&mut Upkeep, &[Change]) -> Result<(), StoreError>;

#[derive(Default)]
struct Wishes {
    stop: bool,
    ended: bool,
    checkpoint: bool,
    backup: Option<PathBuf>,
    backup_done: Option<Result<(), StoreError>>,
}

impl Control {
    fn new() -> Control {
        Control {
            disk_low: AtomicU64::new(u64::MAX),
            ..Control::default()
        }
    }

    pub(crate) fn disk_low(&self) -> Option<u64> {
        Some(self.disk_low.load(Ordering::Relaxed)).filter(|&free| free != u64::MAX)
    }

    pub(crate) fn stop(&self) {
        self.wishes.lock().stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn request_checkpoint(&self) {
        self.wishes.lock().checkpoint = true;
        self.changed.notify_all();
    }

    /// Blocks until the upkeep thread has made a backup.
    pub(crate) fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let mut wishes = self.wishes.lock();
        while wishes.backup.is_some() || wishes.backup_done.is_some() {
            if wishes.ended {
                break;
            }
            self.changed.wait(&mut wishes);
        }
        wishes.backup = Some(target.to_owned());
        self.changed.notify_all();
        loop {
            if let Some(result) = wishes.backup_done.take() {
                self.changed.notify_all();
                return result;
            }
            if wishes.ended {
                return Err(StoreError::Unsupported("the store was being closed"));
            }
            self.changed.wait(&mut wishes);
        }
    }
}

pub(crate) struct Upkeep {
    pub(crate) control: Arc<Control>,
    pub(super) log: Arc<Log>,
    pub(super) kept: Arc<KeptLock>,
    table: Box<dyn Table>,
    pub(super) options: Options,
    /// Where the replay of the last checkpoint starts.
    checkpointed: Position,
    checkpointed_bytes: u64,
    checkpointed_at: Instant,
    snapshot: Option<(Position, u64)>,
    snapshot_bytes: u64,
    compacted_at: Instant,
    /// Giving space back failed and is not tried before.
    resting_until: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(
        log: Arc<Log>,
        kept: Arc<KeptLock>,
        table: Box<dyn Table>,
        options: &Options,
        checkpointed: Position,
        snapshot: Option<(Position, u64)>,
    ) -> Upkeep {
        let upkeep = Upkeep {
            control: Arc::new(Control::new()),
            log,
            kept,
            table,
            options: options.clone(),
            checkpointed,
            // What was replayed counts: another start soon after need not replay it again.
            checkpointed_bytes: 0,
            checkpointed_at: Instant::now(),
            snapshot,
            snapshot_bytes: 0,
            compacted_at: Instant::now(),
            resting_until: None,
        };
        upkeep.look_at_disk();
        upkeep
    }

    /// The upkeep thread.
    pub(crate) fn run(&mut self) -> Result<(), StoreError> {
        let result = self.run_until_stopped();
        let mut wishes = self.control.wishes.lock();
        wishes.ended = true;
        self.control.changed.notify_all();
        drop(wishes);
        result
    }

    fn run_until_stopped(&mut self) -> Result<(), StoreError> {
        loop {
            let (stop, checkpoint, backup) = {
                let mut wishes = self.control.wishes.lock();
                if !wishes.stop && !wishes.checkpoint && wishes.backup.is_none() {
                    self.control.changed.wait_for(&mut wishes, LOOK_EVERY);
                }
                let checkpoint = std::mem::take(&mut wishes.checkpoint);
                (wishes.stop, checkpoint, wishes.backup.clone())
            };
            if let Some(failure) = self.log.progress.failure() {
                // The log failed: the checkpoint stays what it was, replay does the rest.
                if stop || !matches!(*failure, super::Failure::Closed) {
                    return Ok(());
                }
            }
            self.look_at_disk();
            if stop {
                return self.close();
            }
            if let Some(target) = backup {
                let result = self.backup(&target);
                let mut wishes = self.control.wishes.lock();
                wishes.backup = None;
                wishes.backup_done = Some(result);
                self.control.changed.notify_all();
            }
            if checkpoint || self.checkpoint_is_due() {
                self.checkpoint()?;
            }
            self.try_to_give_space_back(checkpoint);
        }
    }

    /// What fails here costs disk space and nothing else, on a full disk for example: it is tried
    /// again later, with new files.
    fn try_to_give_space_back(&mut self, now: bool) {
        if self
            .resting_until
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        self.resting_until = None;
        match self.give_space_back(now) {
            Ok(()) | Err(StoreError::Failed(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "disk space could not be given back, trying again later");
                self.resting_until = Some(Instant::now() + REST);
            }
        }
    }

    /// Snapshot, deletion and compaction, as far as they are due.
    pub(crate) fn give_space_back(&mut self, now: bool) -> Result<(), StoreError> {
        if self.snapshot_is_due() {
            self.write_snapshot()?;
        }
        self.delete_segments()?;
        if now || self.compacted_at.elapsed() >= COMPACT_EVERY {
            self.compacted_at = Instant::now();
            self.compact()?;
        }
        Ok(())
    }

    pub(super) fn look_at_disk(&self) {
        // A file system that does not say how full it is is taken as not full.
        let free = self.log.files.free_bytes(&self.log.dir).unwrap_or(u64::MAX);
        let low = free < self.options.disk_free_min;
        let before = self
            .control
            .disk_low
            .swap(if low { free } else { u64::MAX }, Ordering::Relaxed);
        match (before == u64::MAX, low) {
            (true, true) => tracing::error!(
                free_bytes = free,
                needed_bytes = self.options.disk_free_min,
                "the disk is nearly full: no new messages of QoS 1 and 2 are taken"
            ),
            (false, false) => tracing::info!(free_bytes = free, "the disk has space again"),
            _ => {}
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let kept = self.kept.lock();
        kept.bytes - self.checkpointed_bytes >= self.options.checkpoint_bytes
            || (self.checkpointed_at.elapsed() >= CHECKPOINT_EVERY
                && (kept.state.is_dirty() || kept.position.segment != self.checkpointed.segment))
    }

    /// Writes what changed since the last checkpoint.
    pub(crate) fn checkpoint(&mut self) -> Result<(), StoreError> {
        let (keys, meta, position, bytes) = {
            let mut kept = self.kept.lock();
            let keys = kept.state.take_dirty();
            (keys, kept.meta(self.log.epoch), kept.position, kept.bytes)
        };
        let mut written = 0;
        self.each_value(&keys, &mut |upkeep, changes| {
            written += changes
                .iter()
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
                .sum::<usize>();
            upkeep.table.write(changes)
        })?;
        self.table.sync()?;
        self.table
            .write(&[(META_KEY.to_vec(), Some(meta.encode()))])?;
        self.table.sync()?;
        self.checkpointed = position;
        self.checkpointed_bytes = bytes;
        self.checkpointed_at = Instant::now();
        self.control.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.control
            .bytes_written
            .fetch_add(written as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The last checkpoint, once everything is flushed and nothing more comes.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.checkpoint()?;
        if self.options.log().interval.is_some() {
            let says = Says {
                format: format_file::FORMAT,
                epoch: Some(self.log.epoch),
                unflushed_in_boot: None,
            };
            format_file::write(&*self.log.files, &self.options.path, says)?;
        }
        Ok(())
    }

    /// Encodes the values of `keys` in slices, and calls `write` with them once the log that they
    /// come from is flushed.
    fn each_value(&mut self, keys: &[DirtyKey], write: WriteChanges<'_>) -> Result<(), StoreError> {
        let mut changes: Vec<Change> = Vec::new();
        let mut bytes = 0;
        let mut slices = keys.chunks(SLICE_KEYS).peekable();
        while let Some(slice) = slices.next() {
            let ticket = {
                let kept = self.kept.lock();
                for key in slice {
                    let mut value = Vec::new();
                    let is_there = kept.state.put_value(key, &mut value);
                    bytes += value.len();
                    changes.push((key.to_bytes(), is_there.then_some(value)));
                }
                kept.ticket
            };
            if bytes >= SLICE_BYTES || slices.peek().is_none() {
                self.flush_log(ticket)?;
                write(self, &changes)?;
                changes.clear();
                bytes = 0;
            }
        }
        Ok(())
    }

    /// Waits until everything up to `ticket` is flushed, whatever the durability.
    pub(super) fn flush_log(&self, ticket: Ticket) -> Result<(), StoreError> {
        if self.options.log().interval.is_some() {
            self.log.pending.nudge();
        }
        self.log.progress.wait_flushed(ticket)
    }

    fn snapshot_is_due(&self) -> bool {
        let Some((position, size)) = self.snapshot else {
            return self.checkpointed.segment > 0;
        };
        if position.segment >= self.checkpointed.segment {
            return false;
        }
        let bytes = self.kept.lock().bytes;
        let since = bytes.saturating_sub(self.snapshot_bytes);
        let is_idle = bytes == self.checkpointed_bytes && self.checkpointed_at.elapsed() >= IDLE;
        is_idle
            || since >= self.options.segment_bytes.max(4 * size)
            // After a start, what is between is not known in bytes but in segments.
            || position.segment + 8 < self.checkpointed.segment
    }

    /// Replaces the snapshot.
    pub(crate) fn write_snapshot(&mut self) -> Result<(), StoreError> {
        let path = snapshot_path(&self.options.path);
        let temporary = path.with_extension("tmp");
        let bytes = self.kept.lock().bytes;
        let (position, size) = self.write_snapshot_to(&temporary)?;
        let files = &self.log.files;
        files
            .rename(&temporary, &path)
            .map_err(StoreError::io("replace", &path))?;
        files
            .sync_dir(&self.options.path)
            .map_err(StoreError::io("flush", &self.options.path))?;
        self.snapshot = Some((position, size));
        self.snapshot_bytes = bytes;
        Ok(())
    }

    /// Writes a snapshot to a new file; returns the position it stands for and its size.
    pub(super) fn write_snapshot_to(&mut self, path: &Path) -> Result<(Position, u64), StoreError> {
        let failed = || StoreError::io("write to", path);
        let mut writer = SnapshotWriter::create(&*self.log.files, path).map_err(failed())?;
        let position = self.each_value_of_all(&mut |changes| {
            for (key, value) in changes {
                if let Some(value) = value {
                    writer.put(key, value).map_err(failed())?;
                }
            }
            Ok(())
        })?;
        let size = writer.finish().map_err(failed())?;
        self.control
            .bytes_written
            .fetch_add(size, Ordering::Relaxed);
        Ok((position, size))
    }

    /// Fills an empty table with the whole state.
    pub(super) fn write_everything_to(&mut self, table: &mut dyn Table) -> Result<(), StoreError> {
        self.each_value_of_all(&mut |changes| table.write(changes))?;
        table.sync()
    }

    /// Calls `write` with the meta and then with all keys and values; returns the position from
    /// which a replay over them has to start.
    fn each_value_of_all(
        &mut self,
        write: &mut dyn FnMut(&[Change]) -> Result<(), StoreError>,
    ) -> Result<Position, StoreError> {
        let (meta, position, sessions, others) = {
            let kept = self.kept.lock();
            let mut others = kept.state.retained_keys();
            others.extend(kept.state.document_keys());
            (
                kept.meta(self.log.epoch),
                kept.position,
                kept.state.session_numbers(),
                others,
            )
        };
        write(&[(META_KEY.to_vec(), Some(meta.encode()))])?;
        let mut put = |_: &mut Upkeep, changes: &[Change]| write(changes);
        for some in sessions.chunks(SLICE_KEYS) {
            let mut keys = Vec::new();
            self.kept.lock().state.keys_of_sessions(some, &mut keys);
            self.each_value(&keys, &mut put)?;
        }
        self.each_value(&others, &mut put)?;
        Ok(position)
    }

    /// The first segment that a replay could need.
    pub(super) fn floor(&self) -> u64 {
        let snapshot = self.snapshot.map_or(0, |(position, _)| position.segment);
        self.checkpointed.segment.min(snapshot)
    }

    /// Deletes the segments that nothing needs.
    fn delete_segments(&mut self) -> Result<(), StoreError> {
        let floor = self.floor();
        let mut idle = Vec::new();
        let ticket = {
            let kept = self.kept.lock();
            for segment in self.log.catalog.all() {
                if segment.last < floor && kept.needs.count(segment.first) == 0 {
                    idle.push(segment);
                }
            }
            kept.ticket
        };
        if idle.is_empty() {
            return Ok(());
        }
        // The acknowledgements that freed them must not get lost behind their backs.
        self.flush_log(ticket)?;
        for segment in idle {
            self.log.catalog.replace(&[segment.first], None);
            self.kept.lock().needs.replace(&[segment.first], false);
            self.log
                .files
                .remove(&segment.path)
                .map_err(StoreError::io("remove", &segment.path))?;
        }
        Ok(())
    }
}

impl Kept {
    fn meta(&self, log_epoch: u64) -> Meta {
        Meta {
            segment: self.position.segment,
            position: self.position.byte,
            log_epoch,
            next_session: self.state.next_session,
            next_offset: self.state.next_offset,
            clock_ms: self.state.clock_ms,
        }
    }
}
