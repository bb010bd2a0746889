//! Work on a store that no broker is using: checking it, compacting it, copying it, and exporting
//! it as JSON lines and back.
//!
//! Every function takes the lock of the directory. The store of a running broker is copied with
//! [`super::Store::backup`].

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::durable::Options;
use super::files::{Files, RealFiles};
use super::format_file::{self, Directory};
use super::log::committer::Step;
use super::log::format::{HEADER_LEN, SegmentHeader, parse_segment_name};
use super::log::scan::scan;
use super::open::{Parts, log_dir, open_parts, snapshot_path, state_dir};
use super::record::decode;
use super::sled::SledTable;
use super::state::State;
use super::state::table::{META_KEY, Meta};
use super::table::Table;
use super::{Recovered, StoreError, snapshot};

mod export;
mod import;
mod lines;

pub use export::{Exported, export};
pub use import::import;

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub segments: u64,
    pub log_bytes: u64,
    pub records: u64,
    /// Places in the log that cannot be read, and the bytes they take.
    pub damaged: u64,
    pub damaged_bytes: u64,
    /// Bytes of a tail torn by a crash; the next start cuts it off.
    pub torn_bytes: u64,
    /// Keys of the checkpoint, or what is wrong with it.
    pub checkpoint: Result<u64, String>,
    /// Documents in the checkpoint; those in the log behind it are counted as records.
    pub documents: u64,
    /// Bytes of the snapshot, or what is wrong with it. A store may have none yet.
    pub snapshot: Result<u64, String>,
}

impl Checked {
    /// Whether everything can be read. A torn tail is no damage.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.checkpoint.is_ok() && self.snapshot.is_ok()
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "log: {}, {} in {}",
            count(self.records, "record"),
            count(self.log_bytes, "byte"),
            count(self.segments, "file")
        )?;
        if self.damaged > 0 {
            writeln!(
                f,
                "log: {} damaged, {}; the messages there are lost, the rest is served",
                count(self.damaged, "place"),
                count(self.damaged_bytes, "byte")
            )?;
        }
        if self.torn_bytes > 0 {
            writeln!(
                f,
                "log: a tail of {} was torn by a crash; nothing in it was acknowledged",
                count(self.torn_bytes, "byte")
            )?;
        }
        match &self.checkpoint {
            Ok(keys) => writeln!(
                f,
                "checkpoint: {}, of them {}",
                count(*keys, "key"),
                count(self.documents, "document")
            )?,
            Err(why) => writeln!(
                f,
                "checkpoint: damaged ({why}); the next start moves it aside and rebuilds it from \
                 the snapshot and the log"
            )?,
        }
        match &self.snapshot {
            Ok(bytes) => writeln!(f, "snapshot: {}", count(*bytes, "byte")),
            Err(why) => writeln!(f, "snapshot: damaged ({why})"),
        }
    }
}

fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Reads everything and changes nothing but what sled does to itself when it is opened.
///
/// # Errors
/// As for [`super::DurableStore::open`]; damage is no error.
pub fn check(path: &Path) -> Result<Checked, StoreError> {
    let _lock = lock_existing(path)?;
    let files = RealFiles;
    format_file::read(&files, path)?;
    let mut checked = Checked {
        segments: 0,
        log_bytes: 0,
        records: 0,
        damaged: 0,
        damaged_bytes: 0,
        torn_bytes: 0,
        checkpoint: Ok(0),
        documents: 0,
        snapshot: Ok(0),
    };
    let mut known = None;
    if state_dir(path).exists() {
        checked.checkpoint = check_table(path)
            .map(|(keys, documents, meta)| {
                known = meta;
                checked.documents = documents;
                keys
            })
            .map_err(|error| error.to_string());
    }
    check_log(&files, &log_dir(path), known.as_ref(), &mut checked)?;
    let mut state = State::new();
    checked.snapshot = match snapshot::load(&files, &snapshot_path(path), &mut state) {
        Ok(found) => Ok(found.map_or(0, |(_, size)| size)),
        Err(error) => Err(error.to_string()),
    };
    Ok(checked)
}

/// `known` is what the checkpoint knows of the log.
fn check_log(
    files: &dyn Files,
    dir: &Path,
    known: Option<&Meta>,
    checked: &mut Checked,
) -> Result<(), StoreError> {
    let mut names = files.list(dir).map_err(StoreError::io("list", dir))?;
    names.sort_unstable();
    let names: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, parse_segment_name(name)?)))
        .collect();
    for (i, (name, numbers)) in names.iter().enumerate() {
        let path = dir.join(name);
        let failed = || StoreError::io("read", &path);
        let file = files.open(&path).map_err(failed())?;
        let mut header = [0; HEADER_LEN as usize];
        super::files::read_full_at(&*file, &mut header, 0).map_err(failed())?;
        let is_last = i + 1 == names.len();
        if SegmentHeader::decode(&header).is_none() && !is_last {
            checked.damaged += 1;
        }
        let found = scan(&*file, HEADER_LEN, is_last, |_, header, body| {
            if decode(header.kind, header.version, body).is_some() {
                checked.records += 1;
            } else {
                checked.damaged += 1;
                checked.damaged_bytes += header.record_len() as u64;
            }
        })
        .map_err(failed())?;
        checked.segments += 1;
        checked.log_bytes += file.len().map_err(failed())?;
        checked.damaged += found.damaged;
        checked.damaged_bytes += found.damaged_bytes;
        // What a checkpoint is beyond was on disk: no crash has torn it.
        let was_whole = found.torn_bytes > 0
            && known.is_some_and(|meta| {
                numbers.1 < meta.segment || numbers.1 == meta.segment && found.end < meta.position
            });
        if was_whole {
            checked.damaged += 1;
            checked.damaged_bytes += found.torn_bytes;
        } else {
            checked.torn_bytes += found.torn_bytes;
        }
    }
    Ok(())
}

