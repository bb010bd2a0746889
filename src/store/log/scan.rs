//! Reading a segment from some point to its end, past damage, and finding where a tail was torn.

use std::io;

use super::format::{GROUP_MARK, RECORD_HEADER_LEN, RecordHeader, flushed_before, is_intact};
use crate::store::files::{File, read_full_at};

/// How much is read at a time.
const WINDOW: usize = 1 << 20;

/// How many bytes are summed in search of the next record. Payloads that look like headers
/// cannot make the search take longer than some seconds.
const SEARCH_BYTES_MAX: u64 = 8 << 30;

/// What a scan found besides the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// The end of the last intact record.
    pub(crate) end: u64,
    /// Bytes behind that which are neither a record nor zeros: a torn tail.
    pub(crate) torn_bytes: u64,
    /// Places in between that are damaged, and their bytes.
    pub(crate) damaged: u64,
    pub(crate) damaged_bytes: u64,
}

/// Calls `visit` with the position, header and body of each record from `start` on, group marks
/// left out. `may_be_torn` is true for the last segment of a log: only there can a crash have
/// left something half-written.
pub(crate) fn scan(
    file: &dyn File,
    start: u64,
    may_be_torn: bool,
    mut visit: impl FnMut(u64, &RecordHeader, &[u8]),
) -> io::Result<ScanEnd> {
    let mut window = Window::new(file)?;
    let mut found = ScanEnd {
        end: start,
        ..ScanEnd::default()
    };
    let mut at = start;
    loop {
        if let Some((header, record)) = window.record(at)? {
            if header.kind != GROUP_MARK {
                visit(at, &header, &record[RECORD_HEADER_LEN..]);
            }
            at += header.record_len() as u64;
            found.end = at;
            continue;
        }
        let filled = window.filled_end(at)?;
        if filled == at {
            return Ok(found);
        }
        let next = window.next_record(at, filled)?;
        if may_be_torn && !window.was_flushed(at, next)? {
            found.torn_bytes = filled - at;
            return Ok(found);
        }
        let resume = next.unwrap_or(filled);
        found.damaged += 1;
        found.damaged_bytes += resume - at;
        found.end = resume;
        at = resume;
    }
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn File,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File) -> io::Result<Window<'a>> {
        Ok(Window {
            file,
            file_len: file.len()?,
            start: 0,
            bytes: Vec::new(),
        })
    }

    /// `len` bytes at `at`, or as many as the file has.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let wanted = len.min(usize::try_from(self.file_len.saturating_sub(at)).unwrap_or(len));
        let held = at
            .checked_sub(self.start)
            .is_some_and(|skip| skip + wanted as u64 <= self.bytes.len() as u64);
        if !held {
            let size = wanted.max(WINDOW).min((self.file_len - at) as usize);
            self.bytes.resize(size, 0);
            let read = read_full_at(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let skip = (at - self.start) as usize;
        Ok(&self.bytes[skip.min(self.bytes.len())..(skip + wanted).min(self.bytes.len())])
    }

    /// The intact record at `at`, if there is one.
    fn record(&mut self, at: u64) -> io::Result<Option<(RecordHeader, &[u8])>> {
        if at >= self.file_len {
            return Ok(None);
        }
        let Some(header) = RecordHeader::decode(self.get(at, RECORD_HEADER_LEN)?) else {
            return Ok(None);
        };
        if at + header.record_len() as u64 > self.file_len {
            return Ok(None);
        }
        let record = self.get(at, header.record_len())?;
        if record.len() < header.record_len() || !is_intact(record) {
            return Ok(None);
        }
        Ok(Some((header, record)))
    }

    /// The end of what is not zero, from `at` on.
    fn filled_end(&mut self, at: u64) -> io::Result<u64> {
        let mut end = at;
        let mut position = at;
        while position < self.file_len {
            let bytes = self.get(position, WINDOW)?;
            if bytes.is_empty() {
                break;
            }
            let len = bytes.len() as u64;
            let mut front = bytes;
            // Nearly all of it is zero after a crash: many at a time are compared faster.
            while let Some(rest) = front.strip_suffix(&[0; 4096]) {
                front = rest;
            }
            if let Some(last) = front.iter().rposition(|&byte| byte != 0) {
                end = position + last as u64 + 1;
            }
            position += len;
        }
        Ok(end)
    }

    /// The next intact record behind the unreadable one at `at`.
    fn next_record(&mut self, at: u64, filled: u64) -> io::Result<Option<u64>> {
        // If only the body is damaged, its length tells.
        if let Some(header) = RecordHeader::decode(self.get(at, RECORD_HEADER_LEN)?) {
            let next = at + header.record_len() as u64;
            if self.record(next)?.is_some() {
                return Ok(Some(next));
            }
        }
        let mut summed = 0;
        let mut position = at + 1;
        while position < filled && summed < SEARCH_BYTES_MAX {
            if let Some(header) = RecordHeader::decode(self.get(position, RECORD_HEADER_LEN)?) {
                if self.record(position)?.is_some() {
                    return Ok(Some(position));
                }
                summed += header.record_len() as u64;
            }
            position += 1;
        }
        Ok(None)
    }

    /// Whether a group mark from `next` on says that the place `at` had been flushed.
    fn was_flushed(&mut self, at: u64, next: Option<u64>) -> io::Result<bool> {
        let mut position = next;
        while let Some(here) = position {
            match self.record(here)? {
                Some((header, record)) => {
                    if header.kind == GROUP_MARK
                        && flushed_before(&record[RECORD_HEADER_LEN..]) > at
                    {
                        return Ok(true);
                    }
                    position = Some(here + header.record_len() as u64);
                }
                None => {
                    let filled = self.filled_end(here)?;
                    position = if filled == here {
                        None
                    } else {
                        self.next_record(here, filled)?
                    };
                }
            }
        }
        Ok(false)
    }
}
