//! The one owner of writes to the log.
//!
//! What gathers during one flush is the next group: no timer decides. A group goes to one
//! segment, with one write and one fdatasync, and only then is its ticket durable. After a write
//! or flush that failed nothing is tried again: what the disk holds then is unknown, and a second
//! fsync that succeeds would prove nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::catalog::Segment;
use super::format::{HEADER_LEN, SegmentHeader, segment_name};
use super::index::Index;
use super::pending::{Group, Taken};
use super::{Log, LogOptions, Position};
use crate::store::files::write_all_at;
use crate::store::{Failure, Offset, Ticket};

/// Groups below this size are written over zeros that were written before: flushing them then
/// changes no metadata, which takes a third to a half off the time of a flush. Zeros make the bytes
/// written twice as many: the larger the groups, the less is won, and at 96 KiB nothing.
const SMALL_GROUP: usize = 48 * 1024;
/// So many of them in a row are needed before zeros are written: among large groups they would be
/// written for nothing.
const SMALL_RUN: u32 = 8;
/// How far ahead of small groups zeros are written.
const ZERO_AHEAD: u64 = 1024 * 1024;

/// The thread that owns it calls [`Committer::step`] until it says that all is done.
pub(crate) struct Committer {
    log: Arc<Log>,
    options: LogOptions,
    active: Arc<Segment>,
    /// Where the next group goes.
    at: u64,
    /// Up to where the active segment was flushed.
    flushed: u64,
    /// Up to where it was written, zeros included.
    zeroed: u64,
    /// How many small groups came in a row.
    small_run: u32,
    /// The last ticket that was written; durable once flushed.
    written: Ticket,
    flush_due: Option<Instant>,
    /// Something failed: the disk is not touched again.
    failed: bool,
}

/// What [`Committer::step`] calls with a group, the position behind it, and what releases those who
/// wait for it.
pub(crate) type Apply<'a> = dyn FnMut(&Arc<Group>, Position, &dyn Fn()) + 'a;

/// The answer of [`Committer::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Committed,
    Idle,
    /// The log was closed and everything is durable.
    Closed,
}

impl Committer {
    /// Starts the segment `number`.
    pub(crate) fn start(
        log: Arc<Log>,
        options: LogOptions,
        number: u64,
        base: Offset,
    ) -> Result<Committer, Failure> {
        let active = create_segment(&log, options, number, base)?;
        log.catalog.add(Arc::clone(&active));
        Ok(Committer {
            log,
            options,
            active,
            at: HEADER_LEN,
            flushed: HEADER_LEN,
            zeroed: HEADER_LEN,
            small_run: 0,
            written: Ticket(0),
            flush_due: None,
            failed: false,
        })
    }

    /// Where the next group goes.
    pub(crate) fn position(&self) -> Position {
        Position {
            segment: self.active.first,
            byte: self.at,
        }
    }

    /// Waits for a group and commits it. `apply` is called with each group once it is as safe as
    /// the durability asks for, with the position behind it, and with what tells everybody that it
    /// is safe: whoever hears of it may ask at once for what `apply` makes of the group.
    pub(crate) fn step(&mut self, apply: &mut Apply<'_>) -> Result<Step, Failure> {
        if self.failed {
            return Err(Failure::Broken("it had failed before".to_owned()));
        }
        let result = self.take_and_commit(apply);
        self.failed = result.is_err();
        result
    }

    fn take_and_commit(&mut self, apply: &mut Apply<'_>) -> Result<Step, Failure> {
        let log = Arc::clone(&self.log);
        let due = self.flush_due;
        let taken = log.pending.take(due, |len| self.flushed_before(len));
        let step = match taken {
            Taken::Group(group) => {
                if group.has_gaps() {
                    let mut rest = group.without_gaps();
                    rest.set_mark(self.flushed_before(rest.bytes.len()));
                    self.commit(&Arc::new(rest), apply)?;
                } else {
                    self.commit(&group, apply)?;
                }
                log.pending.reuse(group);
                Step::Committed
            }
            Taken::Nothing => Step::Idle,
            Taken::Closed => {
                self.flush()?;
                // What was reserved and not used goes back; the next start makes a new segment.
                self.active
                    .file
                    .set_len(self.at)
                    .map_err(disk("shorten", &self.active.path))?;
                return Ok(Step::Closed);
            }
        };
        if self.flush_due.is_some_and(|due| due <= Instant::now()) || step == Step::Idle {
            self.flush()?;
        }
        Ok(step)
    }

