//! Deciding which segments are worth compacting, and the backup: the two kinds of upkeep that
//! copy segments.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::files::{Files, read_full_at, write_all_at};
use super::log::catalog::Segment;
use super::log::format::HEADER_LEN;
use super::open::{log_dir, snapshot_path};
use super::upkeep::Upkeep;
use super::{Offset, StoreError, format_file};

/// A segment is sparse when at most one in so many of its messages is needed.
const SPARSE: u64 = 4;
/// Smaller ones are compacted only to join them.
const SMALL_BYTES: u64 = 1 << 20;
/// Sessions that are looked through under one lock.
const SLICE_SESSIONS: usize = 64;

impl Upkeep {
    /// Compacts what is worth it.
    pub(super) fn compact(&mut self) -> Result<(), StoreError> {
        for run in self.sparse_runs() {
            let live = self.live_in(&run);
            let ticket = self.kept.lock().ticket;
            self.flush_log(ticket)?;
            let replaced = self.log.compact(&run, &live)?;
            // Counted as one before anything can fail: a segment whose needs were not all counted
            // would be deleted too early.
            let firsts: Vec<_> = run.iter().map(|segment| segment.first).collect();
            self.kept.lock().needs.replace(&firsts, true);
            for path in replaced {
                self.log
                    .files
                    .remove(&path)
                    .map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Runs of neighbouring segments that are sparse, each to become one segment.
    fn sparse_runs(&self) -> Vec<Vec<Arc<Segment>>> {
        let floor = self.floor();
        let segments = self.log.catalog.all();
        let kept = self.kept.lock();
        let mut runs = Vec::new();
        let mut run: Vec<Arc<Segment>> = Vec::new();
        let mut run_bytes = 0;
        let mut end_run = |run: &mut Vec<Arc<Segment>>, bytes: &mut u64| {
            let run = std::mem::take(run);
            let total: u64 = run.iter().map(|it| it.end.load(Ordering::Relaxed)).sum();
            // Worth it: half of a lot is given back, or many files become one.
            if total > 2 * *bytes + SMALL_BYTES || run.len() >= 8 {
                runs.push(run);
            }
            *bytes = 0;
        };
        for pair in segments.windows(2) {
            let segment = &pair[0];
            let bytes = segment.end.load(Ordering::Relaxed);
            let messages = segment.messages(pair[1].base).max(1);
            let needs = kept.needs.count(segment.first);
            let live_bytes = bytes / messages * needs.min(messages);
            let sparse = needs * SPARSE <= messages || bytes <= SMALL_BYTES;
            if segment.last >= floor || !sparse {
                end_run(&mut run, &mut run_bytes);
                continue;
            }
            if run_bytes + live_bytes > self.options.segment_bytes {
                end_run(&mut run, &mut run_bytes);
            }
            run.push(Arc::clone(segment));
            run_bytes += live_bytes;
        }
        end_run(&mut run, &mut run_bytes);
        runs
    }

    /// The offsets that are needed of these segments, in order.
    fn live_in(&self, run: &[Arc<Segment>]) -> Vec<Offset> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Vec::new();
        };
        let end = self.log.catalog.base_behind(last);
        let sessions = self.kept.lock().state.session_numbers();
        let mut live = Vec::new();
        for some in sessions.chunks(SLICE_SESSIONS) {
            self.kept
                .lock()
                .state
                .needed_by_sessions(some, first.base, end, &mut live);
        }
        self.kept
            .lock()
            .state
            .needed_by_retained(first.base, end, &mut live);
        live.sort_unstable();
        live.dedup();
        live
    }

    /// Writes a copy of the store to `target`, and leaves nothing there if it fails.
    pub(super) fn backup(&mut self, target: &Path) -> Result<(), StoreError> {
        let files = Arc::clone(&self.log.files);
        let names = files.list(target).map_err(StoreError::io("list", target))?;
        if !names.is_empty() {
            return Err(StoreError::NotEmpty {
                path: target.to_owned(),
                purpose: "a backup",
            });
        }
        files
            .create_dir_all(target)
            .map_err(StoreError::io("create", target))?;
        let copied = self.copy_to(target);
        // Half a copy only fills the disk. What cannot be removed stays marked as unfinished.
        if copied.is_err()
            && let Err(error) = discard(&*files, target)
        {
            tracing::warn!(directory = %target.display(), %error, "half a backup was left behind");
        }
        copied
    }

    /// A snapshot, and then the log, which may be ahead of it.
    fn copy_to(&mut self, target: &Path) -> Result<(), StoreError> {
        let files = Arc::clone(&self.log.files);
        let dir = log_dir(target);
        format_file::mark_unfinished(&*files, target)?;
        files
            .create_dir_all(&dir)
            .map_err(StoreError::io("create", &dir))?;
        self.write_snapshot_to(&snapshot_path(target))?;
        // The end of the log after the snapshot was made: everything that it knows is in front.
        let position = self.kept.lock().position;
        for segment in self.log.catalog.all() {
            let end = if segment.first == position.segment {
                position.byte
            } else if segment.first > position.segment {
                continue;
            } else {
                segment.end.load(Ordering::Acquire)
            };
            self.copy_segment(&segment, end, &dir)?;
        }
        // A restored copy is a rolled back store: its offsets from now on are not those that the
        // original will give out, nor those of the same copy restored before. So it has no epoch
        // until it is started.
        let says = format_file::Says {
            format: format_file::FORMAT,
            epoch: None,
            unflushed_in_boot: None,
        };
        format_file::write(&*files, target, says)?;
        for dir in [dir.as_path(), target] {
            files.sync_dir(dir).map_err(StoreError::io("flush", dir))?;
        }
        if let Some(parent) = target.parent() {
            // One that may be entered and not read cannot be flushed by us.
            let _ = files.sync_dir(parent);
        }
        format_file::unmark_unfinished(&*files, target)
    }

    fn copy_segment(&self, segment: &Segment, end: u64, dir: &Path) -> Result<(), StoreError> {
        let name = segment.path.file_name().unwrap_or_default();
        let path = dir.join(name);
        let failed = || StoreError::io("copy to", &path);
        let copy = self.log.files.create(&path).map_err(failed())?;
        let mut at = 0;
        let mut buffer = vec![0; 1 << 20];
        while at < end.max(HEADER_LEN) {
            let wanted = (end.max(HEADER_LEN) - at).min(buffer.len() as u64) as usize;
            let read = read_full_at(&*segment.file, &mut buffer[..wanted], at).map_err(failed())?;
            if read == 0 {
                break;
            }
            write_all_at(&*copy, &buffer[..read], at).map_err(failed())?;
            at += read as u64;
        }
        copy.sync_data().map_err(failed())
    }
}

/// Removes what a copy has written to `target`.
fn discard(files: &dyn Files, target: &Path) -> io::Result<()> {
    let or_missing = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    or_missing(files.remove_dir_all(&log_dir(target)))?;
    or_missing(files.remove(&snapshot_path(target)))?;
    for name in format_file::NAMES {
        or_missing(files.remove(&target.join(name)))?;
    }
    Ok(())
}
