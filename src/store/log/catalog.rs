//! Which segments there are, and where in them each message is.
//!
//! The places of a segment's messages are kept while the segment is being written and while they
//! are used; for a segment that has not been read for long they are forgotten, and found again by
//! scanning it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem};

use parking_lot::{Mutex, RwLock};

use super::format::HEADER_LEN;
use super::index::Index;
use super::pending::{Group, Place};
use super::scan::scan;
use crate::store::files::File;
use crate::store::{Offset, Record};

/// Places that are kept of segments that are not being written: two or three bytes each.
const PLACES_MAX: usize = 3 << 20;

/// A segment file.
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// No message in it has a smaller offset, and none in an earlier segment a larger one.
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// Where its records end.
    pub(crate) end: AtomicU64,
    index: RwLock<Option<Index>>,
    used: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        (first, last): (u64, u64),
        base: Offset,
        path: PathBuf,
        file: Arc<dyn File>,
        end: u64,
        index: Option<Index>,
    ) -> Segment {
        Segment {
            first,
            last,
            base,
            path,
            file,
            end: AtomicU64::new(end),
            index: RwLock::new(index),
            used: AtomicU64::new(0),
        }
    }

    /// The places of `offsets`, which all belong to this segment. Says whether they had to be read from the file.
    fn places(&self, offsets: &[Offset], out: &mut Vec<Option<Place>>) -> io::Result<bool> {
        {
            let index = self.index.read();
            if let Some(index) = &*index {
                index.find(self.base, offsets, out);
                return Ok(false);
            }
        }
        let index = self.read_index()?;
        index.find(self.base, offsets, out);
        *self.index.write() = Some(index);
        Ok(true)
    }

    /// About how many messages it has; `next` is the base of the segment behind it.
    pub(crate) fn messages(&self, next: Offset) -> u64 {
        match &*self.index.read() {
            Some(index) => index.len() as u64,
            // Offsets are dense until the segment is compacted.
            None => next.0.saturating_sub(self.base.0),
        }
    }

    /// Scans the file for its messages.
    pub(crate) fn read_index(&self) -> io::Result<Index> {
        let mut index = Index::default();
        scan(&*self.file, HEADER_LEN, false, |at, header, _| {
            if header.kind == Record::MESSAGE_KIND {
                let place = Place {
                    at: at as u32,
                    len: header.record_len() as u32,
                };
                index.push(self.base, header.offset, place);
            }
        })?;
        index.end();
        Ok(index)
    }
}

/// A segment, if any is the one, and the places in it of a run of the messages that were asked for.
pub(crate) type FoundIn = (Option<Arc<Segment>>, io::Result<Vec<Option<Place>>>);

/// All segments of a log.
pub(crate) struct Catalog {
    /// In order of their numbers; so also of their bases.
    segments: RwLock<Vec<Arc<Segment>>>,
    clock: AtomicU64,
    /// Held while places are being forgotten.
    forgetting: Mutex<()>,
}

impl Catalog {
    pub(crate) fn new() -> Catalog {
        Catalog {
            segments: RwLock::new(Vec::new()),
            clock: AtomicU64::new(1),
            forgetting: Mutex::new(()),
        }
    }

    /// The log goes on in this segment.
    pub(crate) fn add(&self, segment: Arc<Segment>) {
        {
            let mut segments = self.segments.write();
            if let Some(last) = segments.last()
                && let Some(index) = &mut *last.index.write()
            {
                index.end();
            }
            segments.push(segment);
        }
        self.forget_some();
    }

    /// Puts `new`, made of the messages of the neighbours `old`, in their place.
    pub(crate) fn replace(&self, old: &[u64], new: Option<Arc<Segment>>) {
        let mut segments = self.segments.write();
        segments.retain(|segment| !old.contains(&segment.first));
        if let Some(new) = new {
            let at = segments.partition_point(|segment| segment.first < new.first);
            segments.insert(at, new);
        }
    }

