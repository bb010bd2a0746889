//! The checkpoint's table in sled 0.34, behind the guards that its measured behaviour asks for.
//!
//! - `flush` uses `sync_file_range`, which does not survive a power cut: the `db` file is flushed
//!   with fdatasync after it.
//! - Pages above a quarter of `segment_size` go to files of their own that are never flushed:
//!   segments are 8 MiB, and values are split into chunks of at most 16 KiB.
//! - Damage makes it panic: panics are caught and become errors; what called decides.
//! - It flushes in the background every 500 ms and caches up to 1 GiB unless told otherwise.
//!
//! No other file of this program names sled.

use std::any::Any;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use super::table::{Change, EachEntry, Table};

/// Bytes of a value in one chunk; with its key and header still below 16 KiB.
const CHUNK_BYTES: usize = 15_000;

/// Bytes of changes that are applied as one batch.
const BATCH_BYTES: usize = 256 * 1024;

/// Each stored value begins with the number of chunks of the whole.
const CHUNK_HEADER: usize = 2;

pub(crate) struct SledTable {
    /// `None` after a panic: nothing is asked of it then.
    db: Option<sled::Db>,
    dir: PathBuf,
    /// Of the values that have more than one chunk, how many.
    chunks: HashMap<Vec<u8>, u16>,
}

impl SledTable {
    /// Opens or makes the table in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<SledTable, StoreError> {
        let db = open_db(dir)?;
        let mut table = SledTable {
            db: Some(db),
            dir: dir.to_owned(),
            chunks: HashMap::new(),
        };
        table.sync()?;
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(StoreError::io("flush", dir))?;
        }
        Ok(table)
    }

    /// Calls sled, and never again once it has panicked.
    fn with<T>(
        &mut self,
        call: impl FnOnce(&sled::Db) -> Result<T, sled::Error>,
    ) -> Result<T, StoreError> {
        let Some(db) = &self.db else {
            return Err(StoreError::Checkpoint("it failed before".to_owned()));
        };
        let result = guarded(|| call(db));
        if result.is_err()
            && let Some(db) = self.db.take()
        {
            // Closing it would flush what is known to be damaged, and may panic again.
            std::mem::forget(db);
        }
        result
    }
}

/// How long the files of a table that was just closed may stay locked: sled's own threads let go
/// of them some time after its handle was dropped. Other processes are kept out by the lock on
/// the store's directory.
const LOCKED_FOR_MAX: Duration = Duration::from_secs(10);

fn open_db(dir: &Path) -> Result<sled::Db, StoreError> {
    let started = Instant::now();
    loop {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(32 << 20)
            .segment_size(8 << 20)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let is_locked = |error: &sled::Error| {
            matches!(error, sled::Error::Io(error)
                if error.to_string().contains("could not acquire lock"))
        };
        match guarded(|| match config.open() {
            Err(error) if is_locked(&error) => Ok(None),
            other => other.map(Some),
        })? {
            Some(db) => return Ok(db),
            None if started.elapsed() < LOCKED_FOR_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            None => return Err(StoreError::Locked(dir.to_owned())),
        }
    }
}

