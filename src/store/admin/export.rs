//! Exporting a store as JSON lines: sessions first, then documents, then messages in order of their
//! offsets, each with those it is queued for. Bytes are base64; a payload that is text is text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use super::lines::{
    DocumentLine, Line, MessageLine, SessionLine, SubscriptionLine, TargetLine, VERSION, WillLine,
};
use super::{finish, lock_existing, open_stopped};
use crate::store::{
    EntryState, Offset, Options, Recovered, RecoveredSession, StoreError, StoredMessage,
};

/// Messages that are read at a time.
const PAGE: usize = 256;

/// What went out or came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub sessions: u64,
    pub subscriptions: u64,
    pub messages: u64,
    pub queue_entries: u64,
    pub retained: u64,
    pub documents: u64,
    /// What is missing because it could not be read: messages, and places in the log.
    pub lost: u64,
}

/// Writes the store in `options.path` to `out`.
///
/// # Errors
/// Those of opening it and of writing.
pub fn export(options: &Options, out: &mut dyn Write) -> Result<Exported, StoreError> {
    let path = options.path.as_path();
    let _lock = lock_existing(path)?;
    let parts = open_stopped(options)?;
    let report = &parts.recovered.report;
    let mut exported = Exported {
        lost: report.lost_entries
            + report.lost_retained
            + report.damaged_records
            + report.missing_segments,
        ..Exported::default()
    };
    {
        let recovered = &parts.recovered;
        let mut put = |line: &Line<'_>| -> Result<(), StoreError> {
            let mut text = serde_json::to_vec(line)
                .map_err(|error| StoreError::io("write the export of", path)(error.into()))?;
            text.push(b'\n');
            out.write_all(&text)
                .map_err(StoreError::io("write the export of", path))
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
        for document in &recovered.documents {
            exported.documents += 1;
            put(&Line::Document(DocumentLine {
                key: Cow::Borrowed(&document.key),
                value_base64: document.value.to_vec(),
                expires_ms: document.expires_ms,
            }))?;
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
        put(&Line::End)?;
    }
    out.flush()
        .map_err(StoreError::io("write the export of", path))?;
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
        for entry in &session.queue.entries {
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
                subscription_ids: session.queue.subscription_ids_of(entry.seq).to_vec(),
            });
        }
    }
    Ok(wanted)
}

fn session_line(session: &RecoveredSession) -> SessionLine<'_> {
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
