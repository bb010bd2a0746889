//! What was appended and is not yet in a segment file: one buffer that fills while the committer
//! writes the one before it.
//!
//! Records are encoded and summed by the appending thread before the lock is taken; under it they
//! get their offsets and are copied.

use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::format::{
    GROUP_MARK_LEN, RECORD_HEADER_LEN, RecordHeader, group_mark, seal_body, seal_offset,
};
use crate::store::record::encode;
use crate::store::{Appended, Offset, Record, StoreError, Ticket};

/// A record may be this large: its length and place in a segment fit 32 bits.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// Buffers above this size are given back after use.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// Where a message's record is, in a group or a segment. In a group, one of length 0 was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: u32,
    /// Of the record, header and body.
    pub(crate) len: u32,
}

/// Records that are written together.
#[derive(Default)]
pub(crate) struct Group {
    /// Begins with room for the group mark.
    pub(crate) bytes: Vec<u8>,
    /// Places of its messages, in order of their offsets.
    pub(crate) messages: Vec<Place>,
    pub(crate) first_offset: Offset,
    pub(crate) ticket: Ticket,
    pub(crate) records: u64,
    /// Bytes that were appended, those that were taken back among them.
    pub(crate) appended: u64,
    /// Messages that were taken back; their records are still in `bytes`.
    withdrawn: u64,
}

impl Group {
    fn start(&mut self, first_offset: Offset) {
        self.bytes.clear();
        self.bytes.resize(GROUP_MARK_LEN, 0);
        self.messages.clear();
        self.first_offset = first_offset;
        self.records = 0;
        self.appended = 0;
        self.withdrawn = 0;
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of its records, without the group mark.
    pub(crate) fn payload_len(&self) -> u64 {
        (self.bytes.len() - GROUP_MARK_LEN) as u64
    }

    fn place(&mut self, offset: Offset) -> Option<&mut Place> {
        let at = usize::try_from(offset.0.checked_sub(self.first_offset.0)?).ok()?;
        self.messages.get_mut(at)
    }

    /// Whether messages of it were taken back.
    pub(crate) fn has_gaps(&self) -> bool {
        self.withdrawn > 0
    }

    /// Writes its group mark: `flushed` bytes of its segment are flushed.
    pub(crate) fn set_mark(&mut self, flushed: u64) {
        let mark = group_mark(flushed, self.first_offset);
        self.bytes[..GROUP_MARK_LEN].copy_from_slice(&mark);
    }

    /// The same group without what was taken back; it still needs its mark.
    pub(crate) fn without_gaps(&self) -> Group {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.resize(GROUP_MARK_LEN, 0);
        let mut group = Group {
            bytes,
            messages: self.messages.clone(),
            withdrawn: 0,
            ..*self
        };
        let mut places = group.messages.iter_mut();
        let mut rest = &self.bytes[GROUP_MARK_LEN..];
        while let Some(header) = RecordHeader::decode(rest) {
            let (record, behind) = rest.split_at(header.record_len());
            rest = behind;
            if header.kind == Record::MESSAGE_KIND {
                let place = places.next().expect("each message has a place");
                if place.len == 0 {
                    continue;
                }
                place.at = group.bytes.len() as u32;
            }
            group.bytes.extend_from_slice(record);
        }
        group
    }

    fn message(&self, offset: Offset) -> Option<Bytes> {
        let at = usize::try_from(offset.0.checked_sub(self.first_offset.0)?).ok()?;
        let place = self.messages.get(at).filter(|place| place.len > 0)?;
        let start = place.at as usize;
        Some(Bytes::copy_from_slice(
            &self.bytes[start..start + place.len as usize],
        ))
    }
}

pub(crate) struct Pending {
    state: Mutex<Filling>,
    /// Signalled when there is something to write, or the log is being closed.
    filled: Condvar,
    /// The last ticket that was given: a copy that is read without the lock.
    ticket: AtomicU64,
}

struct Filling {
    group: Group,
    /// What the committer is writing, until it can be read from its segment.
    writing: Option<Arc<Group>>,
    spare: Option<Group>,
    next_offset: Offset,
    ticket: u64,
    /// The last one that was taken to be written.
    taken: Ticket,
    /// Somebody waits for the group.
    urgent: bool,
    /// Since when the group has something that nobody waits for.
    idle_since: Option<Instant>,
    patience: Patience,
    closed: bool,
    /// The committer is to wake up although there may be nothing to write.
    nudged: bool,
    waits: Waits,
}

/// What the committer waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Nothing,
    Anything,
    /// Something urgent, or the end of its patience.
    Urgent,
}

