//! Taking in what is next: from memory on the task of the connection, from the disk on a thread that
//! may wait for it.

use std::sync::Arc;
use std::task::Waker;

use super::gap::tell;
use super::keep::Queued;
use super::{Reading, Start};
use crate::broker::Broker;
use crate::broker::deliver::{COMPLETE_BEHIND_MAX, Context, pump};
use crate::broker::feed::{Event, Next, Reader};
use crate::broker::outgoing::{Body, PAGE_BYTES, PAGE_MESSAGES, Slot};
use crate::broker::session::{Closing, Session, State};
use crate::broker::subscribe::terms;

/// Messages and bytes that wait in the queue at which nothing more is taken in.
const AHEAD_MESSAGES: usize = 256;
const AHEAD_BYTES: usize = PAGE_BYTES / 2;

/// How much may be taken in.
#[derive(Clone, Copy)]
struct Room {
    messages: usize,
    bytes: usize,
}

/// What one step came to.
enum Pulled {
    Nothing,
    /// Perhaps some events; there may be more.
    Events,
    /// What is next is on the disk.
    Page,
    Failed,
}

/// What was read from the disk for a reading.
pub(in crate::broker) struct PageRead {
    reading: Reading,
    events: Vec<Arc<Event>>,
}

impl Broker {
    /// Takes in what the session's readings have next, as far as there is room, and has `waker` woken
    /// for more. Called when its connection has written what there was; true if there may be something
    /// to collect.
    pub fn pull(&self, session: &Arc<Session>, epoch: u64, waker: &Waker) -> bool {
        let mut batch = self.batch();
        let mut state = session.lock();
        if state.epoch != epoch || state.loading {
            return false;
        }
        let mut cx = batch.context();
        let mut any = false;
        // Each has its turn, so that a long history of one does not keep another waiting.
        for _ in 0..state.readings.len() {
            let Some(room) = self.room(&state) else {
                break;
            };
            state.readings.rotate_left(1);
            let Some(reading) = state.readings.back_mut() else {
                break;
            };
            let mut events = Vec::new();
            match self.pull_one(reading, room, waker, &mut events) {
                Pulled::Nothing => continue,
                Pulled::Page => {}
                Pulled::Events => {
                    let last = state.readings.len() - 1;
                    self.take_in(session, &mut state, last, events, &mut cx);
                }
                Pulled::Failed => {
                    if let Some(link) = &mut state.link {
                        link.close(Closing::StoreFailed);
                    }
                }
            }
            any = true;
        }
        session.refresh_readiness(&state);
        any
    }

    fn pull_one(
        &self,
        reading: &mut Reading,
        room: Room,
        waker: &Waker,
        events: &mut Vec<Arc<Event>>,
    ) -> Pulled {
        if reading.is_stranded {
            return Pulled::Nothing;
        }
        if reading.reader.is_none() {
            if matches!(reading.place, Start::Since(_)) {
                reading.wants_page = true;
            } else if !self.begin_reading(reading) {
                return Pulled::Nothing;
            }
        }
        while let Some(reader) = &mut reading.reader {
            reader.take_at_most(room.messages, room.bytes);
            match self.read_events(reader, waker, room.bytes, events) {
                Next::Events => return Pulled::Events,
                Next::Gap(gap) => reading.missed(gap, self),
                Next::Waiting => return Pulled::Nothing,
                Next::Failed => return Pulled::Failed,
                Next::Page => {
                    reading.wants_page = true;
                    break;
                }
            }
        }
        Pulled::Page
    }

