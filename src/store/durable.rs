//! The durable store: log, state and checkpoint put together.
//!
//! Two threads belong to it: the committer, which owns the writes to the log, and upkeep, which
//! owns the checkpoint, the snapshot and the deletion and compaction of segments. Callers only
//! append to a buffer, read, and wait.
//!
//! Lock order: `Kept` before the log's own locks; neither during a write or flush.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::files::RealFiles;
use super::format_file::Directory;
use super::kept::KeptLock;
use super::log::committer::{Committer, Step};
use super::log::{Log, LogOptions};
use super::open::{Parts, open_parts};
use super::sled::SledTable;
use super::upkeep::{Control, Upkeep};
use super::{
    Appended, Failure, Health, Offset, QueuePage, Record, Recovered, Seq, SessionNumber, Stats,
    Store, StoreError, StoredMessage, Ticket, Waiting,
};

/// A group from this size on takes longer to be applied than those whom it releases need to do their
/// part: a message for a thousand webhook endpoints needs 0.3 ms, and the first of those endpoints that
/// are well is sent it within 0.2 ms. They should not have to share the processor with
/// that, so with nothing else to commit it is put off.
const LARGE_GROUP: usize = 4 * 1024;
/// For how long: unless somebody looks at the state, or there is something to commit.
const PUT_OFF: Duration = Duration::from_millis(1);

/// When an acknowledgement may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync: neither a crash nor a power cut loses what was acknowledged.
    Fsync,
    /// After the write; flushed at this interval. A crash of the process loses nothing, a power
    /// cut what came since the last flush.
    Interval(Duration),
}

/// How a durable store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub path: PathBuf,
    pub durability: Durability,
    /// The size of a segment file.
    pub segment_bytes: u64,
    /// A checkpoint is written when so much was appended since the last one.
    pub checkpoint_bytes: u64,
    /// Above this many bytes waiting for the disk, publishers should pause.
    pub commit_bytes_max: u64,
    /// Below this much free space no new messages are taken.
    pub disk_free_min: u64,
}

impl Options {
    /// The defaults, for a store in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Options {
        Options {
            path: path.into(),
            durability: Durability::Fsync,
            segment_bytes: 64 << 20,
            checkpoint_bytes: 32 << 20,
            commit_bytes_max: 64 << 20,
            disk_free_min: 256 << 20,
        }
    }

    pub(crate) fn log(&self) -> LogOptions {
        LogOptions {
            // Places in a segment fit 32 bits, with room for one group beyond its end.
            segment_bytes: self.segment_bytes.clamp(64 << 10, 1 << 30),
            interval: match self.durability {
                Durability::Fsync => None,
                Durability::Interval(interval) => Some(interval),
            },
            commit_bytes_max: self.commit_bytes_max,
        }
    }
}

/// A store on disk. See the module.
pub struct DurableStore {
    log: Arc<Log>,
    kept: Arc<KeptLock>,
    control: Arc<Control>,
    commit_bytes_max: u64,
    threads: Mutex<Option<(JoinHandle<()>, JoinHandle<()>)>>,
    /// The lock on the directory, given up when the store is closed.
    directory: Mutex<Option<Directory>>,
}

impl DurableStore {
    /// Opens the store in `options.path`, or makes a new one there.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Newer`], [`StoreError::NotAStore`],
    /// [`StoreError::Io`]. Damage is not an error: what could be saved is there, and the report
    /// says what could not.
    pub fn open(options: &Options) -> Result<(DurableStore, Recovered), StoreError> {
        let directory = Directory::lock(&options.path)?;
        let Parts {
            log,
            kept,
            committer,
            upkeep,
            recovered,
        } = open_parts(Arc::new(RealFiles), options, &mut |dir| {
            Ok(Box::new(SledTable::open(dir)?))
        })?;
        let control = Arc::clone(&upkeep.control);
        let committing = spawn("store-commit", &log, {
            let kept = Arc::clone(&kept);
            let log = Arc::clone(&log);
            move || run_committer(committer, &log, &kept)
        });
        let keeping = spawn("store-upkeep", &log, move || run_upkeep(upkeep));
        let threads = match (committing, keeping) {
            (Ok(committing), Ok(keeping)) => (committing, keeping),
            (committing, keeping) => {
                log.pending.close();
                control.stop();
                let error = committing.err().or(keeping.err());
                return Err(StoreError::Io {
                    doing: "start a thread for",
                    path: options.path.clone(),
                    error: error.unwrap_or_else(|| std::io::ErrorKind::Other.into()),
                });
            }
        };
        let store = DurableStore {
            log,
            kept,
            control,
            commit_bytes_max: options.commit_bytes_max,
            threads: Mutex::new(Some(threads)),
            directory: Mutex::new(Some(directory)),
        };
        Ok((store, recovered))
    }
}

#[cfg(test)]
impl DurableStore {
    /// The state as of the last commit, as a restart would find it.
    pub(crate) fn recovered(&self) -> Recovered {
        let kept = self.kept.lock();
        kept.state.recovered(0, super::Report::default())
    }
}