/// How long what nobody waits for may stay unwritten. Long enough for receivers that are there to
/// acknowledge messages, so that they need not be written.
const IDLE_MAX: Duration = Duration::from_millis(2);

/// Whether it pays to wait for messages to be taken back. Where receivers are slow it does not, and
/// their publishers should not wait longer for it.
#[derive(Default)]
struct Patience {
    /// Groups that are taken at once before it is tried again.
    none_for: u32,
}

impl Patience {
    /// Groups taken at once after one of which too little was taken back.
    const PAUSE: u32 = 64;

    fn learn(&mut self, group: &Group) {
        if self.none_for > 0 {
            self.none_for -= 1;
        } else if group.withdrawn * 2 < group.messages.len() as u64 {
            self.none_for = Patience::PAUSE;
        }
    }
}

#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// Start of each record, and whether it is a message.
    records: Vec<(usize, bool)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Pending {
    pub(crate) fn new(next_offset: Offset) -> Pending {
        let mut group = Group::default();
        group.start(next_offset);
        Pending {
            state: Mutex::new(Filling {
                group,
                writing: None,
                spare: None,
                next_offset,
                ticket: 0,
                taken: Ticket(0),
                urgent: false,
                idle_since: None,
                patience: Patience::default(),
                closed: false,
                nudged: false,
                waits: Waits::Nothing,
            }),
            filled: Condvar::new(),
            ticket: AtomicU64::new(0),
        }
    }

    /// Adds `records`; also returns how many bytes they take. `None` after the close. `urgent` says
    /// whether somebody waits for them.
    pub(crate) fn append(
        &self,
        records: &[Record<'_>],
        urgent: bool,
    ) -> Result<Option<(Appended, u64)>, StoreError> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.encode(records)?;
            let mut state = self.state.lock();
            if state.closed {
                return Ok(None);
            }
            let state = &mut *state;
            let group = &mut state.group;
            let start = group.bytes.len();
            if start + scratch.bytes.len() > RECORD_BYTES_MAX * 2 {
                return Err(StoreError::TooLarge {
                    what: "what waits to be written",
                    bytes: start + scratch.bytes.len(),
                    bytes_max: RECORD_BYTES_MAX * 2,
                });
            }
            let first_offset = state.next_offset;
            if scratch.records.is_empty() {
                // As safe as what came before it.
                let ticket = Ticket(state.ticket);
                let appended = Appended {
                    ticket,
                    first_offset,
                };
                return Ok(Some((appended, 0)));
            }
            for (i, &(at, is_message)) in scratch.records.iter().enumerate() {
                seal_offset(&mut scratch.bytes[at..], state.next_offset);
                if is_message {
                    let end = scratch
                        .records
                        .get(i + 1)
                        .map_or(scratch.bytes.len(), |next| next.0);
                    group.messages.push(Place {
                        at: (start + at) as u32,
                        len: (end - at) as u32,
                    });
                    state.next_offset = state.next_offset.plus(1);
                }
            }
            group.bytes.extend_from_slice(&scratch.bytes);
            group.records += scratch.records.len() as u64;
            group.appended += scratch.bytes.len() as u64;
            state.ticket += 1;
            let ticket = Ticket(state.ticket);
            group.ticket = ticket;
            // Under the lock: whoever reads it and then appends gets a larger one.
            self.ticket.store(state.ticket, Ordering::Release);
            state.urgent |= urgent;
            if !state.urgent && state.idle_since.is_none() {
                state.idle_since = Some(Instant::now());
            }
            if state.waits == Waits::Anything || (urgent && state.waits == Waits::Urgent) {
                state.waits = Waits::Nothing;
                self.filled.notify_one();
            }
            Ok(Some((
                Appended {
                    ticket,
                    first_offset,
                },
                scratch.bytes.len() as u64,
            )))
        })
    }

    /// The ticket of the last append that there was.
    pub(crate) fn appended(&self) -> Ticket {
        Ticket(self.ticket.load(Ordering::Acquire))
    }

    /// Takes messages back; says of each whether it was still waiting to be written.
    pub(crate) fn withdraw(&self, offsets: &[Offset]) -> Vec<bool> {
        let mut state = self.state.lock();
        let group = &mut state.group;
        let mut taken = Vec::with_capacity(offsets.len());
        for &offset in offsets {
            let place = group.place(offset).filter(|place| place.len > 0);
            taken.push(place.is_some());
            if let Some(place) = place {
                place.len = 0;
                group.withdrawn += 1;
                group.records -= 1;
            }
        }
        taken
    }

    /// Waits until there is something to write, `until`, or the close. `flushed` says for the
    /// length of a group how much of the segment it will be written to is flushed.
    pub(crate) fn take(&self, until: Option<Instant>, flushed: impl FnOnce(usize) -> u64) -> Taken {
        let mut state = self.state.lock();
        while !state.closed && !state.nudged {
            let patient_until = state.patient_until();
            state.waits = match (state.has_nothing(), patient_until) {
                (true, _) => Waits::Anything,
                (false, Some(_)) => Waits::Urgent,
                (false, None) => break,
            };
            let wake_at = match (until, patient_until) {
                (Some(until), Some(patient)) => Some(until.min(patient)),
                (until, patient) => until.or(patient),
            };
            match wake_at {
                None => self.filled.wait(&mut state),
                Some(at) => {
                    if self.filled.wait_until(&mut state, at).timed_out() {
                        break;
                    }
                }
            }
        }
        state.waits = Waits::Nothing;
        state.nudged = false;
        if state.has_nothing() {
            return if state.closed {
                Taken::Closed
            } else {
                Taken::Nothing
            };
        }
        let mut next = state.spare.take().unwrap_or_default();
        next.start(state.next_offset);
        next.ticket = state.group.ticket;
        state.taken = state.group.ticket;
        let mut group = mem::replace(&mut state.group, next);
        if !mem::take(&mut state.urgent) {
            state.patience.learn(&group);
        }
        state.idle_since = None;
        group.set_mark(flushed(group.bytes.len()));
        let group = Arc::new(group);
        state.writing = Some(Arc::clone(&group));
        Taken::Group(group)
    }

    /// Waits until there is something to write, `until`, or the close; takes nothing.
    pub(crate) fn wait(&self, until: Instant) {
        let mut state = self.state.lock();
        while state.has_nothing() && !state.closed && !state.nudged {
            state.waits = Waits::Anything;
            if self.filled.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.waits = Waits::Nothing;
    }

    /// The group is in its segment: readers find it there from now on.
    pub(crate) fn written(&self) {
        self.state.lock().writing = None;
    }

    /// Gives a group's buffer back, unless somebody still looks at it, who may give it back then.
    pub(crate) fn reuse(&self, group: Arc<Group>) {
        if let Some(group) = Arc::into_inner(group)
            && group.bytes.capacity() <= SPARE_BYTES_MAX
        {
            self.state.lock().spare = Some(group);
        }
    }

    /// The record of a message that is not yet in a segment.
    pub(crate) fn message(&self, offset: Offset) -> Option<Bytes> {
        let state = self.state.lock();
        if let Some(found) = state.group.message(offset) {
            return Some(found);
        }
        let writing = state.writing.clone();
        drop(state);
        writing?.message(offset)
    }

    /// The first offset that [`Pending::message`] may have.
    pub(crate) fn first_offset(&self) -> Offset {
        let state = self.state.lock();
        state
            .writing
            .as_ref()
            .map_or(state.group.first_offset, |group| group.first_offset)
    }

    /// Makes [`Pending::take`] return.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.filled.notify_one();
    }

    /// Takes no more appends; what is there is still handed out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }
}