    /// All segments in order.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.read().clone()
    }

    /// The segment in which the message `offset` is, if it is in any.
    pub(crate) fn segment_of(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        // A segment without messages has the base of the next one: of equal ones, the last.
        let after = segments.partition_point(|segment| segment.base <= offset);
        segments.get(after.checked_sub(1)?).cloned()
    }

    /// Whether the message `offset` is in a segment that is there. Only next to a gap in the
    /// numbers of the segments is it looked up; elsewhere the segments' bases tell.
    pub(crate) fn is_there(&self, offset: Offset) -> bool {
        let Some(segment) = self.segment_of(offset) else {
            return false;
        };
        let next = self.next(&segment);
        if next.is_some_and(|next| next.first == segment.last + 1) {
            return true;
        }
        let mut places = Vec::with_capacity(1);
        let found = segment.places(&[offset], &mut places);
        // What cannot be read now may be readable later: it is not given up here.
        found.is_err() || places.first().is_some_and(Option::is_some)
    }

    /// Finds the places of messages; they are neighbours in the answer when they were asked for
    /// so. A message that is in no segment has none.
    pub(crate) fn find(&self, offsets: &[Offset]) -> Vec<FoundIn> {
        let mut answer = Vec::new();
        let mut rest = offsets;
        while let Some(&first) = rest.first() {
            let segment = self.segment_of(first);
            let end = segment
                .as_ref()
                .map_or(Offset(u64::MAX), |segment| self.base_behind(segment));
            let low = segment.as_ref().map_or(Offset(0), |segment| segment.base);
            let run = rest
                .iter()
                .take_while(|&&offset| {
                    segment.is_some() && offset >= low && offset < end || offset == first
                })
                .count();
            let mut places = Vec::with_capacity(run);
            let result = match &segment {
                Some(segment) => {
                    segment.used.store(
                        self.clock.fetch_add(1, Ordering::Relaxed),
                        Ordering::Relaxed,
                    );
                    segment.places(&rest[..run], &mut places).map(|were_read| {
                        if were_read {
                            self.forget_some();
                        }
                    })
                }
                None => {
                    places.resize(run, None);
                    Ok(())
                }
            };
            answer.push((segment, result.map(|()| places)));
            rest = &rest[run..];
        }
        answer
    }

    /// The base of the segment behind this one.
    pub(crate) fn base_behind(&self, segment: &Segment) -> Offset {
        self.next(segment)
            .map_or(Offset(u64::MAX), |next| next.base)
    }

    fn next(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let after = segments.partition_point(|other| other.first <= segment.first);
        segments.get(after).cloned()
    }

    /// The group was written at `at` of `segment`: its messages can be found there.
    pub(crate) fn written(&self, segment: &Segment, at: u64, group: &Group) {
        let mut index = segment.index.write();
        let index = index.get_or_insert_default();
        let mut offset = group.first_offset;
        for place in &group.messages {
            if place.len > 0 {
                let place = Place {
                    at: at as u32 + place.at,
                    len: place.len,
                };
                index.push(segment.base, offset, place);
            }
            offset = offset.plus(1);
        }
        segment
            .end
            .store(at + group.bytes.len() as u64, Ordering::Release);
    }

    /// Forgets the places of the segments that were not used for longest, as far as needed.
    fn forget_some(&self) {
        let Some(_forgetting) = self.forgetting.try_lock() else {
            return;
        };
        let mut segments = self.all();
        // The last one is being written.
        segments.pop();
        let known = |segment: &Arc<Segment>| segment.index.read().as_ref().map_or(0, Index::len);
        let mut total: usize = segments.iter().map(known).sum();
        // Readers use segments meanwhile: each is asked once, or the order would contradict itself.
        segments.sort_by_cached_key(|segment| segment.used.load(Ordering::Relaxed));
        for segment in segments {
            if total <= PLACES_MAX {
                return;
            }
            let forgotten = mem::take(&mut *segment.index.write());
            total -= forgotten.as_ref().map_or(0, Index::len);
        }
    }
}