    /// How much of the segment that a group of `len` bytes goes to is flushed.
    fn flushed_before(&self, len: usize) -> u64 {
        if fits(self.at, len, self.options.segment_bytes) {
            self.flushed
        } else {
            HEADER_LEN
        }
    }

    /// Makes a group as safe as the durability asks for. Of one that was taken back as a whole,
    /// nothing is written.
    fn commit(&mut self, group: &Arc<Group>, apply: &mut Apply<'_>) -> Result<(), Failure> {
        let started = Instant::now();
        let len = group.bytes.len();
        if !group.is_empty() && !fits(self.at, len, self.options.segment_bytes) {
            self.roll(group.first_offset)?;
        }
        let at = self.at;
        if !group.is_empty() {
            self.write(&group.bytes)
                .map_err(disk("write to", &self.active.path))?;
            self.at += len as u64;
        }
        self.written = group.ticket;
        match self.options.interval {
            None => self.flush()?,
            Some(interval) => {
                self.flush_due.get_or_insert_with(|| started + interval);
            }
        }
        if !group.is_empty() {
            self.log.catalog.written(&self.active, at, group);
        }
        self.log.pending.written();
        self.count(group, started);
        let progress = &self.log.progress;
        apply(group, self.position(), &|| progress.advance(group.ticket));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = &*self.active.file;
        write_all_at(file, bytes, self.at)?;
        let end = self.at + bytes.len() as u64;
        let mut written = bytes.len() as u64;
        self.small_run = if bytes.len() < SMALL_GROUP {
            self.small_run.saturating_add(1)
        } else {
            0
        };
        if self.small_run >= SMALL_RUN && end > self.zeroed {
            let zeroed = (end + ZERO_AHEAD).min(self.options.segment_bytes).max(end);
            write_all_at(file, &vec![0; (zeroed - end) as usize], end)?;
            written += zeroed - end;
            self.zeroed = zeroed;
        }
        self.zeroed = self.zeroed.max(end);
        self.log
            .figures
            .bytes_written
            .fetch_add(written, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.flush_due = None;
        if self.flushed < self.at {
            self.active
                .file
                .sync_data()
                .map_err(disk("flush", &self.active.path))?;
            self.flushed = self.at;
        }
        self.log.progress.set_flushed(self.written);
        Ok(())
    }

    /// Ends the active segment and starts the next one.
    fn roll(&mut self, base: Offset) -> Result<(), Failure> {
        // Recovery relies on it: only the last segment of a log can be torn.
        self.flush()?;
        let _ = self.active.file.set_len(self.at);
        let next = create_segment(&self.log, self.options, self.active.last + 1, base)?;
        self.log.catalog.add(Arc::clone(&next));
        self.active = next;
        self.at = HEADER_LEN;
        self.flushed = HEADER_LEN;
        self.zeroed = HEADER_LEN;
        Ok(())
    }

    fn count(&self, group: &Group, started: Instant) {
        let figures = &self.log.figures;
        let len = group.appended;
        let before = figures.waiting_bytes.fetch_sub(len, Ordering::AcqRel);
        if before.saturating_sub(len) <= self.options.commit_bytes_max / 2 {
            self.log.progress.set_pressure(false);
        }
        figures.commits.fetch_add(1, Ordering::Relaxed);
        figures.records.fetch_add(group.records, Ordering::Relaxed);
        figures
            .messages
            .fetch_add(group.messages.len() as u64, Ordering::Relaxed);
        figures
            .commit_micros_max
            .fetch_max(started.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// Whether a group of `len` bytes goes to a segment filled up to `at`. The first group always
/// does, however large.
fn fits(at: u64, len: usize, limit: u64) -> bool {
    at + len as u64 <= limit || at == HEADER_LEN
}

fn create_segment(
    log: &Log,
    options: LogOptions,
    number: u64,
    base: Offset,
) -> Result<Arc<Segment>, Failure> {
    let path = log.dir.join(segment_name(number, number));
    let header = SegmentHeader {
        first: number,
        last: number,
        base,
        epoch: log.epoch,
    };
    let file = log.files.create(&path).map_err(disk("create", &path))?;
    file.allocate(options.segment_bytes)
        .map_err(disk("reserve space for", &path))?;
    write_all_at(&*file, &header.encode(), 0).map_err(disk("write to", &path))?;
    file.sync_data().map_err(disk("flush", &path))?;
    log.files
        .sync_dir(&log.dir)
        .map_err(disk("flush", &log.dir))?;
    let index = Some(Index::default());
    let segment = Segment::new((number, number), base, path, file, HEADER_LEN, index);
    Ok(Arc::new(segment))
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Disk {
        doing,
        path: path.to_owned(),
        error,
    }
}
