//! Importing what [`super::export()`] wrote, as appends to a new store.

use std::collections::HashSet;
use std::io::{BufRead, Read};

use super::Exported;
use super::lines::{Line, MessageLine, SessionLine, TargetLine, VERSION};
use crate::store::files::{Files, RealFiles};
use crate::store::{
    Appended, DurableStore, Health, List, Message, Options, Record, Retained, SeqRange,
    SessionNumber, SessionView, Store, StoreError, Target, Ticket, WillView, format_file,
};

/// Larger than any line of an export: a message has at most 256 MiB, and base64 adds a third.
const LINE_MAX: u64 = 1 << 30;

/// Fills a new store in `options.path`, an empty or missing directory, with what
/// [`super::export()`] wrote.
///
/// # Errors
/// [`StoreError::NotEmpty`] if there is something in the directory; [`StoreError::Import`] for a
/// line that makes no sense or cannot be written: the directory is then marked as unfinished, and
/// no broker starts with it. Those of opening a store.
pub fn import(options: &Options, lines: &mut dyn BufRead) -> Result<Exported, StoreError> {
    let path = options.path.as_path();
    let names = RealFiles.list(path).map_err(StoreError::io("list", path))?;
    if !names.is_empty() {
        return Err(StoreError::NotEmpty {
            path: path.to_owned(),
            purpose: "an import",
        });
    }
    let (store, _) = DurableStore::open(options)?;
    format_file::mark_unfinished(&RealFiles, path)?;
    let mut import = Import::new(&store);
    import
        .take_all(lines)
        .and_then(|()| {
            import.wait()?;
            store.close().map_err(|error| error.to_string())
        })
        .map_err(|what| StoreError::Import {
            path: path.to_owned(),
            line: import.line,
            what,
        })?;
    format_file::unmark_unfinished(&RealFiles, path)?;
    Ok(import.done)
}

/// An import on its way. What goes wrong is told in words: the line goes with it.
struct Import<'a> {
    store: &'a dyn Store,
    done: Exported,
    /// The sessions so far: queue entries of others would be lost without a word.
    sessions: HashSet<SessionNumber>,
    /// The line that was read last.
    line: u64,
    last: Ticket,
    ended: bool,
}

impl Import<'_> {
    fn new(store: &dyn Store) -> Import<'_> {
        Import {
            store,
            done: Exported::default(),
            sessions: HashSet::new(),
            line: 0,
            last: Ticket::default(),
            ended: false,
        }
    }

    fn take_all(&mut self, lines: &mut dyn BufRead) -> Result<(), String> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = (&mut *lines)
                .take(LINE_MAX)
                .read_until(b'\n', &mut text)
                .map_err(|error| format!("it cannot be read: {error}"))?;
            if read == 0 {
                break;
            }
            self.line += 1;
            if read as u64 == LINE_MAX {
                return Err("it is longer than any line of an export".to_owned());
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            self.take_text(&text)?;
            // What waits for the disk stays bounded.
            if self.store.pressure() {
                self.wait()?;
            }
        }
        if self.ended {
            Ok(())
        } else {
            self.line += 1;
            Err("it is missing, the export was cut short; an export ends with a line of type \"end\"".to_owned())
        }
    }

    fn take_text(&mut self, text: &[u8]) -> Result<(), String> {
        let line: Line<'_> = serde_json::from_slice(text).map_err(|error| {
            let what = error.to_string();
            // Its own line number is always 1.
            what.split(" at line 1").next().unwrap_or(&what).to_owned()
        })?;
        match (&line, self.line) {
            (Line::Store { version, .. }, 1) if *version > VERSION => Err(format!(
                "the export has version {version}, and this program knows versions up to \
                 {VERSION}; import it with the newer version"
            )),
            (Line::Store { .. }, 1) => self.take(&line),
            (_, 1) => Err("an export begins with a line of type \"store\"".to_owned()),
            (Line::Store { .. }, _) => Err("a second export begins here".to_owned()),
            _ if self.ended => Err("it comes after the line of type \"end\"".to_owned()),
            _ => self.take(&line),
        }
    }

    fn wait(&self) -> Result<(), String> {
        while self.store.durable() < self.last {
            if let Health::Failed(failure) = self.store.health() {
                return Err(failure.to_string());
            }
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    fn check_targets(&self, targets: &[TargetLine]) -> Result<(), String> {
        for it in targets {
            check_entry(it.qos, it.flags)?;
            self.check_session(it.session)?;
        }
        Ok(())
    }

    fn check_session(&self, session: SessionNumber) -> Result<(), String> {
        if self.sessions.contains(&session) {
            Ok(())
        } else {
            Err(format!("no line before it has session {session}"))
        }
    }

    fn take(&mut self, line: &Line<'_>) -> Result<(), String> {
        let store = self.store;
        let appended = match line {
            Line::Store { time_ms, .. } => store.append(&[Record::Clock { now_ms: *time_ms }]),
            Line::Session(session) => {
                check_session_line(session)?;
                if !self.sessions.insert(session.number) {
                    return Err(format!("session {} is there twice", session.number));
                }
                self.done.sessions += 1;
                self.done.subscriptions += session.subscriptions.len() as u64;
                take_session(store, session)
            }
            Line::Document(document) => {
                self.done.documents += 1;
                store.append(&[Record::DocumentPut {
                    key: &document.key,
                    value: &document.value_base64,
                    expires_ms: document.expires_ms,
                }])
            }
            Line::Message(message) => {
                store.admit().map_err(|error| error.to_string())?;
                check_entry(message.qos, 0)?;
                self.check_targets(&message.targets)?;
                self.done.messages += 1;
                self.done.queue_entries += message.targets.len() as u64;
                self.done.retained += u64::from(message.retained);
                take_message(store, message)
            }
            Line::Released {
                session,
                seq,
                flags,
            } => {
                check_entry(2, *flags)?;
                self.check_session(*session)?;
                take_released(store, *session, *seq, *flags)
            }
            Line::End => {
                self.ended = true;
                return Ok(());
            }
        };
        self.last = appended.map_err(|error| error.to_string())?.ticket;
        Ok(())
    }
}

/// What the log has room for.
fn check_entry(qos: u8, flags: u8) -> Result<(), String> {
    if qos > 2 {
        return Err(format!("there is no QoS {qos}"));
    }
    if flags >= 64 {
        return Err(format!("flags are {flags}, and six bits at most"));
    }
    Ok(())
}

fn check_session_line(line: &SessionLine<'_>) -> Result<(), String> {
    // The next number has to be larger than any.
    if line.number == 0 || line.number == u64::MAX {
        return Err(format!("{} is not the number of a session", line.number));
    }
    line.will
        .as_ref()
        .map_or(Ok(()), |will| check_entry(will.qos, 0))
}

fn take_released(
    store: &dyn Store,
    session: SessionNumber,
    seq: u64,
    flags: u8,
) -> Result<Appended, StoreError> {
    let targets = [Target {
        session,
        seq,
        qos: 2,
        flags,
        subscription_ids: List::default(),
    }];
    let seqs = [seq];
    store.append(&[
        Record::Message(placeholder(List::Given(&targets), None)),
        Record::Released {
            session,
            seqs: List::Given(&seqs),
        },
    ])
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

fn take_session(store: &dyn Store, line: &SessionLine<'_>) -> Result<Appended, StoreError> {
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

fn take_message(store: &dyn Store, line: &MessageLine<'_>) -> Result<Appended, StoreError> {
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
