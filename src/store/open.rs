//! Opening a durable store: the checkpoint, or what can stand in for it, then the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::durable::Options;
use super::files::Files;
use super::format_file::{self, Says};
use super::kept::{Kept, KeptLock};
use super::log::committer::Committer;
use super::log::needs::Needs;
use super::log::open::Opened;
use super::log::pending::Pending;
use super::log::{Figures, Log, Position, catalog::Catalog};
use super::memory::epoch;
use super::recovered::Basis;
use super::snapshot;
use super::state::table::{META_KEY, Meta};
use super::state::{NoBodies, State};
use super::table::Table;
use super::upkeep::Upkeep;
use super::wait::Progress;
use super::{Failure, Recovered, Report, StoreError};

/// Everything of a store but its threads: tests drive it step by step.
pub(crate) struct Parts {
    pub(crate) log: Arc<Log>,
    pub(crate) kept: Arc<KeptLock>,
    pub(crate) committer: Committer,
    pub(crate) upkeep: Upkeep,
    pub(crate) recovered: Recovered,
}

/// Opens the table in a directory, or makes one.
pub(crate) type OpenTable<'a> = &'a mut dyn FnMut(&Path) -> Result<Box<dyn Table>, StoreError>;

pub(crate) fn log_dir(store: &Path) -> PathBuf {
    store.join("log")
}

pub(crate) fn snapshot_path(store: &Path) -> PathBuf {
    store.join("snapshot")
}

pub(crate) fn state_dir(store: &Path) -> PathBuf {
    store.join("state")
}

pub(crate) fn open_parts(
    files: Arc<dyn Files>,
    options: &Options,
    open_table: OpenTable<'_>,
) -> Result<Parts, StoreError> {
    let started = Instant::now();
    let path = &options.path;
    let dir = log_dir(path);
    files
        .create_dir_all(&dir)
        .map_err(StoreError::io("create", &dir))?;
    let known = format_file::read(&*files, path)?;
    let mut report = Report::default();

    let Base {
        mut state,
        meta,
        table,
        snapshot,
    } = load_basis(&*files, path, open_table, &mut report)?;
    let from = meta.map(|meta| position_of(&meta));
    let opened =
        super::log::open::open(&*files, &dir, from, &mut report, &mut |offset, record| {
            state.apply(offset, record, &mut NoBodies);
        })?;
    let Opened {
        segments,
        next_number,
        next_offset,
        replayed_bytes,
    } = opened;
    if report.basis == Basis::New && !segments.is_empty() {
        report.basis = Basis::Log;
    }
    state.drop_remnants();
    state.drop_expired_documents();
    state.next_offset = state.next_offset.max(next_offset);

    let catalog = Catalog::new();
    for segment in &segments {
        catalog.add(Arc::clone(segment));
    }
    (report.lost_entries, report.lost_retained) =
        state.drop_lost(|offset| catalog.is_there(offset));
    if report.basis != Basis::Checkpoint {
        state.note_everything();
    }

    // Offsets that were shown under the old epoch may be given out again if something is lost. A
    // store that was ever open has a checkpoint, see below: one without has lost it.
    let boot = files.boot();
    let lost_power = known
        .and_then(|it| it.unflushed_in_boot)
        .is_some_and(|it| it == 0 || it != boot);
    let rolled_back =
        lost_power || report.has_loss() || matches!(report.basis, Basis::New | Basis::Log);
    let known_epoch = known.and_then(|it| it.epoch).filter(|_| !rolled_back);
    let epoch = known_epoch.unwrap_or_else(epoch);
    let says = Says {
        format: format_file::FORMAT,
        epoch: Some(epoch),
        unflushed_in_boot: options.log().interval.map(|_| boot),
    };
    if known != Some(says) {
        // Before anything of a newer format is written, or acknowledged without a flush.
        format_file::write(&*files, path, says)?;
    }

    let progress = Arc::new(Progress::new());
    let log = Arc::new(Log {
        files,
        dir,
        epoch,
        pending: Pending::new(state.next_offset),
        catalog,
        progress,
        figures: Figures::default(),
    });
    let base = state.next_offset;
    let committer = Committer::start(Arc::clone(&log), options.log(), next_number, base)
        .map_err(open_failure)?;
    let mut needs = Needs::new(&log.catalog.all());
    state.count_needs(&mut needs);
    report.micros = started.elapsed().as_micros() as u64;
    let recovered = state.recovered(epoch, report);
    let kept = Arc::new(KeptLock::new(Kept::new(
        state,
        needs,
        committer.position(),
        replayed_bytes,
    )));
    let mut upkeep = Upkeep::new(
        Arc::clone(&log),
        Arc::clone(&kept),
        table,
        options,
        from.unwrap_or_default(),
        snapshot,
    );
    if known_epoch.is_none() {
        // The epoch begins here: a kill before the first checkpoint must not look like the loss of
        // one, nor what was lost before like another loss.
        upkeep.checkpoint()?;
    }
    Ok(Parts {
        log,
        kept,
        committer,
        upkeep,
        recovered,
    })
}

