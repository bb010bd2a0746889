//! A store as JSON lines: sessions first, then messages in order of their offsets, each with
//! those it is queued for. Bytes are base64; a payload that is text is text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{BufRead, Path, StoreError, Write, finish, lock_existing, open_stopped};
use crate::store::{
    DurableStore, EntryState, List, Message, Offset, Options, Record, Recovered, Retained,
    SeqRange, SessionView, Store, StoredMessage, Target, Ticket, WillView,
};

/// The version of the lines.
const VERSION: u32 = 1;

/// Messages that are read or appended at a time.
const PAGE: usize = 256;

/// What went out or came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub sessions: u64,
    pub subscriptions: u64,
    pub messages: u64,
    pub queue_entries: u64,
    pub retained: u64,
    /// Messages that could not be read.
    pub lost: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Line<'a> {
    Store {
        version: u32,
        time_ms: u64,
    },
    #[serde(borrow)]
    Session(SessionLine<'a>),
    Message(MessageLine<'a>),
    /// A queue entry whose PUBREC has come: its message is no longer needed.
    Released {
        session: u64,
        seq: u64,
        flags: u8,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionLine<'a> {
    number: u64,
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    user: Option<Cow<'a, str>>,
    epoch: u64,
    expiry_interval_secs: u32,
    connected_ms: u64,
    disconnected_ms: Option<u64>,
    protocol_level: u8,
    #[serde(with = "base64_bytes", default)]
    extra_base64: Vec<u8>,
    next_seq: u64,
    inbound_packet_ids: Vec<u16>,
    subscriptions: Vec<SubscriptionLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    will: Option<WillLine<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionLine<'a> {
    #[serde(borrow)]
    filter: Cow<'a, str>,
    options: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    subscription_id: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WillLine<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(with = "base64_bytes", default)]
    properties_base64: Vec<u8>,
    #[serde(with = "base64_bytes", default)]
    payload_base64: Vec<u8>,
    qos: u8,
    retain: bool,
    delay_secs: u32,
    due_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageLine<'a> {
    offset: u64,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payload: Option<Cow<'a, str>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        with = "base64_option"
    )]
    payload_base64: Option<Vec<u8>>,
    #[serde(with = "base64_bytes", default)]
    properties_base64: Vec<u8>,
    qos: u8,
    retain: bool,
    published_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires_ms: Option<u64>,
    publisher: u64,
    /// Whether it is the Retained Message of its topic.
    retained: bool,
    targets: Vec<TargetLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetLine {
    session: u64,
    seq: u64,
    qos: u8,
    flags: u8,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    subscription_ids: Vec<u32>,
}

mod base64_bytes {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

mod base64_option {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::base64_bytes::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        super::base64_bytes::deserialize(from).map(Some)
    }
}

/// Writes the store in `path` to `out`.
///
/// # Errors
/// Those of opening it and of writing.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<Exported, StoreError> {
    let _lock = lock_existing(path)?;
    let parts = open_stopped(path)?;
    let mut exported = Exported::default();
    {
        let recovered = &parts.recovered;
        let mut put = |line: &Line<'_>| -> Result<(), StoreError> {
            let mut text = serde_json::to_vec(line)
                .map_err(|error| StoreError::io("export", path)(error.into()))?;
            text.push(b'\n');
            out.write_all(&text).map_err(StoreError::io("export", path))
        };
        put(&Line::Store {
            version: VERSION,
            time_ms: recovered.clock_ms,
        })?;
        for session in &recovered.sessions {
            exported.sessions += 1;
            exported.subscriptions += session.subscriptions.len() as u64;
            put(&Line::Session(session_line(session)))?;
        }
        let mut wanted = targets(recovered, &mut put)?;
        for it in &recovered.retained {
            wanted.entry(it.offset).or_default().1 = true;
        }
        let offsets: Vec<Offset> = wanted.keys().copied().collect();
        for page in offsets.chunks(PAGE) {
            for (offset, answer) in page.iter().zip(parts.log.read(page)) {
                let (targets, retained) = wanted.remove(offset).unwrap_or_default();
                let Ok(stored) = answer else {
                    exported.lost += 1;
                    continue;
                };
                exported.messages += 1;
                exported.queue_entries += targets.len() as u64;
                exported.retained += u64::from(retained);
                put(&Line::Message(message_line(&stored, targets, retained)))?;
            }
        }
    }
    finish(parts)?;
    Ok(exported)
}