/// The number of keys and of documents, and where the log was when they were written.
fn check_table(path: &Path) -> Result<(u64, u64, Option<Meta>), StoreError> {
    let mut table = SledTable::open(&state_dir(path))?;
    let mut state = State::new();
    let mut keys = 0;
    let mut meta = None;
    table.load(&mut |key, value| {
        keys += 1;
        if key == META_KEY {
            meta = Some(Meta::decode(value)?);
            Some(())
        } else {
            state.load(key, value)
        }
    })?;
    Ok((keys, state.documents(), meta))
}

/// What [`compact`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Makes the store as small as it can be: a new checkpoint, only segments that are needed, and
/// those without what is not.
///
/// # Errors
/// As for [`super::DurableStore::open`], and those of its file operations.
pub fn compact(options: &Options) -> Result<Compacted, StoreError> {
    let path = options.path.as_path();
    let _lock = lock_existing(path)?;
    let bytes_before = directory_bytes(path);
    let mut parts = open_stopped(options)?;
    parts.upkeep.checkpoint()?;
    parts.upkeep.write_snapshot()?;
    parts.upkeep.give_space_back(true)?;
    // A sled never shrinks: a new one is filled, and takes the place of the old one.
    let fresh = path.join("state.new");
    let old = path.join("state.old");
    remove_dir(&fresh)?;
    remove_dir(&old)?;
    parts
        .upkeep
        .write_everything_to(&mut SledTable::open(&fresh)?)?;
    finish(parts)?;
    let state = state_dir(path);
    // If power fails between the two, the snapshot made above stands in.
    fs::rename(&state, &old).map_err(StoreError::io("move aside", &state))?;
    fs::rename(&fresh, &state).map_err(StoreError::io("move", &fresh))?;
    RealFiles
        .sync_dir(path)
        .map_err(StoreError::io("flush", path))?;
    remove_dir(&old)?;
    Ok(Compacted {
        bytes_before,
        bytes_after: directory_bytes(path),
    })
}

/// Writes a copy of the store to `target`, an empty or missing directory.
///
/// # Errors
/// [`StoreError::NotEmpty`] if there is something in `target`; those of opening the store and of
/// writing.
pub fn backup(options: &Options, target: &Path) -> Result<(), StoreError> {
    let _lock = lock_existing(&options.path)?;
    let mut parts = open_stopped(options)?;
    let copied = parts.upkeep.backup(target);
    finish(parts)?;
    copied
}

/// What a broker that starts on the store would find in it.
///
/// # Errors
/// Those of opening the store.
pub fn recovered(options: &Options) -> Result<Recovered, StoreError> {
    let _lock = lock_existing(&options.path)?;
    finish(open_stopped(options)?)
}

fn remove_dir(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Bytes that the files in `path` occupy.
fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The lock on a directory that is a store already.
fn lock_existing(path: &Path) -> Result<Directory, StoreError> {
    let look_at = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    };
    let not_a_store = |what| StoreError::NotAStore {
        path: path.to_owned(),
        what,
    };
    let Some(directory) = look_at(path)? else {
        return Err(not_a_store(
            "there is no such directory; --path or store.path names the right one",
        ));
    };
    if look_at(&log_dir(path))?.is_none() {
        return Err(not_a_store(
            "there is no log in it; --path or store.path names the right one",
        ));
    }
    // Even reading leaves files behind: those of sled, the log's next segment.
    if directory.uid() != 0 && rustix::process::geteuid().is_root() {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            owner: directory.uid(),
        });
    }
    Directory::lock(path)
}

/// Opens a store without its threads.
fn open_stopped(options: &Options) -> Result<Parts, StoreError> {
    open_parts(Arc::new(RealFiles), options, &mut |dir| {
        Ok(Box::new(SledTable::open(dir)?))
    })
}

/// Ends what [`open_stopped`] began.
fn finish(mut parts: Parts) -> Result<Recovered, StoreError> {
    parts.log.pending.close();
    loop {
        let kept = Arc::clone(&parts.kept);
        let step = parts
            .committer
            .step(&mut |group, end, release| {
                kept.owe(group, end);
                release();
            })
            .map_err(|failure| StoreError::Failed(Arc::new(failure)))?;
        if step == Step::Closed {
            break;
        }
    }
    parts.upkeep.close()?;
    Ok(parts.recovered)
}