/// Starts a thread whose panic fails the store instead of leaving everyone waiting.
fn spawn(
    name: &str,
    log: &Arc<Log>,
    run: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let log = Arc::clone(log);
    let thread_name = name.to_owned();
    std::thread::Builder::new()
        .name(thread_name.clone())
        .spawn(move || {
            let failure = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Broken(format!("its thread {thread_name} panicked")),
            };
            if !matches!(failure, Failure::Closed) {
                tracing::error!(%failure, "the store has failed");
            }
            log.pending.close();
            log.progress.fail(failure);
        })
}

fn run_committer(mut committer: Committer, log: &Log, kept: &KeptLock) -> Result<(), Failure> {
    loop {
        let mut is_large = false;
        let step = committer.step(&mut |group, end, release| {
            // Acknowledgements need not wait until it is applied; whoever looks at the state does.
            kept.owe(group, end);
            release();
            is_large = group.bytes.len() >= LARGE_GROUP;
        })?;
        if is_large {
            log.pending.wait(Instant::now() + PUT_OFF);
        }
        if let Some(group) = kept.catch_up() {
            log.pending.reuse(group);
        }
        if step == Step::Closed {
            return Ok(());
        }
        if let Some(failure) = log.progress.failure() {
            // Upkeep failed: nothing may be acknowledged on a checkpoint that cannot be trusted.
            return match &*failure {
                Failure::Closed => Ok(()),
                _ => Err(Failure::Broken("it had failed before".to_owned())),
            };
        }
    }
}

fn run_upkeep(mut upkeep: Upkeep) -> Result<(), Failure> {
    upkeep
        .run()
        .map_err(|error| Failure::Broken(error.to_string()))
}

impl Store for DurableStore {
    fn append(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        self.log.progress.check()?;
        self.log.append(records, true, self.commit_bytes_max)
    }

    fn append_idle(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        self.log.progress.check()?;
        self.log.append(records, false, self.commit_bytes_max)
    }

    fn withdraw(&self, offsets: &[Offset]) -> Vec<bool> {
        self.log.pending.withdraw(offsets)
    }

    fn admit(&self) -> Result<(), StoreError> {
        self.log.progress.check()?;
        match self.control.disk_low() {
            Some(free_bytes) => Err(StoreError::DiskLow { free_bytes }),
            None => Ok(()),
        }
    }

    fn is_in_memory(&self) -> bool {
        false
    }

    fn durable(&self) -> Ticket {
        self.log.progress.durable()
    }

    fn appended(&self) -> Ticket {
        self.log.pending.appended()
    }

    fn register(&self, ticket: Ticket, waker: &Waker) -> Waiting {
        self.log.progress.register(ticket, waker)
    }

    fn pressure(&self) -> bool {
        self.log.progress.pressure()
    }

    fn register_pressure(&self, waker: &Waker) -> bool {
        self.log.progress.register_pressure(waker)
    }

    fn read(&self, offsets: &[Offset]) -> Vec<Result<StoredMessage, StoreError>> {
        self.log.read(offsets)
    }

    fn queue(&self, session: SessionNumber, range: Range<Seq>, max: usize) -> QueuePage {
        self.kept.lock().state.queue(session, range, max)
    }

    fn health(&self) -> Health {
        if let Some(failure) = self.log.progress.failure() {
            return Health::Failed(failure);
        }
        self.control
            .disk_low()
            .map_or(Health::Well, |free_bytes| Health::DiskLow { free_bytes })
    }

    fn failed(&self) -> bool {
        self.log.progress.failed()
    }

    fn stats(&self) -> Stats {
        let figures = &self.log.figures;
        let segments = self.log.catalog.all();
        let load = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
        Stats {
            waiting_bytes: load(&figures.waiting_bytes),
            commits: load(&figures.commits),
            records: load(&figures.records),
            messages: load(&figures.messages),
            log_bytes_written: load(&figures.bytes_written),
            checkpoint_bytes_written: load(&self.control.bytes_written),
            checkpoints: load(&self.control.checkpoints),
            segments: segments.len() as u64,
            log_bytes: segments
                .iter()
                .map(|segment| segment.end.load(Ordering::Relaxed))
                .sum(),
            compacted_bytes: load(&figures.compacted_bytes),
            needs: self.kept.lock().needs.total,
            commit_micros_max: figures.commit_micros_max.swap(0, Ordering::Relaxed),
        }
    }

    fn request_checkpoint(&self) {
        self.control.request_checkpoint();
    }

    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        self.log.progress.check()?;
        self.control.backup(target)
    }

    fn close(&self) -> Result<(), StoreError> {
        let Some((committing, keeping)) = self.threads.lock().take() else {
            return Ok(());
        };
        self.log.pending.close();
        let joined = committing.join();
        self.control.stop();
        let kept = keeping.join();
        *self.directory.lock() = None;
        let result = match self.log.progress.failure() {
            Some(failure) => Err(StoreError::Failed(failure)),
            None => Ok(()),
        };
        self.log.progress.fail(Failure::Closed);
        if joined.is_err() || kept.is_err() {
            let what = "one of its threads panicked while it was being closed".to_owned();
            return Err(StoreError::Failed(Arc::new(Failure::Broken(what))));
        }
        result
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed in order");
        }
    }
}
