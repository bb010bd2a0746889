//! Opening a log: which segments there are, and the replay of what came after the checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Position;
use super::catalog::Segment;
use super::format::{HEADER_LEN, RecordHeader, SegmentHeader, parse_segment_name};
use super::index::Index;
use super::pending::Place;
use super::scan::{ScanEnd, scan};
use crate::store::files::{File, Files, read_full_at};
use crate::store::record::decode;
use crate::store::{Offset, Record, Report, StoreError};

/// What the segment files of a directory came to.
pub(crate) struct Opened {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// For the next segment.
    pub(crate) next_number: u64,
    /// Larger than the offset of any message that was replayed.
    pub(crate) next_offset: Offset,
    /// Bytes that were replayed.
    pub(crate) replayed_bytes: u64,
}

/// A file of the directory that has a segment's name.
struct Found {
    numbers: (u64, u64),
    path: PathBuf,
    file: Arc<dyn File>,
    header: Option<SegmentHeader>,
}

/// Reads what is there, and calls `apply` with every record behind `from`; behind the beginning,
/// without it. `number_min` and `offset_min` are what the checkpoint knows.
pub(crate) fn open(
    files: &dyn Files,
    dir: &Path,
    from: Option<Position>,
    report: &mut Report,
    apply: &mut dyn FnMut(Offset, &Record<'_>),
) -> Result<Opened, StoreError> {
    let found = find(files, dir, report)?;
    let mut opened = Opened {
        segments: Vec::with_capacity(found.len()),
        next_number: found.last().map_or(0, |last| last.numbers.1) + 1,
        next_offset: Offset(1),
        replayed_bytes: 0,
    };
    if let Some(from) = from {
        opened.next_number = opened.next_number.max(from.segment + 1);
        count_missing(&found, from, report);
    }
    let mut base = Offset(0);
    let count = found.len();
    for (i, it) in found.into_iter().enumerate() {
        let is_last = i + 1 == count;
        let start = match from {
            Some(from) if it.numbers.1 < from.segment => None,
            Some(from) if it.numbers.0 <= from.segment => Some(from.byte.max(HEADER_LEN)),
            _ => Some(HEADER_LEN),
        };
        base = base.max(it.header.map_or(base, |header| header.base));
        let len = it.file.len().map_err(StoreError::io("read", &it.path))?;
        let Some(start) = start else {
            opened.segments.push(Arc::new(Segment::new(
                it.numbers, base, it.path, it.file, len, None,
            )));
            continue;
        };
        let (end, index) = replay(&it, start, is_last, base, report, &mut opened, apply)?;
        opened.segments.push(Arc::new(Segment::new(
            it.numbers, base, it.path, it.file, end, index,
        )));
    }
    Ok(opened)
}

/// Replays one segment, and cuts its tail if that was torn.
fn replay(
    it: &Found,
    start: u64,
    is_last: bool,
    base: Offset,
    report: &mut Report,
    opened: &mut Opened,
    apply: &mut dyn FnMut(Offset, &Record<'_>),
) -> Result<(u64, Option<Index>), StoreError> {
    let mut index = Index::default();
    let mut visit = |at: u64, header: &RecordHeader, body: &[u8]| {
        let is_message = header.kind == Record::MESSAGE_KIND;
        let next = header.offset.plus(u64::from(is_message));
        opened.next_offset = opened.next_offset.max(next);
        opened.replayed_bytes += header.record_len() as u64;
        if is_message {
            let place = Place {
                at: at as u32,
                len: header.record_len() as u32,
            };
            index.push(base, header.offset, place);
        }
        match decode(header.kind, header.version, body) {
            Some(record) => {
                report.replayed_records += 1;
                apply(header.offset, &record);
            }
            None => {
                report.damaged_records += 1;
                report.damaged_bytes += header.record_len() as u64;
            }
        }
    };
    let reading = || StoreError::io("read", &it.path);
    let ScanEnd {
        end,
        torn_bytes,
        damaged,
        damaged_bytes,
    } = scan(&*it.file, start, is_last, &mut visit).map_err(reading())?;
    report.damaged_records += damaged;
    report.damaged_bytes += damaged_bytes;
    report.torn_bytes += torn_bytes;
    let len = it.file.len().map_err(reading())?;
    if start > len {
        // The checkpoint knows a part of the segment that is no more.
        report.damaged_records += 1;
        report.damaged_bytes += start - len;
    }
    if is_last {
        // What was written may not have been flushed: it is about to be relied on. Behind it
        // nothing may be left that a later crash could bring back.
        it.file
            .set_len(end.min(len))
            .map_err(StoreError::io("shorten", &it.path))?;
        it.file
            .sync_data()
            .map_err(StoreError::io("flush", &it.path))?;
    }
    // Only a segment that was read from its beginning has all places.
    Ok((end.min(len), (start == HEADER_LEN).then_some(index)))
}

/// The segment files in order, leftovers of interrupted work cleared away.
fn find(files: &dyn Files, dir: &Path, report: &mut Report) -> Result<Vec<Found>, StoreError> {
    let names = files.list(dir).map_err(StoreError::io("list", dir))?;
    let mut numbered = Vec::new();
    for name in names {
        let path = dir.join(&name);
        if name.ends_with(".tmp") {
            files
                .remove(&path)
                .map_err(StoreError::io("remove", &path))?;
        } else if let Some(numbers) = parse_segment_name(&name) {
            numbered.push((numbers, path));
        }
    }
    numbered.sort_unstable();
    // A compacted segment that is complete replaces those that went into it.
    let covers =
        |other: &(u64, u64), it: &(u64, u64)| other != it && other.0 <= it.0 && it.1 <= other.1;
    let ranges: Vec<_> = numbered.iter().map(|(numbers, _)| *numbers).collect();
    let mut found = Vec::with_capacity(numbered.len());
    let count = numbered.len();
    for (i, (numbers, path)) in numbered.into_iter().enumerate() {
        if ranges.iter().any(|other| covers(other, &numbers)) {
            files
                .remove(&path)
                .map_err(StoreError::io("remove", &path))?;
            continue;
        }
        let file = files.open(&path).map_err(StoreError::io("open", &path))?;
        let mut bytes = [0; HEADER_LEN as usize];
        let read = read_full_at(&*file, &mut bytes, 0).map_err(StoreError::io("read", &path))?;
        let mut header = SegmentHeader::decode(&bytes[..read]);
        if header.is_none() {
            header = guess_header(&*file, numbers).map_err(StoreError::io("read", &path))?;
            match (header.is_some(), i + 1 == count) {
                // The stop came while the segment was being made.
                (false, true) => {
                    files
                        .remove(&path)
                        .map_err(StoreError::io("remove", &path))?;
                    continue;
                }
                (true, _) => report.damaged_records += 1,
                // Nothing in it can be read; `count_missing` and the lost entries tell.
                (false, false) => {
                    report.damaged_records += 1;
                    let aside = path.with_extension("bad");
                    files
                        .rename(&path, &aside)
                        .map_err(StoreError::io("move aside", &path))?;
                    continue;
                }
            }
        }
        found.push(Found {
            numbers,
            path,
            file,
            header,
        });
    }
    Ok(found)
}

/// What the header of a segment must have said, by its first intact record.
fn guess_header(file: &dyn File, numbers: (u64, u64)) -> std::io::Result<Option<SegmentHeader>> {
    let mut base = None;
    scan(file, HEADER_LEN, false, |_, header, _| {
        base.get_or_insert(header.offset);
    })?;
    Ok(base.map(|base| SegmentHeader {
        first: numbers.0,
        last: numbers.1,
        base,
        epoch: 0,
    }))
}

/// From the checkpoint's segment on, none may be missing.
fn count_missing(found: &[Found], from: Position, report: &mut Report) {
    let mut expected = from.segment;
    for it in found.iter().filter(|it| it.numbers.1 >= from.segment) {
        report.missing_segments += it.numbers.0.saturating_sub(expected);
        expected = it.numbers.1 + 1;
    }
    if expected == from.segment {
        report.missing_segments += 1;
    }
}