type Wanted = BTreeMap<Offset, (Vec<TargetLine>, bool)>;

/// Queue entries by message; those that need none any more are put out at once.
fn targets(
    recovered: &Recovered,
    put: &mut dyn FnMut(&Line<'_>) -> Result<(), StoreError>,
) -> Result<Wanted, StoreError> {
    let mut wanted = Wanted::new();
    for session in &recovered.sessions {
        for entry in &session.queue {
            if entry.state == EntryState::Released {
                put(&Line::Released {
                    session: session.number,
                    seq: entry.seq,
                    flags: entry.flags,
                })?;
                continue;
            }
            wanted.entry(entry.offset).or_default().0.push(TargetLine {
                session: session.number,
                seq: entry.seq,
                qos: entry.qos,
                flags: entry.flags,
                subscription_ids: session.subscription_ids_of(entry.seq).to_vec(),
            });
        }
    }
    Ok(wanted)
}

fn session_line(session: &crate::store::RecoveredSession) -> SessionLine<'_> {
    let record = &session.record;
    SessionLine {
        number: session.number,
        client_id: Cow::Borrowed(&record.client_id),
        user: record.user.as_deref().map(Cow::Borrowed),
        epoch: record.epoch,
        expiry_interval_secs: record.expiry_interval_secs,
        connected_ms: record.connected_ms,
        disconnected_ms: record.disconnected_ms,
        protocol_level: record.protocol_level,
        extra_base64: record.extra.to_vec(),
        next_seq: session.next_seq,
        inbound_packet_ids: session.inbound.clone(),
        subscriptions: session
            .subscriptions
            .iter()
            .map(|it| SubscriptionLine {
                filter: Cow::Borrowed(&it.filter),
                options: it.options,
                subscription_id: it.subscription_id,
            })
            .collect(),
        will: session.will.as_ref().map(|will| WillLine {
            topic: Cow::Borrowed(&will.topic),
            properties_base64: will.properties.to_vec(),
            payload_base64: will.payload.to_vec(),
            qos: will.qos,
            retain: will.retain,
            delay_secs: will.delay_secs,
            due_ms: will.due_ms,
        }),
    }
}

fn message_line(
    stored: &StoredMessage,
    targets: Vec<TargetLine>,
    retained: bool,
) -> MessageLine<'_> {
    let text = std::str::from_utf8(&stored.payload).ok();
    MessageLine {
        offset: stored.offset.0,
        topic: Cow::Borrowed(stored.topic()),
        payload: text.map(Cow::Borrowed),
        payload_base64: text.is_none().then(|| stored.payload.to_vec()),
        properties_base64: stored.properties.to_vec(),
        qos: stored.qos,
        retain: stored.retain,
        published_ms: stored.published_ms,
        expires_ms: stored.expires_ms,
        publisher: stored.publisher,
        retained,
        targets,
    }
}

/// Fills the new store in `path` with what [`export`] wrote.
///
/// # Errors
/// [`StoreError::NotAStore`] if there is a store in `path` already or a line makes no sense,
/// and those of opening and writing it.
pub fn import(path: &Path, lines: &mut dyn BufRead) -> Result<Exported, StoreError> {
    let (store, recovered) = DurableStore::open(&Options::new(path))?;
    if !recovered.sessions.is_empty() || !recovered.retained.is_empty() {
        return Err(StoreError::NotAStore {
            path: path.to_owned(),
            what: "an import needs a directory without a store that is in use",
        });
    }
    let mut imported = Exported::default();
    let mut text = String::new();
    let mut number = 0_u64;
    let mut last = Ticket(0);
    loop {
        text.clear();
        let read = lines
            .read_line(&mut text)
            .map_err(StoreError::io("import into", path))?;
        if read == 0 {
            break;
        }
        number += 1;
        if text.trim().is_empty() {
            continue;
        }
        let line: Line<'_> = serde_json::from_str(&text).map_err(|error| {
            let what = format!("line {number}: {error}");
            StoreError::io("import into", path)(std::io::Error::other(what))
        })?;
        last = take(&store, &line, &mut imported)?.unwrap_or(last);
        // What waits for the disk stays bounded.
        if store.pressure() {
            wait(&store, last)?;
        }
    }
    wait(&store, last)?;
    store.close()?;
    Ok(imported)
}

