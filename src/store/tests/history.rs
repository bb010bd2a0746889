//! Random histories: records as a broker could append them.

use super::model::Model;
use crate::store::files::sim::Rng;
use crate::store::record::{decode, encode};
use crate::store::{
    DOCUMENT_KEY_MAX, DOCUMENT_VALUE_MAX, List, Message, Offset, Record, Retained, SeqRange,
    SessionView, Target, WillView,
};

/// A record that owns its bytes.
pub(super) struct Owned {
    kind: (u8, u8),
    body: Vec<u8>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Owned {
        let mut body = Vec::new();
        encode(record, &mut body);
        Owned {
            kind: record.kind_and_version(),
            body,
        }
    }

    pub(super) fn get(&self) -> Record<'_> {
        decode(self.kind.0, self.kind.1, &self.body).expect("what was encoded can be decoded")
    }
}

/// Invents records that fit to what happened before.
pub(super) struct History {
    rng: Rng,
    /// Payloads up to this size, now and then.
    large: usize,
    pub(super) model: Model,
    pub(super) records: Vec<Owned>,
    /// Payload length and first byte by offset - 1.
    pub(super) payloads: Vec<(usize, u8)>,
    next_seq: std::collections::BTreeMap<u64, u64>,
}

const TOPICS: [&str; 4] = ["a", "a/b", "sensors/kitchen/temperature", "x/y/z"];

impl History {
    pub(super) fn new(seed: u64, large: usize) -> History {
        History {
            rng: Rng::new(seed),
            large,
            model: Model::new(),
            records: Vec::new(),
            payloads: Vec::new(),
            next_seq: std::collections::BTreeMap::new(),
        }
    }

    fn push(&mut self, record: &Record<'_>) {
        self.model.apply(record);
        self.records.push(Owned::of(record));
    }

    fn session(&mut self) -> Option<u64> {
        let count = self.model.sessions.len() as u64;
        let at = self.rng.below(count.max(1)) as usize;
        self.model.sessions.keys().nth(at).copied()
    }

    fn next_seq(&mut self, session: u64) -> u64 {
        let next = self.next_seq.entry(session).or_insert(1);
        *next += 1;
        *next - 1
    }

    /// Adds one record to the history.
    pub(super) fn advance(&mut self) {
        let Some(session) = self.session() else {
            return self.put_session(1);
        };
        let model = &self.model.sessions[&session];
        let seqs: Vec<u64> = model.queue.keys().copied().collect();
        let pick = |rng: &mut Rng| seqs[rng.below(seqs.len() as u64) as usize];
        match self.rng.below(100) {
            0..=3 => {
                let number = self.model.next_session;
                self.put_session(number);
            }
            4..=5 => self.put_session(session),
            6 if self.model.sessions.len() > 2 => self.push(&Record::SessionRemove { session }),
            7..=9 => {
                let filter = format!("f/{}/#", self.rng.below(6));
                let id = self.rng.below(3) as u32;
                self.push(&Record::Subscribe {
                    session,
                    filter: &filter,
                    options: self.rng.clone().below(64) as u8,
                    subscription_id: Some(id).filter(|&id| id > 0),
                });
            }
            10 => {
                let filter = format!("f/{}/#", self.rng.below(6));
                self.push(&Record::Unsubscribe {
                    session,
                    filter: &filter,
                });
            }
            11 => {
                let topic = TOPICS[self.rng.below(4) as usize];
                self.push(&Record::RetainedClear { topic });
            }
            12..=13 => self.put_will(session),
            14 => self.push(&Record::WillRemove { session }),
            15 => {
                let ids: Vec<u16> = model.inbound.iter().copied().take(2).collect();
                self.push(&Record::InboundReleased {
                    session,
                    packet_ids: List::Given(&ids),
                });
            }
            16..=35 if !seqs.is_empty() => {
                let first = if self.rng.chance(70) {
                    seqs[0]
                } else {
                    pick(&mut self.rng)
                };
                let last = first + self.rng.below(16);
                let ranges = [SeqRange { first, last }, SeqRange::one(pick(&mut self.rng))];
                self.push(&Record::Done {
                    session,
                    ranges: List::Given(&ranges),
                });
            }
            36..=42 if !seqs.is_empty() => {
                let seqs = [pick(&mut self.rng)];
                self.push(&Record::Released {
                    session,
                    seqs: List::Given(&seqs),
                });
            }
            43..=45 => self.enqueue(session),
            46..=51 => self.put_document(),
            52..=53 => {
                let key = self.document_key();
                self.push(&Record::DocumentRemove { key: &key });
            }
            54 => {
                let now_ms = self.model.clock_ms + self.rng.below(20);
                self.push(&Record::Clock { now_ms });
            }
            _ => self.publish(),
        }
    }

