//! The bytes of a segment file.
//!
//! A segment begins with a header of [`HEADER_LEN`] bytes. Then come records, each with a header
//! of [`RECORD_HEADER_LEN`] bytes and a body; where the length is 0 the records end. Integers are
//! little-endian.
//!
//! ```text
//! record:  crc32c u32 | body length u32 | kind u8 | version u8 | offset u64 | body
//! ```
//!
//! The checksum covers everything behind it, the offset last, so that all but the offset can be
//! summed before the offset is known. The offset of a record that is not a message is the one
//! that the next message will get.
//!
//! Each group that is written together begins with a *group mark*: a record that says how much of
//! the segment had been flushed before the group was written. Something unreadable in front of
//! that point is damage; behind all such points it is a tail torn by a crash.

use crate::store::Offset;

pub(crate) const HEADER_LEN: u64 = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 18;

/// The kind of a group mark; no kind of a record of the broker is as large.
pub(crate) const GROUP_MARK: u8 = 0xF0;
pub(crate) const GROUP_MARK_LEN: usize = RECORD_HEADER_LEN + 8;

/// Other kinds than [`GROUP_MARK`], versions and offsets stay below these, which lets a search
/// for the next record pass over nearly everything that is none without summing it.
const KINDS: u8 = 64;
const VERSIONS: u8 = 32;
const OFFSETS: u64 = 1 << 56;

const MAGIC: [u8; 8] = *b"TIDNGLOG";
const FORMAT: u32 = 1;

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The number of the segment; for a compacted one, of the first that went into it.
    pub(crate) first: u64,
    /// The same number, or that of the last one that went into it.
    pub(crate) last: u64,
    /// No message in it has a smaller offset.
    pub(crate) base: Offset,
    pub(crate) epoch: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        for (i, number) in [self.first, self.last, self.base.0, self.epoch]
            .into_iter()
            .enumerate()
        {
            out[16 + i * 8..24 + i * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` if it is damaged, or was never written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let bytes = bytes.get(..HEADER_LEN as usize)?;
        if bytes[..8] != MAGIC
            || read_u32(bytes, 8) != FORMAT
            || read_u32(bytes, 60) != crc32c::crc32c(&bytes[..60])
        {
            return None;
        }
        Some(SegmentHeader {
            first: read_u64(bytes, 16),
            last: read_u64(bytes, 24),
            base: Offset(read_u64(bytes, 32)),
            epoch: read_u64(bytes, 40),
        })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) crc: u32,
    pub(crate) body_len: u32,
    pub(crate) kind: u8,
    pub(crate) version: u8,
    pub(crate) offset: Offset,
}

impl RecordHeader {
    /// `None` if `bytes` are too few, or cannot be the header of a record.
    #[inline]
    pub(crate) fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_LEN)?;
        let header = RecordHeader {
            crc: read_u32(bytes, 0),
            body_len: read_u32(bytes, 4),
            kind: bytes[8],
            version: bytes[9],
            offset: Offset(read_u64(bytes, 10)),
        };
        let is_one = header.body_len > 0
            && (1..KINDS).contains(&header.kind) | (header.kind == GROUP_MARK)
            && (1..VERSIONS).contains(&header.version)
            && header.offset.0 < OFFSETS;
        is_one.then_some(header)
    }

    /// The bytes of the record, header and body.
    pub(crate) fn record_len(&self) -> usize {
        RECORD_HEADER_LEN + self.body_len as usize
    }
}

/// Whether `record`, header and body, is what was written.
#[inline]
pub(crate) fn is_intact(record: &[u8]) -> bool {
    let crc = crc32c::crc32c(&record[4..10]);
    let crc = crc32c::crc32c_append(crc, &record[RECORD_HEADER_LEN..]);
    crc32c::crc32c_append(crc, &record[10..18]) == read_u32(record, 0)
}

/// Writes the header of the record that begins at `record[0]`, but for its offset.
#[inline]
pub(crate) fn seal_body(record: &mut [u8], kind: u8, version: u8) {
    let body_len = (record.len() - RECORD_HEADER_LEN) as u32;
    record[4..8].copy_from_slice(&body_len.to_le_bytes());
    record[8] = kind;
    record[9] = version;
    let crc = crc32c::crc32c(&record[4..10]);
    let crc = crc32c::crc32c_append(crc, &record[RECORD_HEADER_LEN..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Completes what [`seal_body`] began.
#[inline]
pub(crate) fn seal_offset(header: &mut [u8], offset: Offset) {
    let offset = offset.0.to_le_bytes();
    header[10..18].copy_from_slice(&offset);
    let crc = crc32c::crc32c_append(read_u32(header, 0), &offset);
    header[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A complete group mark.
pub(crate) fn group_mark(flushed: u64, next_offset: Offset) -> [u8; GROUP_MARK_LEN] {
    let mut mark = [0; GROUP_MARK_LEN];
    mark[RECORD_HEADER_LEN..].copy_from_slice(&flushed.to_le_bytes());
    seal_body(&mut mark, GROUP_MARK, 1);
    seal_offset(&mut mark, next_offset);
    mark
}

/// The bytes of the segment that a group mark says were flushed before it.
pub(crate) fn flushed_before(mark_body: &[u8]) -> u64 {
    if mark_body.len() == 8 {
        read_u64(mark_body, 0)
    } else {
        0
    }
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The file name of a segment.
pub(crate) fn segment_name(first: u64, last: u64) -> String {
    if first == last {
        format!("{first:012}.log")
    } else {
        format!("{first:012}-{last:012}.log")
    }
}

/// The numbers in a segment's file name; `None` for other files.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let stem = name.strip_suffix(".log")?;
    let (first, last) = match stem.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let number = stem.parse().ok()?;
            (number, number)
        }
    };
    (first <= last && segment_name(first, last) == name).then_some((first, last))
}