    /// How much the session can take now. None if it has to send something first.
    fn room(&self, state: &State) -> Option<Room> {
        let link = state.link.as_ref()?;
        let queue = &state.outgoing;
        let limits = &self.limits;
        let full = !queue.waits_less_than(AHEAD_MESSAGES, AHEAD_BYTES)
            || queue.span() >= queue.len() + COMPLETE_BEHIND_MAX;
        if link.closing.is_some() || full {
            return None;
        }
        // An empty queue takes one message, whatever the limits: otherwise it would wait for ever.
        let is_empty = queue.is_empty();
        let memory_is_full = self.stats.held_bytes.get() > limits.memory_queue_bytes_max;
        let messages = match memory_is_full {
            true => 0,
            false => limits.queue_messages_max.saturating_sub(queue.len()),
        };
        let bytes = usize::try_from(limits.queue_bytes_max).unwrap_or(usize::MAX);
        let bytes = bytes.saturating_sub(queue.bytes());
        if messages == 0 || bytes == 0 {
            return is_empty.then_some(Room {
                messages: 1,
                bytes: 1,
            });
        }
        Some(Room {
            messages: messages.min(PAGE_MESSAGES),
            bytes: bytes.min(PAGE_BYTES),
        })
    }

    /// Reads back what a reading wants, without a lock. The reading is the session's again with
    /// [`Broker::take_in_page`].
    pub(in crate::broker) fn read_page(&self, mut reading: Reading) -> PageRead {
        let mut events = Vec::new();
        if reading.reader.is_none() {
            self.begin_reading(&mut reading);
        }
        if let Some(reader) = &mut reading.reader {
            self.load_events(reader, &mut events);
        }
        PageRead { reading, events }
    }

    /// Takes in what was read back.
    pub(in crate::broker) fn take_in_page(
        &self,
        session: &Session,
        state: &mut State,
        page: PageRead,
        cx: &mut Context<'_>,
    ) {
        let PageRead { reading, events } = page;
        let same = |it: &Reading| Arc::ptr_eq(&it.written, &reading.written);
        if let Some(at) = state.readings.iter().position(same) {
            state.readings[at] = reading;
            self.take_in(session, state, at, events, cx);
        }
    }

    /// Queues what a reading has read, and keeps how far that is.
    fn take_in(
        &self,
        session: &Session,
        state: &mut State,
        at: usize,
        events: Vec<Arc<Event>>,
        cx: &mut Context<'_>,
    ) {
        let reading = &mut state.readings[at];
        let Some(&held) = state.subscriptions.get(&*reading.written) else {
            return;
        };
        let through = terms(held, None).through;
        let before = state.outgoing.weight();
        let mut queued = Vec::with_capacity(events.len());
        for event in events {
            if let Some(gap) = event.gap() {
                reading.missed(gap, self);
            }
            let message = &event.message;
            let is_own = message.publisher == session.number();
            if held.options.no_local && is_own || !session.may_receive(message.topic()) {
                continue;
            }
            let qos = message.qos.min(held.options.qos);
            let retain = message.retain && held.options.retain_as_published;
            let link = state.link.as_deref();
            let told = reading
                .gap
                .take()
                .and_then(|gap| tell(message, gap, self.log_epoch(), link));
            let message = match told {
                Some(told) => told,
                // It waits for the store on its own account, and so is another message.
                None if state.kept => Arc::new(message.passed_on(true)),
                None => Arc::clone(message),
            };
            let slot = Slot {
                is_replayed: true,
                ..Slot::waiting(
                    Body::Held(Arc::clone(&message)),
                    through.clone(),
                    qos,
                    retain,
                )
            };
            queued.push(Queued {
                sequence: state.outgoing.push(slot),
                message,
                at_ms: event.at_ms,
                qos,
                retain,
            });
        }
        cx.tally.queue_changed(before, state.outgoing.weight());
        if reading.gap.is_none()
            && let Some(cursor) = reading.reader.as_deref().map(Reader::cursor)
        {
            reading.place = self.place_behind(cursor);
        }
        if state.kept {
            self.keep_read(session, state, at, &queued, through.as_ref());
        }
        pump(state, cx);
    }
}

impl State {
    /// Takes out a reading that is to be read from the disk, and leaves its place.
    pub(in crate::broker) fn take_reading(&mut self) -> Option<Reading> {
        let reading = self.readings.iter_mut().find(|it| it.wants_page)?;
        let left = Reading {
            written: Arc::clone(&reading.written),
            ..Reading::new("", reading.place)
        };
        let mut taken = std::mem::replace(reading, left);
        taken.wants_page = false;
        Some(taken)
    }
}