fn wait(store: &dyn Store, ticket: Ticket) -> Result<(), StoreError> {
    while store.durable() < ticket {
        if let crate::store::Health::Failed(failure) = store.health() {
            return Err(StoreError::Failed(failure));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    Ok(())
}

fn take(
    store: &dyn Store,
    line: &Line<'_>,
    imported: &mut Exported,
) -> Result<Option<Ticket>, StoreError> {
    let appended = match line {
        Line::Store { time_ms, .. } => store.append(&[Record::Clock { now_ms: *time_ms }])?,
        Line::Session(session) => {
            imported.sessions += 1;
            imported.subscriptions += session.subscriptions.len() as u64;
            take_session(store, session)?
        }
        Line::Message(message) => {
            imported.messages += 1;
            imported.queue_entries += message.targets.len() as u64;
            imported.retained += u64::from(message.retained);
            take_message(store, message)?
        }
        Line::Released {
            session,
            seq,
            flags,
        } => {
            let targets = [Target {
                session: *session,
                seq: *seq,
                qos: 2,
                flags: *flags,
                subscription_ids: List::default(),
            }];
            let seqs = [*seq];
            store.append(&[
                Record::Message(placeholder(List::Given(&targets), None)),
                Record::Released {
                    session: *session,
                    seqs: List::Given(&seqs),
                },
            ])?
        }
    };
    Ok(Some(appended.ticket))
}

/// A message without content, to bring a session into the state that it had.
fn placeholder<'a>(targets: List<'a, Target<'a>>, inbound: Option<(u64, u16)>) -> Message<'a> {
    Message {
        topic: "$",
        properties: b"",
        payload: b"",
        qos: 2,
        retain: false,
        published_ms: 0,
        expires_ms: None,
        publisher: 0,
        retained: Retained::Unchanged,
        inbound,
        targets,
    }
}

fn take_session(
    store: &dyn Store,
    line: &SessionLine<'_>,
) -> Result<crate::store::Appended, StoreError> {
    let session = line.number;
    let mut records = vec![Record::SessionPut {
        session,
        record: SessionView {
            client_id: &line.client_id,
            user: line.user.as_deref(),
            epoch: line.epoch,
            expiry_interval_secs: line.expiry_interval_secs,
            connected_ms: line.connected_ms,
            disconnected_ms: line.disconnected_ms,
            protocol_level: line.protocol_level,
            extra: &line.extra_base64,
        },
    }];
    records.extend(line.subscriptions.iter().map(|it| Record::Subscribe {
        session,
        filter: &it.filter,
        options: it.options,
        subscription_id: it.subscription_id,
    }));
    if let Some(will) = &line.will {
        records.push(Record::WillPut {
            session,
            will: WillView {
                topic: &will.topic,
                properties: &will.properties_base64,
                payload: &will.payload_base64,
                qos: will.qos,
                retain: will.retain,
                delay_secs: will.delay_secs,
                due_ms: will.due_ms,
            },
        });
    }
    for &packet_id in &line.inbound_packet_ids {
        let inbound = Some((session, packet_id));
        records.push(Record::Message(placeholder(List::default(), inbound)));
    }
    // The last seq was used: an entry with it comes and goes.
    let used = line.next_seq.saturating_sub(1);
    let targets = [Target {
        session,
        seq: used,
        qos: 0,
        flags: 0,
        subscription_ids: List::default(),
    }];
    let ranges = [SeqRange::one(used)];
    if line.next_seq > 0 {
        records.push(Record::Message(placeholder(List::Given(&targets), None)));
        records.push(Record::Done {
            session,
            ranges: List::Given(&ranges),
        });
    }
    store.append(&records)
}

fn take_message(
    store: &dyn Store,
    line: &MessageLine<'_>,
) -> Result<crate::store::Appended, StoreError> {
    let targets: Vec<Target<'_>> = line
        .targets
        .iter()
        .map(|it| Target {
            session: it.session,
            seq: it.seq,
            qos: it.qos,
            flags: it.flags,
            subscription_ids: List::Given(&it.subscription_ids),
        })
        .collect();
    let payload = match (&line.payload, &line.payload_base64) {
        (Some(text), _) => text.as_bytes(),
        (None, Some(bytes)) => bytes,
        (None, None) => b"",
    };
    store.append(&[Record::Message(Message {
        topic: &line.topic,
        properties: &line.properties_base64,
        payload,
        qos: line.qos,
        retain: line.retain,
        published_ms: line.published_ms,
        expires_ms: line.expires_ms,
        publisher: line.publisher,
        retained: if line.retained {
            Retained::Set
        } else {
            Retained::Unchanged
        },
        inbound: None,
        targets: List::Given(&targets),
    })])
}
