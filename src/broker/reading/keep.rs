//! Keeping what a reading has queued together with the place that it has reached.

use std::sync::Arc;

use super::Start;
use crate::broker::Broker;
use crate::broker::journal::{session_record, subscribe_record, target};
use crate::broker::message::Message;
use crate::broker::outgoing::Through;
use crate::broker::session::{Held, Session, State};
use crate::store::{self, Appended, List, Offset, Record, StoreError, Target, Ticket};
use tidings_protocol::mqtt::QoS;

/// How far the place of a reading that finds nothing for its client may be ahead of the one that is
/// kept: after a crash so much is gone through again.
const UNKEPT_MAX: u64 = 4096;

/// A message that was queued.
pub(super) struct Queued {
    pub sequence: u64,
    pub message: Arc<Message>,
    /// When it was published, in Unix milliseconds.
    pub at_ms: u64,
    pub qos: QoS,
    pub retain: bool,
}

impl Queued {
    /// Whether the store has an entry for it. Of QoS 0 it has none, or a crash would have it sent
    /// twice.
    fn is_entry(&self) -> bool {
        self.qos != QoS::AtMostOnce
    }
}

impl Broker {
    /// Keeps a subscription of this kind, with the place at which it begins.
    pub(super) fn keep_reading(
        &self,
        session: &Session,
        state: &mut State,
        written: &str,
        held: Held,
    ) -> Ticket {
        let number = session.number();
        let extra = state.extra().encode();
        self.keep(&[
            subscribe_record(number, written, held, 0),
            session_record(session, state, &extra),
        ])
    }

    /// Keeps what the reading at `at` has queued and how far it is, in one append.
    pub(super) fn keep_read(
        &self,
        session: &Session,
        state: &mut State,
        at: usize,
        queued: &[Queued],
        through: Option<&Arc<Through>>,
    ) {
        let reading = &mut state.readings[at];
        let reached = match reading.place {
            Start::After(cursor) => cursor.offset.0,
            Start::Since(_) | Start::Earliest | Start::Latest => 0,
        };
        let is_far = reached.abs_diff(reading.kept_to) >= UNKEPT_MAX;
        if queued.is_empty() && !is_far {
            return;
        }
        reading.kept_to = reached;
        let extra = state.extra().encode();
        let put = session_record(session, state, &extra);
        let append = |floor: Offset| self.append_read(session, queued, through, floor, put);
        let appended = match &state.readings[at].reader {
            // What the stream gives up meanwhile it gives up behind these records.
            Some(reader) => reader.while_kept(append),
            None => append(Offset(u64::MAX)),
        };
        let ticket = match appended {
            Ok(appended) => appended.ticket,
            Err(error) => {
                tracing::error!(%error, "what was replayed could not be kept");
                Broker::NEVER_KEPT
            }
        };
        for it in queued {
            it.message.hold_until(ticket);
        }
    }

    /// `floor` is the offset up to which the stream has given up what it had: the log may have lost
    /// that, so it is written again.
    fn append_read(
        &self,
        session: &Session,
        queued: &[Queued],
        through: Option<&Arc<Through>>,
        floor: Offset,
        put: Record<'_>,
    ) -> Result<Appended, StoreError> {
        let entries = || queued.iter().filter(|it| it.is_entry());
        let targets: Vec<Target<'_>> = entries()
            .map(|it| target(session.number(), it.sequence, it.qos, it.retain, through))
            .collect();
        let mut records = Vec::with_capacity(targets.len() + 1);
        let mut again = Vec::new();
        for (it, target) in entries().zip(&targets) {
            it.message.owe(1);
            let message = &it.message;
            match message.offset().filter(|&offset| offset > floor) {
                Some(offset) => records.push(Record::Enqueue {
                    offset,
                    size: u32::try_from(message.content_len()).unwrap_or(u32::MAX),
                    target: *target,
                }),
                None => {
                    again.push(message);
                    records.push(Record::Message(store::Message {
                        topic: message.topic(),
                        properties: message.properties().as_bytes(),
                        payload: message.payload(),
                        qos: message.qos.as_u8(),
                        retain: message.retain,
                        published_ms: it.at_ms,
                        expires_ms: message.expires_at.map(|at| at.0),
                        publisher: message.publisher,
                        retained: store::Retained::Unchanged,
                        inbound: None,
                        targets: List::from(std::slice::from_ref(target)),
                    }));
                }
            }
        }
        records.push(put);
        let appended = self.store.append(&records)?;
        for (place, message) in again.into_iter().enumerate() {
            let offset = appended.first_offset.plus(place as u64);
            message.set_kept(offset, appended.ticket);
        }
        Ok(appended)
    }
}
