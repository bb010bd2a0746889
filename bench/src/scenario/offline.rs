//! Messages for durable sessions that are away: how fast they are acknowledged, and how fast the
//! sessions get them when they come back.
//!
//! Sessions are cut into groups of `--targets`; each group subscribes to one topic, and every
//! publisher goes through all topics in turn. So each message matches `--targets` sessions, and
//! what a session must get follows from its number alone, also in a later process.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::fill::Fill;
use crate::client::{Client, forget_sessions};
use crate::engine::conn::Conn;
use crate::engine::poll::Poll;
use crate::engine::receipts::Stream;
use crate::engine::stamp::Stamp;
use crate::options::Options;
use crate::process::{self, Snapshot, now_ns};
use crate::report::Report;
use crate::wire;

/// Messages of all publishers together, unless said otherwise.
const MESSAGES: u64 = 400_000;

/// How long the broker has to send what it should not, after all has come.
const AFTER: Duration = Duration::from_millis(200);

/// The numbers that a fill and a drain must agree on.
struct Setting {
    run: String,
    sessions: usize,
    topics: usize,
    publishers: usize,
    /// Of each publisher.
    messages: u64,
    qos: u8,
}

impl Setting {
    fn new(options: &Options) -> Result<Setting> {
        let sessions = options.subscribers.unwrap_or(100);
        let publishers = options.clients.unwrap_or(10);
        ensure!(
            sessions.is_multiple_of(options.targets),
            "--subscribers must be a multiple of --targets"
        );
        Ok(Setting {
            run: options.run_name(),
            sessions,
            topics: sessions / options.targets,
            publishers,
            messages: options.messages.unwrap_or(MESSAGES) / publishers as u64,
            qos: options.qos.max(1),
        })
    }

    fn session_ids(&self) -> Vec<String> {
        (0..self.sessions)
            .map(|index| format!("{}d{index}", self.run))
            .collect()
    }

    fn topic(&self, index: usize) -> String {
        format!("offline-{}/{index}", self.run)
    }

    fn topic_of_session(&self, session: usize) -> usize {
        session % self.topics
    }

    /// The first sequence number of a publisher that goes to a topic: it starts with the topic of
    /// its own number and goes round.
    fn first_sequence(&self, publisher: usize, topic: usize) -> u64 {
        ((topic + self.topics - publisher % self.topics) % self.topics) as u64
    }

    /// How many messages of a publisher go to a topic.
    fn expected(&self, publisher: usize, topic: usize) -> u64 {
        let first = self.first_sequence(publisher, topic);
        self.messages
            .saturating_sub(first)
            .div_ceil(self.topics as u64)
    }

    fn describe(&self, options: &Options, report: &mut Report) {
        report.set("version", options.version.to_string());
        report.set("qos", self.qos);
        report.set("payload", options.payload);
        report.set("sessions", self.sessions);
        report.set("targets", options.targets);
        report.set("publishers", self.publishers);
        report.set("messages", self.messages * self.publishers as u64);
        report.set("window", window(options));
    }
}

/// Of all publishers together.
fn window(options: &Options) -> usize {
    options.window.unwrap_or(1000)
}

pub fn offline(options: &Options) -> Result<Report> {
    let setting = Setting::new(options)?;
    let mut report = Report::new("offline");
    setting.describe(options, &mut report);
    fill(options, &setting, &mut report)?;
    if !options.keep {
        forget_sessions(&options.target(), &setting.session_ids());
    }
    Ok(report)
}

pub fn drain(options: &Options) -> Result<Report> {
    let setting = Setting::new(options)?;
    let mut report = Report::new("drain");
    setting.describe(options, &mut report);
    if !options.filled {
        fill(options, &setting, &mut Report::default())?;
    }
    reconnect(options, &setting, &mut report)?;
    if !options.keep {
        forget_sessions(&options.target(), &setting.session_ids());
    }
    Ok(report)
}

