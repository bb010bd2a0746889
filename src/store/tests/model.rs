//! A naive model of what the records add up to, written without a look at `state`.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{EntryState, Offset, Record, Recovered, Retained, SessionRecord, Target, Will};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) sessions: BTreeMap<u64, ModelSession>,
    /// Topic to offset, QoS and expiry.
    pub(super) retained: BTreeMap<String, (u64, u8, Option<u64>)>,
    /// Key to value and expiry.
    pub(super) documents: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    pub(super) clock_ms: u64,
    pub(super) messages: u64,
    pub(super) next_session: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ModelSession {
    pub(super) record: SessionRecord,
    pub(super) subscriptions: BTreeMap<String, (u8, Option<u32>)>,
    pub(super) queue: BTreeMap<u64, ModelEntry>,
    pub(super) next_seq: u64,
    pub(super) inbound: BTreeSet<u16>,
    pub(super) will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelEntry {
    /// `None` once it is released.
    pub(super) offset: Option<u64>,
    pub(super) size: u32,
    pub(super) qos: u8,
    pub(super) flags: u8,
    pub(super) subscription_ids: Vec<u32>,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            next_session: 1,
            ..Model::default()
        }
    }

    /// The first message has offset 1.
    pub(super) fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::Message(message) => {
                self.messages += 1;
                self.clock_ms = self.clock_ms.max(message.published_ms);
                let offset = self.messages;
                let size = message.topic.len() + message.properties.len() + message.payload.len();
                for target in message.targets.iter() {
                    self.enqueue(offset, size as u32, &target);
                }
                match message.retained {
                    Retained::Unchanged => {}
                    Retained::Set => {
                        let entry = (offset, message.qos, message.expires_ms);
                        self.retained.insert(message.topic.to_owned(), entry);
                    }
                    Retained::Cleared => {
                        self.retained.remove(message.topic);
                    }
                }
                if let Some((session, packet_id)) = message.inbound
                    && let Some(it) = self.sessions.get_mut(&session)
                {
                    it.inbound.insert(packet_id);
                }
            }
            Record::Enqueue {
                offset,
                size,
                target,
            } => self.enqueue(offset.0, size, &target),
            Record::SessionPut { session, record } => {
                self.next_session = self.next_session.max(session + 1);
                let times = [Some(record.connected_ms), record.disconnected_ms];
                self.clock_ms = times.into_iter().flatten().fold(self.clock_ms, u64::max);
                self.sessions.entry(session).or_default().record = record.into();
            }
            Record::SessionRemove { session } => {
                self.sessions.remove(&session);
            }
            Record::RetainedClear { topic } => {
                self.retained.remove(topic);
            }
            Record::Clock { now_ms } => self.clock_ms = self.clock_ms.max(now_ms),
            Record::DocumentPut {
                key,
                value,
                expires_ms,
            } => {
                let document = (value.to_vec(), expires_ms);
                self.documents.insert(key.to_owned(), document);
            }
            Record::DocumentRemove { key } => {
                self.documents.remove(key);
            }
            Record::Done { session, ranges } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    for range in ranges.iter() {
                        it.queue
                            .retain(|&seq, _| seq < range.first || seq > range.last);
                    }
                }
            }
            Record::Released { session, seqs } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    for seq in seqs.iter() {
                        if let Some(entry) = it.queue.get_mut(&seq) {
                            entry.offset = None;
                            entry.subscription_ids.clear();
                        }
                    }
                }
            }
            Record::InboundReleased {
                session,
                packet_ids,
            } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    packet_ids.iter().for_each(|id| {
                        it.inbound.remove(&id);
                    });
                }
            }
            Record::Subscribe {
                session,
                filter,
                options,
                subscription_id,
            } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    it.subscriptions
                        .insert(filter.to_owned(), (options, subscription_id));
                }
            }
            Record::Unsubscribe { session, filter } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    it.subscriptions.remove(filter);
                }
            }
            Record::WillPut { session, will } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    it.will = Some(will.into());
                }
            }
            Record::WillRemove { session } => {
                if let Some(it) = self.sessions.get_mut(&session) {
                    it.will = None;
                }
            }
        }
    }

    /// What is found of it when the store is opened again.
    pub(super) fn reopened(&self) -> Model {
        let mut model = self.clone();
        model
            .documents
            .retain(|_, (_, expires_ms)| expires_ms.is_none_or(|at| at > self.clock_ms));
        model
    }

    fn enqueue(&mut self, offset: u64, size: u32, target: &Target<'_>) {
        if let Some(it) = self.sessions.get_mut(&target.session) {
            let entry = ModelEntry {
                offset: Some(offset),
                size,
                qos: target.qos,
                flags: target.flags,
                subscription_ids: target.subscription_ids.iter().collect(),
            };
            it.queue.insert(target.seq, entry);
            it.next_seq = it.next_seq.max(target.seq + 1);
        }
    }

    /// What a store recovered, in the terms of the model.
    pub(super) fn of(recovered: &Recovered) -> Model {
        let mut model = Model {
            messages: recovered.next_offset.0 - 1,
            next_session: recovered.next_session,
            clock_ms: recovered.clock_ms,
            ..Model::default()
        };
        for it in &recovered.sessions {
            let mut session = ModelSession {
                record: it.record.clone(),
                next_seq: it.next_seq,
                inbound: it.inbound.iter().copied().collect(),
                will: it.will.clone(),
                ..ModelSession::default()
            };
            for subscription in &it.subscriptions {
                let value = (subscription.options, subscription.subscription_id);
                session
                    .subscriptions
                    .insert(subscription.filter.to_string(), value);
            }
            for entry in &it.queue.entries {
                let queued = entry.state == EntryState::Queued;
                let value = ModelEntry {
                    offset: queued.then_some(entry.offset.0),
                    size: entry.size,
                    qos: entry.qos,
                    flags: entry.flags,
                    subscription_ids: it.queue.subscription_ids_of(entry.seq).to_vec(),
                };
                session.queue.insert(entry.seq, value);
            }
            model.sessions.insert(it.number, session);
        }
        for it in &recovered.documents {
            let document = (it.value.to_vec(), it.expires_ms);
            model.documents.insert(it.key.to_string(), document);
        }
        for it in &recovered.retained {
            model
                .retained
                .insert(it.topic.to_string(), (it.offset.0, it.qos, it.expires_ms));
        }
        model
    }

    /// Every message that something needs.
    pub(super) fn needed(&self) -> Vec<Offset> {
        let queued = self
            .sessions
            .values()
            .flat_map(|it| it.queue.values().filter_map(|entry| entry.offset));
        let retained = self.retained.values().map(|it| it.0);
        let all: BTreeSet<u64> = queued.chain(retained).collect();
        all.into_iter().map(Offset).collect()
    }
}