fn open_failure(failure: Failure) -> StoreError {
    match failure {
        Failure::Disk { doing, path, error } => StoreError::Io { doing, path, error },
        other => StoreError::Failed(Arc::new(other)),
    }
}

/// What the replay starts from.
struct Base {
    state: State,
    meta: Option<Meta>,
    table: Box<dyn Table>,
    /// Position and size of the snapshot, as far as there is one.
    snapshot: Option<(Position, u64)>,
}

fn load_basis(
    files: &dyn Files,
    path: &Path,
    open_table: OpenTable<'_>,
    report: &mut Report,
) -> Result<Base, StoreError> {
    let dir = state_dir(path);
    let loaded = open_table(&dir).and_then(|mut table| {
        let mut state = State::new();
        let mut meta = None;
        let mut any = false;
        table.load(&mut |key, value| {
            any = true;
            if key == META_KEY {
                meta = Some(Meta::decode(value)?);
                Some(())
            } else {
                state.load(key, value)
            }
        })?;
        if any && meta.is_none() {
            // The first checkpoint was being written: the log has everything that is in it.
            state = State::new();
        }
        Ok((table, state, meta))
    });
    let snapshot_file = snapshot_path(path);
    match loaded {
        Ok((table, mut state, Some(meta))) => {
            report.basis = Basis::Checkpoint;
            take_meta(&mut state, &meta);
            let snapshot = snapshot::peek(files, &snapshot_file)
                .map(|(meta, size)| (position_of(&meta), size));
            return Ok(Base {
                state,
                meta: Some(meta),
                table,
                snapshot,
            });
        }
        Ok((table, state, None)) => {
            // New, restored from a backup, or lost.
            return with_snapshot(files, &snapshot_file, state, table, report);
        }
        Err(StoreError::Checkpoint(what)) => {
            report.checkpoint_error = Some(what);
        }
        // A full disk or a missing permission damages nothing.
        Err(error) => return Err(error),
    }
    let aside = aside_name(&dir);
    files
        .rename(&dir, &aside)
        .map_err(StoreError::io("move aside", &dir))?;
    report.checkpoint_moved_to = Some(aside);
    let table = open_table(&dir)?;
    with_snapshot(files, &snapshot_file, State::new(), table, report)
}

fn with_snapshot(
    files: &dyn Files,
    path: &Path,
    mut state: State,
    table: Box<dyn Table>,
    report: &mut Report,
) -> Result<Base, StoreError> {
    let (meta, size) = match snapshot::load(files, path, &mut state) {
        Ok(Some((meta, size))) => (meta, size),
        Ok(None) => {
            return Ok(Base {
                state,
                meta: None,
                table,
                snapshot: None,
            });
        }
        Err(error) => {
            let aside = aside_name(path);
            files
                .rename(path, &aside)
                .map_err(StoreError::io("move aside", path))?;
            let before = report.checkpoint_error.take().unwrap_or_default();
            report.checkpoint_error = Some(format!("{before} and the snapshot: {error}"));
            return Ok(Base {
                state: State::new(),
                meta: None,
                table,
                snapshot: None,
            });
        }
    };
    report.basis = Basis::Snapshot;
    take_meta(&mut state, &meta);
    Ok(Base {
        state,
        meta: Some(meta),
        table,
        snapshot: Some((position_of(&meta), size)),
    })
}

fn position_of(meta: &Meta) -> Position {
    Position {
        segment: meta.segment,
        byte: meta.position,
    }
}

fn take_meta(state: &mut State, meta: &Meta) {
    state.next_session = state.next_session.max(meta.next_session);
    state.next_offset = state.next_offset.max(meta.next_offset);
    state.clock_ms = state.clock_ms.max(meta.clock_ms);
}

/// `name.damaged-1763913600`, by the seconds since 1970.
fn aside_name(path: &Path) -> PathBuf {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let date = format_file::date(now.as_secs());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let millis = now.subsec_millis();
    path.with_file_name(format!("{name}.damaged-{date}-{millis:03}"))
}
