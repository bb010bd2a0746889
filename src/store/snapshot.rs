//! The snapshot: an export of the whole state beside the checkpoint, for the day on which the
//! checkpoint is damaged; also what a backup consists of, next to the log.
//!
//! ```text
//! magic | blocks: length u32, crc32c u32, bytes | a block of length 0, crc32c u32 = entries
//! entry: key length, key, value length, value
//! ```
//! An entry never spans two blocks. The first entry is the [`Meta`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::files::{File, Files, read_full_at, write_all_at};
use super::record::{Reader, put_bytes};
use super::state::State;
use super::state::table::{META_KEY, Meta};
use super::table::EachEntry;

const MAGIC: &[u8; 8] = b"TIDNGSNP";
const BLOCK_BYTES: usize = 1 << 20;
/// No entry is larger: a length beyond that is damage.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Writes a snapshot piece by piece.
pub(crate) struct SnapshotWriter {
    file: Arc<dyn File>,
    position: u64,
    block: Vec<u8>,
    entries: u32,
}

impl SnapshotWriter {
    pub(crate) fn create(files: &dyn Files, path: &Path) -> io::Result<SnapshotWriter> {
        let file = files.create(path)?;
        write_all_at(&*file, MAGIC, 0)?;
        Ok(SnapshotWriter {
            file,
            position: MAGIC.len() as u64,
            block: Vec::new(),
            entries: 0,
        })
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        put_bytes(&mut self.block, key);
        put_bytes(&mut self.block, value);
        self.entries = self.entries.wrapping_add(1);
        if self.block.len() >= BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(&self.block).to_le_bytes());
        write_all_at(&*self.file, &head, self.position)?;
        write_all_at(&*self.file, &self.block, self.position + 8)?;
        self.position += 8 + self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Ends it and makes it durable; returns its size.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        let mut end = [0; 8];
        end[4..].copy_from_slice(&self.entries.to_le_bytes());
        write_all_at(&*self.file, &end, self.position)?;
        self.file.sync_data()?;
        Ok(self.position + 8)
    }
}

/// Reads a snapshot into `state`; `None` if there is none.
pub(crate) fn load(
    files: &dyn Files,
    path: &Path,
    state: &mut State,
) -> Result<Option<(Meta, u64)>, StoreError> {
    let file = match files.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let size = file.len().map_err(StoreError::io("read", path))?;
    let mut meta = None;
    read_entries(&*file, size, &mut |key, value| {
        if key == META_KEY {
            meta = Some(Meta::decode(value)?);
            Some(())
        } else {
            state.load(key, value)
        }
    })
    .map_err(StoreError::io("read", path))?;
    let meta = meta.ok_or(StoreError::NotAStore {
        path: path.to_owned(),
        what: "the snapshot does not say what it is a snapshot of",
    })?;
    Ok(Some((meta, size)))
}

/// What a snapshot is of, without reading all of it; `None` if there is none that is good.
pub(crate) fn peek(files: &dyn Files, path: &Path) -> Option<(Meta, u64)> {
    let file = files.open(path).ok()?;
    let size = file.len().ok()?;
    let mut meta = None;
    // Stops at the second entry.
    let _ = read_entries(&*file, size, &mut |key, value| {
        if key != META_KEY {
            return None;
        }
        meta = Meta::decode(value);
        meta.map(drop)
    });
    Some((meta?, size))
}

fn read_entries(file: &dyn File, size: u64, each: EachEntry<'_>) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged");
    let mut magic = [0; 8];
    if read_full_at(file, &mut magic, 0)? < 8 || &magic != MAGIC {
        return Err(damaged());
    }
    let mut position = 8;
    let mut entries = 0_u32;
    let mut block = Vec::new();
    loop {
        let mut head = [0; 8];
        if read_full_at(file, &mut head, position)? < 8 {
            return Err(damaged());
        }
        let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let word = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
        if len == 0 {
            return if word == entries {
                Ok(())
            } else {
                Err(damaged())
            };
        }
        if len > BLOCK_BYTES_MAX || position + 8 + len as u64 > size {
            return Err(damaged());
        }
        block.resize(len, 0);
        if read_full_at(file, &mut block, position + 8)? < len || crc32c::crc32c(&block) != word {
            return Err(damaged());
        }
        position += 8 + len as u64;
        let mut reader = Reader::new(&block);
        while !reader.is_empty() {
            let (Some(key), Some(value)) = (reader.bytes(), reader.bytes()) else {
                return Err(damaged());
            };
            entries = entries.wrapping_add(1);
            each(key, value).ok_or_else(damaged)?;
        }
    }
}
