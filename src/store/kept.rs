//! The state as of the last commit, and the lock around it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::Ticket;
use super::log::Position;
use super::log::format::{GROUP_MARK_LEN, RECORD_HEADER_LEN, RecordHeader};
use super::log::needs::Needs;
use super::log::pending::Group;
use super::record::decode;
use super::state::State;

/// The state as of the last commit, and what goes with it.
pub(crate) struct Kept {
    pub(crate) state: State,
    pub(crate) needs: Needs,
    /// The log up to here is in `state`.
    pub(crate) position: Position,
    pub(crate) ticket: Ticket,
    /// Bytes of records applied since the start.
    pub(crate) bytes: u64,
    /// A group that is committed and not applied yet, and the position behind it.
    owed: Option<(Arc<Group>, Position)>,
}

impl Kept {
    pub(crate) fn new(state: State, needs: Needs, position: Position, bytes: u64) -> Kept {
        Kept {
            state,
            needs,
            position,
            ticket: Ticket(0),
            bytes,
            owed: None,
        }
    }

    /// Applies a group that was committed; `end` is the position behind it.
    fn apply(&mut self, group: &Group, end: Position) {
        if end.segment != self.position.segment {
            self.needs.add_segment(end.segment, group.first_offset);
        }
        let mut rest = &group.bytes[GROUP_MARK_LEN..];
        while let Some(header) = RecordHeader::decode(rest) {
            let (record, behind) = rest.split_at(header.record_len());
            let body = &record[RECORD_HEADER_LEN..];
            let record = decode(header.kind, header.version, body)
                .expect("the record was encoded by this program a moment ago");
            self.state.apply(header.offset, &record, &mut self.needs);
            rest = behind;
        }
        self.position = end;
        self.ticket = group.ticket;
        self.bytes += group.payload_len();
    }

    /// Applies what is owed, and answers it.
    fn catch_up(&mut self) -> Option<Arc<Group>> {
        let (group, end) = self.owed.clone()?;
        self.apply(&group, end);
        // Not before: should that panic, it is not taken for done by the next who looks.
        self.owed = None;
        Some(group)
    }
}

/// What is kept, behind a lock. Whoever locks it finds everything in it that was committed.
pub(crate) struct KeptLock(Mutex<Kept>);

impl KeptLock {
    pub(crate) fn new(kept: Kept) -> KeptLock {
        KeptLock(Mutex::new(kept))
    }

    /// Locks it as of the last commit.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock();
        kept.catch_up();
        kept
    }

    /// Has a group that was committed applied by the next who locks this; `end` is the position
    /// behind it.
    pub(crate) fn owe(&self, group: &Arc<Group>, end: Position) {
        self.lock().owed = Some((Arc::clone(group), end));
    }

    /// Applies what is owed, and answers it if it was still to be done.
    pub(crate) fn catch_up(&self) -> Option<Arc<Group>> {
        self.0.lock().catch_up()
    }
}