    fn put_session(&mut self, session: u64) {
        let client_id = format!("device-{session}");
        let extra = vec![7; self.rng.below(40) as usize];
        let epoch = self.rng.below(1000);
        self.push(&Record::SessionPut {
            session,
            record: SessionView {
                client_id: &client_id,
                user: epoch.is_multiple_of(2).then_some("user"),
                epoch,
                expiry_interval_secs: 60,
                connected_ms: 5,
                disconnected_ms: epoch.is_multiple_of(3).then_some(9),
                protocol_level: 5,
                extra: &extra,
            },
        });
    }

    /// Keys that are short, as long as they may be, and such as look like another's.
    fn document_key(&mut self) -> String {
        match self.rng.below(8) {
            0 => "k".repeat(DOCUMENT_KEY_MAX),
            1 => "k".repeat(DOCUMENT_KEY_MAX - 1),
            2 => String::new(),
            3 => "\0\0".to_owned(),
            n => format!("webhook/{n}"),
        }
    }

    fn put_document(&mut self) {
        let key = self.document_key();
        let len = match self.rng.below(20) {
            0 => DOCUMENT_VALUE_MAX as u64,
            1..=3 => self.rng.below(40_000),
            _ => self.rng.below(100),
        };
        let value = vec![self.rng.next() as u8; len as usize];
        let after = self.rng.below(60);
        self.push(&Record::DocumentPut {
            key: &key,
            value: &value,
            expires_ms: (after < 30).then_some(self.model.clock_ms + after),
        });
    }

    fn put_will(&mut self, session: u64) {
        // Larger than what the checkpoint keeps in one value.
        let payload = vec![1; self.rng.below(40_000) as usize];
        let delay_secs = self.rng.below(10) as u32;
        self.push(&Record::WillPut {
            session,
            will: WillView {
                topic: "will",
                properties: b"",
                payload: &payload,
                qos: 1,
                retain: delay_secs == 3,
                delay_secs,
                due_ms: (delay_secs > 5).then_some(77),
            },
        });
    }

    fn enqueue(&mut self, session: u64) {
        let retained: Vec<u64> = self.model.retained.values().map(|it| it.0).collect();
        let Some(&offset) = retained.first() else {
            return self.publish();
        };
        let seq = self.next_seq(session);
        self.push(&Record::Enqueue {
            offset: Offset(offset),
            size: 5,
            target: Target {
                session,
                seq,
                qos: 1,
                flags: 3,
                subscription_ids: List::default(),
            },
        });
    }

    fn publish(&mut self) {
        let sessions: Vec<u64> = self.model.sessions.keys().copied().collect();
        let mut targets = Vec::new();
        for session in sessions {
            if self.rng.chance(60) {
                targets.push(Target {
                    session,
                    seq: self.next_seq(session),
                    qos: self.rng.below(3) as u8,
                    flags: self.rng.below(64) as u8,
                    subscription_ids: List::Given(if self.rng.chance(20) {
                        &[3, 4_000_000]
                    } else {
                        &[]
                    }),
                });
            }
        }
        let len = if self.rng.chance(4) {
            self.rng.below(self.large as u64 + 1)
        } else {
            self.rng.below(200)
        } as usize;
        let fill = self.rng.next() as u8;
        self.payloads.push((len, fill));
        let inbound = self.rng.chance(20).then(|| self.rng.below(50) as u16 + 1);
        let publisher = self.session().unwrap_or(0);
        let retained = match self.rng.below(10) {
            0..=1 => Retained::Set,
            2 => Retained::Cleared,
            _ => Retained::Unchanged,
        };
        let topic = TOPICS[self.rng.below(4) as usize];
        let payload = vec![fill; len];
        self.push(&Record::Message(Message {
            topic,
            properties: if fill > 128 { b"\x01\x01" } else { b"" },
            payload: &payload,
            qos: 1,
            retain: retained != Retained::Unchanged,
            published_ms: 1_000,
            expires_ms: (fill < 20).then_some(5_000),
            publisher,
            retained,
            inbound: inbound.map(|id| (publisher, id)),
            targets: List::Given(&targets),
        }));
    }

    /// The model after the first `n` records.
    pub(super) fn model_after(&self, n: usize) -> Model {
        let mut model = Model::new();
        for record in &self.records[..n] {
            model.apply(&record.get());
        }
        model
    }
}