impl Filling {
    /// Whether there is nothing to write but what was taken.
    fn has_nothing(&self) -> bool {
        self.group.ticket == self.taken
    }

    /// Until when the group need not be taken; none if it is to be taken now, or is empty.
    fn patient_until(&self) -> Option<Instant> {
        let idle_since = self.idle_since.filter(|_| !self.urgent)?;
        (self.patience.none_for == 0).then(|| idle_since + IDLE_MAX)
    }
}

/// The answer of [`Pending::take`].
pub(crate) enum Taken {
    Group(Arc<Group>),
    Nothing,
    /// There is nothing left and there will be nothing.
    Closed,
}

impl Scratch {
    fn encode(&mut self, records: &[Record<'_>]) -> Result<(), StoreError> {
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.records.clear();
        for record in records {
            record.check()?;
            let start = self.bytes.len();
            self.bytes.resize(start + RECORD_HEADER_LEN, 0);
            encode(record, &mut self.bytes);
            let len = self.bytes.len() - start;
            if len > RECORD_BYTES_MAX || self.bytes.len() > 2 * RECORD_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "a record",
                    bytes: len,
                    bytes_max: RECORD_BYTES_MAX,
                });
            }
            let (kind, version) = record.kind_and_version();
            seal_body(&mut self.bytes[start..], kind, version);
            self.records
                .push((start, matches!(record, Record::Message(_))));
        }
        Ok(())
    }
}
