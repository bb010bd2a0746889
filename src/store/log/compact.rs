//! Rewriting neighbouring segments of which little is still needed as one, so that an absent
//! device that pins a few messages does not pin the disk.
//!
//! Records are copied byte for byte, with their offsets. The new file is complete and durable
//! before its name is, and the old ones go after that.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Log;
use super::catalog::Segment;
use super::format::{
    GROUP_MARK_LEN, HEADER_LEN, SegmentHeader, group_mark, is_intact, segment_name,
};
use super::index::Index;
use super::pending::Place;
use crate::store::files::{File, read_full_at, write_all_at};
use crate::store::{Offset, StoreError};

const BUFFER: usize = 1 << 20;

impl Log {
    /// Writes those messages of `old` that are in `live` (in order) to one new segment, and puts
    /// it in their place. `old` are neighbours. Returns the paths of files that are to be removed.
    pub(crate) fn compact(
        &self,
        old: &[Arc<Segment>],
        live: &[Offset],
    ) -> Result<Vec<PathBuf>, StoreError> {
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Ok(Vec::new());
        };
        let numbers = (first.first, last.last);
        let path = self.dir.join(segment_name(numbers.0, numbers.1));
        let temporary = path.with_extension("tmp");
        let failed = || StoreError::io("compact into", &path);
        let file = self.files.create(&temporary).map_err(failed())?;
        let header = SegmentHeader {
            first: numbers.0,
            last: numbers.1,
            base: first.base,
            epoch: self.epoch,
        };
        let (index, end) = copy(&*file, &header, old, live).map_err(failed())?;
        file.sync_data().map_err(failed())?;
        self.files.rename(&temporary, &path).map_err(failed())?;
        self.files.sync_dir(&self.dir).map_err(failed())?;
        let new = Segment::new(numbers, first.base, path.clone(), file, end, Some(index));
        let firsts: Vec<_> = old.iter().map(|segment| segment.first).collect();
        self.catalog.replace(&firsts, Some(Arc::new(new)));
        let before: u64 = old
            .iter()
            .map(|segment| segment.end.load(Ordering::Relaxed))
            .sum();
        let saved = before.saturating_sub(end);
        self.figures
            .compacted_bytes
            .fetch_add(saved, Ordering::Relaxed);
        self.figures.bytes_written.fetch_add(end, Ordering::Relaxed);
        let replaced = old.iter().map(|segment| segment.path.clone());
        Ok(replaced.filter(|it| *it != path).collect())
    }
}

fn copy(
    file: &dyn File,
    header: &SegmentHeader,
    old: &[Arc<Segment>],
    live: &[Offset],
) -> io::Result<(Index, u64)> {
    write_all_at(file, &header.encode(), 0)?;
    let mut index = Index::default();
    let mut buffer = group_mark(HEADER_LEN, header.base).to_vec();
    let mut at = HEADER_LEN;
    debug_assert_eq!(buffer.len(), GROUP_MARK_LEN);
    for segment in old {
        for (offset, place) in segment.read_index()?.iter(segment.base) {
            if live.binary_search(&offset).is_err() {
                continue;
            }
            let start = buffer.len();
            buffer.resize(start + place.len as usize, 0);
            let read = read_full_at(&*segment.file, &mut buffer[start..], u64::from(place.at))?;
            if read < place.len as usize || !is_intact(&buffer[start..]) {
                // It was damaged since the scan; whoever asks for it will be told that it is gone.
                buffer.truncate(start);
                continue;
            }
            let place = Place {
                at: (at + start as u64) as u32,
                len: place.len,
            };
            index.push(header.base, offset, place);
            if buffer.len() >= BUFFER {
                write_all_at(file, &buffer, at)?;
                at += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    write_all_at(file, &buffer, at)?;
    Ok((index, at + buffer.len() as u64))
}