/// Whether the disk or the permissions are to blame, and not the content.
fn is_circumstance(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::OutOfMemory
    ) || // Too many open files, in the system or in this process.
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if is_circumstance(&error) => {
            Err(StoreError::io("use the checkpoint in", "state")(error))
        }
        Ok(Err(error)) => Err(StoreError::Checkpoint(error.to_string())),
        Err(panic) => Err(StoreError::Checkpoint(format!(
            "it panicked: {}",
            panic_message(&*panic)
        ))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// The key of a chunk of the value of `key`.
fn chunk_key(key: &[u8], chunk: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    out.extend_from_slice(key);
    out.extend_from_slice(&chunk.to_be_bytes());
    out
}

impl Table for SledTable {
    fn load(&mut self, each: EachEntry<'_>) -> Result<(), StoreError> {
        let mut long = HashMap::new();
        let mut senseless = 0_u64;
        self.with(|db| {
            for item in db.iter() {
                let (stored_key, stored) = item?;
                let Some((key, chunk)) = stored_key.split_last_chunk::<2>() else {
                    senseless += 1;
                    continue;
                };
                if *chunk != [0, 0] {
                    continue;
                }
                let Some((count, first)) = stored.split_first_chunk::<CHUNK_HEADER>() else {
                    senseless += 1;
                    continue;
                };
                let count = u16::from_be_bytes(*count);
                if count <= 1 {
                    senseless += u64::from(each(key, first).is_none());
                    continue;
                }
                long.insert(key.to_vec(), count);
                let mut value = first.to_vec();
                for chunk in 1..count {
                    match db.get(chunk_key(key, chunk))? {
                        Some(part) if part.len() > CHUNK_HEADER => {
                            value.extend_from_slice(&part[CHUNK_HEADER..]);
                        }
                        _ => senseless += 1,
                    }
                }
                senseless += u64::from(each(key, &value).is_none());
            }
            Ok(())
        })?;
        self.chunks = long;
        if senseless > 0 {
            return Err(StoreError::Checkpoint(format!(
                "{senseless} of its values make no sense"
            )));
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut rest = changes;
        while !rest.is_empty() {
            let mut batch = sled::Batch::default();
            let mut bytes = 0;
            let mut taken = 0;
            for (key, value) in rest {
                if bytes > BATCH_BYTES {
                    break;
                }
                taken += 1;
                let before = self.chunks.remove(key).unwrap_or(1);
                let mut count = 0;
                if let Some(value) = value {
                    bytes += key.len() + value.len();
                    let parts = value.len().div_ceil(CHUNK_BYTES).max(1);
                    count = u16::try_from(parts).map_err(|_| {
                        StoreError::Checkpoint("a value is too large for it".to_owned())
                    })?;
                    for chunk in 0..count {
                        let start = usize::from(chunk) * CHUNK_BYTES;
                        let end = (start + CHUNK_BYTES).min(value.len());
                        let mut stored = count.to_be_bytes().to_vec();
                        stored.extend_from_slice(&value[start..end]);
                        batch.insert(chunk_key(key, chunk), stored);
                    }
                    if count > 1 {
                        self.chunks.insert(key.clone(), count);
                    }
                }
                for chunk in count..before {
                    batch.remove(chunk_key(key, chunk));
                }
            }
            self.with(|db| db.apply_batch(batch))?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.with(|db| db.flush().map(drop))?;
        let path = self.dir.join("db");
        File::open(&path)
            .and_then(|file| file.sync_data())
            .map_err(StoreError::io("flush", path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn content(table: &mut SledTable) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        table
            .load(&mut |key, value| {
                all.insert(key.to_vec(), value.to_vec());
                Some(())
            })
            .expect("it loads");
        all
    }

    #[test]
    fn values_of_any_length_come_back_after_opening_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let long: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
        let mut table = SledTable::open(&path).expect("it opens");
        let changes = vec![
            (b"a".to_vec(), Some(b"short".to_vec())),
            (b"b".to_vec(), Some(long.clone())),
            (b"c".to_vec(), Some(Vec::new())),
            (b"d".to_vec(), Some(long.clone())),
        ];
        table.write(&changes).expect("it writes");
        let changes = vec![
            (b"b".to_vec(), Some(long[..40_000].to_vec())),
            (b"d".to_vec(), None),
        ];
        table.write(&changes).expect("it writes");
        table.sync().expect("it flushes");
        drop(table);
        let mut table = SledTable::open(&path).expect("it opens again");
        let expected = BTreeMap::from([
            (b"a".to_vec(), b"short".to_vec()),
            (b"b".to_vec(), long[..40_000].to_vec()),
            (b"c".to_vec(), Vec::new()),
        ]);
        assert_eq!(content(&mut table), expected);
        // A value that got shorter after the restart leaves no chunk behind.
        table
            .write(&[(b"b".to_vec(), Some(b"x".to_vec()))])
            .expect("it writes");
        let stored = table.db.as_ref().expect("it is open").len();
        assert_eq!(stored, 3);
    }

    #[test]
    fn nothing_is_written_to_files_that_sled_never_flushes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let mut table = SledTable::open(&path).expect("it opens");
        for i in 0..200_u32 {
            let value = vec![i as u8; 200_000];
            table
                .write(&[(i.to_be_bytes().to_vec(), Some(value))])
                .expect("it writes");
        }
        table.sync().expect("it flushes");
        let blobs = std::fs::read_dir(path.join("blobs")).map_or(0, Iterator::count);
        assert_eq!(blobs, 0);
    }
}