/// Makes the sessions, leaves them, publishes.
fn fill(options: &Options, setting: &Setting, report: &mut Report) -> Result<()> {
    let target = options.target();
    let ids = setting.session_ids();
    let mut sessions = Client::open_many(&target, &ids, true)?;
    for (index, client) in sessions.iter_mut().enumerate() {
        let filter = setting.topic(setting.topic_of_session(index));
        client.begin_subscribe([filter.as_str()], setting.qos)?;
    }
    for mut client in sessions {
        client.finish_subscribe()?;
        client.close();
    }
    thread::sleep(Duration::from_millis(300));
    let rss = || options.broker_pid.and_then(process::resident_bytes);
    let before = rss();

    let options = Options {
        qos: setting.qos,
        ..options.clone()
    };
    let fill = Fill {
        topics: (0..setting.topics)
            .map(|topic| setting.topic(topic))
            .collect(),
        publishers: setting.publishers,
        messages: setting.messages,
        window: (window(&options) / setting.publishers).max(1) as u64,
        text: false,
    };
    fill.run(&options, report)?;
    if let (Some(before), Some(after)) = (before, rss()) {
        report.set("rss_before_bytes", before);
        report.set("rss_bytes", after);
    }
    Ok(())
}

struct Session {
    conn: Conn,
    topic: usize,
    /// One per publisher, in the numbers that this topic gets.
    streams: Vec<Stream>,
}

/// Brings the sessions back and takes everything they are owed.
fn reconnect(options: &Options, setting: &Setting, report: &mut Report) -> Result<()> {
    let expected: u64 = (0..setting.sessions)
        .map(|session| setting.topic_of_session(session))
        .flat_map(|topic| {
            (0..setting.publishers).map(move |publisher| setting.expected(publisher, topic))
        })
        .sum();
    let from = Snapshot::take(options.broker_pid);
    let clients = Client::open_many(&options.target(), &setting.session_ids(), true)?;
    let present = clients
        .iter()
        .filter(|client| client.connected.session_present)
        .count();
    let mut poll = Poll::new()?;
    let mut sessions = Vec::with_capacity(clients.len());
    for (index, client) in clients.into_iter().enumerate() {
        let conn = Conn::new(client)?;
        poll.add(conn.fd(), index as u64, false)?;
        sessions.push(Session {
            conn,
            topic: setting.topic_of_session(index),
            streams: (0..setting.publishers).map(|_| Stream::default()).collect(),
        });
    }
    let mut drainer = Drainer {
        setting,
        options,
        sessions,
        received: 0,
        read: vec![0; 1 << 18],
        answers: Vec::new(),
        error: None,
    };
    // What came together with a CONNACK is not announced again.
    for index in 0..drainer.sessions.len() {
        drainer.take(index, &poll);
    }
    let mut moved = Instant::now();
    let mut last_ns = now_ns();
    let mut to = None;
    loop {
        let before = drainer.received;
        let count = poll.wait(20)?;
        for index in 0..count {
            let event = poll.event(index);
            let session = event.token as usize;
            if event.writable && drainer.sessions[session].conn.flush()? {
                poll.change(drainer.sessions[session].conn.fd(), event.token, false)?;
            }
            if event.readable {
                drainer.take(session, &poll);
            }
        }
        if drainer.received > before {
            moved = Instant::now();
            last_ns = now_ns();
        }
        if drainer.received >= expected && to.is_none() {
            to = Some(Snapshot::take(options.broker_pid));
            moved = Instant::now();
        }
        let patience = if to.is_some() { AFTER } else { options.stall() };
        if moved.elapsed() > patience {
            break;
        }
    }
    let to = to.unwrap_or_else(|| Snapshot::take(options.broker_pid));
    report.interval(&from, &to, drainer.received);
    // Where something is missing, the wait for it is no part of the time.
    let seconds = (last_ns.min(to.at_ns) - from.at_ns).max(1) as f64 / 1e9;
    report.figure("delivered_per_s", drainer.received as f64 / seconds);
    let (mut lost, mut duplicates, mut late) = (0, 0, 0);
    for session in &mut drainer.sessions {
        session.conn.say_goodbye();
        for (publisher, stream) in session.streams.iter().enumerate() {
            lost += stream.lost(setting.expected(publisher, session.topic));
            duplicates += stream.duplicates;
            late += stream.late;
        }
    }
    report.set("delivered", drainer.received);
    report.set("expected", expected);
    report.set("lost", lost);
    report.set("duplicates", duplicates);
    report.set("out_of_order", late);
    report.set("sessions_present", present);
    if let Some(bytes) = options.broker_pid.and_then(process::resident_bytes) {
        report.set("rss_bytes", bytes);
    }
    report.set("errors", drainer.error.into_iter().collect::<Vec<_>>());
    Ok(())
}

