//! Reading queued messages back from the store: for a session whose turn they are, and for those
//! who take over what a session leaves.
//!
//! The only part of the core that may wait for the disk; nothing is locked while it does.

use std::sync::Arc;

use super::Broker;
use super::deliver::pump;
use super::message::Message;
use super::outgoing::{Body, Slot, Through};
use super::session::{Closing, Session};
use super::stats::{Drop, Stats};
use crate::store::{Offset, StoreError};

impl Broker {
    /// Reads back the next messages for a session, and has its connection go on. To be called once
    /// for each [`Waiting::page`](super::link::Waiting::page), on a thread that may wait for the
    /// disk.
    pub fn load_page(&self, session: &Arc<Session>, epoch: u64) {
        let places = session.lock().outgoing.places_for_page();
        let found = places.map(|places| (self.look_up(session, &places), places));
        let (page, reading) = {
            let mut state = session.lock();
            if let Some((found, places)) = &found {
                self.take_places(session, &mut state, places, found);
            }
            let is_current = state.epoch == epoch;
            let reading = is_current.then(|| state.take_reading()).flatten();
            (state.outgoing.page(), reading)
        };
        let read_on = reading.map(|reading| self.read_page(reading));
        let offsets: Vec<Offset> = page.iter().map(|&(_, offset)| offset).collect();
        let read = self.store.read(&offsets);
        let mut batch = self.batch();
        let mut cx = batch.context();
        let mut state = session.lock();
        state.loading = false;
        if state.epoch != epoch {
            // Whoever has the session now asks for itself.
            if let Some(link) = &mut state.link {
                link.stalled = true;
            }
            return session.after_delivery(&mut state, &mut cx);
        }
        let before = state.outgoing.weight();
        for ((sequence, offset), read) in page.into_iter().zip(read) {
            let given_up = match read {
                Ok(stored) if session.may_receive(stored.topic()) => {
                    let message = Arc::new(Message::from_stored(&stored));
                    state.outgoing.loaded(sequence, message);
                    continue;
                }
                Ok(_) => Drop::ReceiveDenied,
                Err(error) if is_lost(&error) => {
                    let client = session.client_id();
                    tracing::error!(%client, %offset, %error, "a queued message is lost");
                    Drop::Damaged
                }
                Err(error) => {
                    // It may be there another time: the queue stays as it is.
                    let client = session.client_id();
                    tracing::error!(%client, %error, "queued messages cannot be read");
                    if let Some(link) = &mut state.link {
                        cx.wakers.extend(link.close(Closing::StoreFailed));
                    }
                    break;
                }
            };
            if state.outgoing.give_up(sequence) {
                cx.tally.dropped(given_up, 1);
            }
        }
        cx.tally.queue_changed(before, state.outgoing.weight());
        if let Some(read) = read_on {
            self.take_in_page(session, &mut state, read, &mut cx);
        }
        pump(&mut state, &mut cx);
        if let Some(link) = &mut state.link {
            // There may be another page to ask for.
            link.stalled = true;
        }
        session.after_delivery(&mut state, &mut cx);
    }

    /// The messages of slots that were taken out of a queue, to be passed on, and what they came
    /// through; those that cannot be read back are counted and left out. `kept` says whether the
    /// store has the queue still, and with it all that it had of it.
    pub(super) fn read_back(
        &self,
        slots: Vec<Slot>,
        kept: bool,
        stats: &Stats,
    ) -> Vec<(Arc<Message>, Option<Arc<Through>>)> {
        let offsets: Vec<Offset> = slots
            .iter()
            .filter_map(|slot| match slot.body {
                Body::Stored { offset, .. } => Some(offset),
                Body::Held(_) | Body::None => None,
            })
            .collect();
        let mut read = if offsets.is_empty() {
            Vec::new()
        } else {
            self.store.read(&offsets)
        }
        .into_iter();
        let mut messages = Vec::with_capacity(slots.len());
        for slot in slots {
            match slot.body {
                // Others have the same message, and may be done with it: then the log is too.
                Body::Held(message) => {
                    messages.push((Arc::new(message.passed_on(kept)), slot.through));
                }
                Body::Stored { offset, .. } => match read.next() {
                    Some(Ok(stored)) => {
                        messages.push((Arc::new(Message::from_stored(&stored)), slot.through));
                    }
                    Some(Err(error)) => {
                        tracing::error!(%offset, %error, "a queued message is lost");
                        stats.dropped(Drop::Damaged, 1);
                    }
                    None => {}
                },
                Body::None => {}
            }
        }
        messages
    }
}

/// Whether a message will not be there another time either.
fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Gone(_) | StoreError::Damaged(_))
}