struct Drainer<'a> {
    setting: &'a Setting,
    options: &'a Options,
    sessions: Vec<Session>,
    received: u64,
    read: Vec<u8>,
    answers: Vec<u8>,
    error: Option<String>,
}

impl Drainer<'_> {
    /// Reads once and answers everything; a connection that fails is left alone from then on.
    fn take(&mut self, index: usize, poll: &Poll) {
        if self.sessions[index].conn.dead {
            return;
        }
        if let Err(error) = self.try_take(index, poll) {
            let conn = &mut self.sessions[index].conn;
            conn.dead = true;
            // Level-triggered: a dead descriptor would wake the loop for ever.
            let _ = poll.remove(conn.fd());
            self.error.get_or_insert(error.to_string());
        }
    }

    fn try_take(&mut self, index: usize, poll: &Poll) -> Result<()> {
        let mut read = std::mem::take(&mut self.read);
        let handled = self.sessions[index]
            .conn
            .read_into(&mut read)
            .and_then(|filled| {
                let used = self.handle(index, &read[..filled])?;
                self.sessions[index].conn.keep(&read[used..filled]);
                Ok(())
            });
        self.read = read;
        handled?;
        let conn = &mut self.sessions[index].conn;
        if !self.answers.is_empty() && !conn.send(&self.answers)? {
            poll.change(conn.fd(), index as u64, true)?;
        }
        self.answers.clear();
        Ok(())
    }

    fn handle(&mut self, index: usize, bytes: &[u8]) -> Result<usize> {
        let version = self.options.version;
        let mark = self.options.mark();
        let session = &mut self.sessions[index];
        let mut used = 0;
        while let Some(packet) = wire::next_packet(&bytes[used..])? {
            used += packet.total_len;
            match packet.kind() {
                wire::PUBLISH => {
                    let publish = wire::received(version, &packet)?;
                    match publish.qos {
                        0 => {}
                        1 => wire::ack(&mut self.answers, wire::PUBACK << 4, publish.packet_id),
                        _ => wire::ack(&mut self.answers, wire::PUBREC << 4, publish.packet_id),
                    }
                    let Some(stamp) = Stamp::read_binary(publish.payload, mark) else {
                        continue;
                    };
                    let publisher = stamp.publisher as usize;
                    let first = self.setting.first_sequence(publisher, session.topic);
                    let number = stamp.sequence.saturating_sub(first) / self.setting.topics as u64;
                    if let Some(stream) = session.streams.get_mut(publisher) {
                        self.received += u64::from(stream.receive(number));
                    }
                }
                wire::PUBREL => {
                    let id = packet
                        .body
                        .first_chunk()
                        .ok_or_else(|| anyhow!("a short PUBREL"))?;
                    wire::ack(&mut self.answers, wire::PUBCOMP << 4, *id);
                }
                kind => anyhow::bail!("unexpected packet type {kind}"),
            }
        }
        Ok(used)
    }
}
