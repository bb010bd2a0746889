//! The load itself: one thread, one epoll, any number of publishers and subscribers.
//!
//! Built to cost far less than any broker: one large read per wake-up, packets walked in place,
//! acknowledgements gathered into one write, PUBLISH packets copied from a template and patched.
//!
//! A *group* is one set of topics with its publishers and its subscribers; every subscriber gets
//! everything of its group. A group lives in one thread, so nothing here is shared but a few
//! counters that the main thread reads.

pub mod conn;
mod plan;
pub mod poll;
pub mod receipts;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Result;

use crate::client::Client;
use crate::process::now_ns;
use crate::wire::{self, Template, Version};
use conn::Conn;
use poll::{Poll, TIMER};
use receipts::{Progress, Stream};

pub use plan::{Control, EnginePlan, GroupPlan, Outcome, Pace, Phase, PublisherPlan};

/// Bytes that are read at once: enough for some thousand small messages.
const READ_BYTES: usize = 256 * 1024;

/// Open loop: messages that one publisher catches up on before the receivers are looked at.
const CATCH_UP: u64 = 256;

/// How many times longer a publisher waits that stands still while others do not.
const STARVED: u64 = 5;

/// Errors whose words are kept.
const ERRORS_KEPT: usize = 5;

struct Publisher {
    conn: usize,
    pace: Pace,
    templates: Vec<Template>,
    next_template: usize,
    limit: u64,
    sent: u64,
    acknowledged: u64,
    /// Acknowledgements that are not waited for any more.
    forgiven: u64,
    progress: Progress,
    /// Nobody receives during the run.
    unheard: bool,
    /// What the broker allows to be unacknowledged.
    receive_maximum: u64,
    next_due_ns: u64,
    finished: bool,
    /// In the list of those to look at again.
    listed: bool,
    /// Sum of `acknowledged` and `done` when it was last looked at for a stall, and when that moved.
    moved: (u64, u64),
}

struct Subscriber {
    group: usize,
    /// Index of the first publisher of the group.
    first_publisher: usize,
    streams: Vec<Stream>,
}

struct Group {
    publishers: std::ops::Range<usize>,
    shared: bool,
    /// Deliveries to members of a shared subscription.
    shared_received: u64,
}

#[derive(Clone, Copy)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

pub struct Engine {
    poll: Poll,
    conns: Vec<Conn>,
    roles: Vec<Role>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    groups: Vec<Group>,
    /// Publishers whose window may have room.
    ready: Vec<usize>,
    /// The earliest time at which an open loop has something to send.
    due_ns: u64,
    version: Version,
    qos: u8,
    stall_ns: u64,
    spin: bool,
    /// An open loop has more to send at once than it may without looking at the receivers.
    behind: bool,
    mark: u32,
    read: Vec<u8>,
    write: Vec<u8>,
    outcome: Outcome,
    /// Deliveries and acknowledgements when stalls were last looked for, and when that changed.
    arrived: (u64, u64),
    totals: Totals,
    /// What of `totals` was already added to the shared counters.
    told: Totals,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    sent: u64,
    acknowledged: u64,
    delivered: u64,
    finished: u64,
    errors: u64,
}

impl Engine {
    pub fn new(plan: EnginePlan) -> Result<Engine> {
        let mut engine = Engine {
            poll: Poll::new()?,
            conns: Vec::new(),
            roles: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            groups: Vec::new(),
            ready: Vec::new(),
            due_ns: u64::MAX,
            version: plan.version,
            qos: plan.qos,
            stall_ns: plan.stall.as_nanos() as u64,
            spin: plan.spin,
            mark: plan.mark,
            read: vec![0; READ_BYTES],
            write: Vec::with_capacity(READ_BYTES),
            behind: false,
            outcome: Outcome::default(),
            arrived: (0, now_ns()),
            totals: Totals::default(),
            told: Totals::default(),
        };
        for group in plan.groups {
            engine.add_group(group)?;
        }
        Ok(engine)
    }

    fn add_group(&mut self, plan: GroupPlan) -> Result<()> {
        let first = self.publishers.len();
        let count = plan.publishers.len();
        let receivers = if plan.shared {
            1
        } else {
            plan.subscribers.len() as u32
        };
        for client in plan.subscribers {
            let role = Role::Subscriber(self.subscribers.len());
            self.subscribers.push(Subscriber {
                group: self.groups.len(),
                first_publisher: first,
                streams: (0..count).map(|_| Stream::default()).collect(),
            });
            self.add_conn(client, role)?;
        }
        for publisher in plan.publishers {
            let index = self.publishers.len();
            let receive_maximum = u64::from(publisher.client.connected.receive_maximum);
            // Nothing in an open loop waits for the slowest receiver.
            let (progress, next_due_ns) = match publisher.pace {
                Pace::Closed { window, .. } => {
                    (Progress::new(receivers, window as usize), u64::MAX)
                }
                Pace::Open { first_at_ns, .. } => (Progress::new(1, 0), first_at_ns),
            };
            self.due_ns = self.due_ns.min(next_due_ns);
            self.publishers.push(Publisher {
                conn: self.conns.len(),
                pace: publisher.pace,
                templates: publisher.templates,
                next_template: index,
                limit: publisher.limit,
                sent: 0,
                acknowledged: 0,
                forgiven: 0,
                progress,
                unheard: plan.unheard,
                receive_maximum,
                next_due_ns,
                finished: false,
                listed: true,
                moved: (0, 0),
            });
            self.ready.push(index);
            self.add_conn(publisher.client, Role::Publisher(index))?;
        }
        self.groups.push(Group {
            publishers: first..first + count,
            shared: plan.shared,
            shared_received: 0,
        });
        Ok(())
    }

    fn add_conn(&mut self, client: Client, role: Role) -> Result<()> {
        let token = self.conns.len() as u64;
        let conn = Conn::new(client)?;
        self.poll.add(conn.fd(), token, false)?;
        self.conns.push(conn);
        self.roles.push(role);
        Ok(())
    }

    /// Runs until told to quit.
    pub fn run(mut self, control: &Control) -> Result<Outcome> {
        let mut check_stalls_at = now_ns() + self.stall_ns / 4;
        loop {
            let phase = control.phase();
            if phase == Phase::Quit {
                break;
            }
            let now = now_ns();
            if phase == Phase::Load {
                self.publish_closed(now);
                self.publish_open(now, control.measured_from());
            }
            if now >= check_stalls_at {
                self.check_stalls(now);
                check_stalls_at = now + self.stall_ns / 4;
            }
            self.tell(control);
            let timeout_ms = if self.spin || self.behind { 0 } else { 20 };
            let count = self.poll.wait(timeout_ms)?;
            if count == 0 {
                continue;
            }
            let measure_from = control.measured_from();
            for index in 0..count {
                let event = self.poll.event(index);
                if event.token == TIMER {
                    continue;
                }
                let conn = event.token as usize;
                if event.writable {
                    self.flush(conn);
                }
                if event.readable
                    && let Err(error) = self.receive(conn, measure_from)
                {
                    self.fail(conn, &error.to_string());
                }
            }
        }
        self.tell(control);
        Ok(self.finish())
    }

    /// Fills the windows that have room.
    fn publish_closed(&mut self, now: u64) {
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            let publisher = &mut self.publishers[index];
            publisher.listed = false;
            let Pace::Closed { window, batch } = publisher.pace else {
                continue;
            };
            let conn = &self.conns[publisher.conn];
            if conn.dead || conn.has_unsent() {
                continue;
            }
            let mut done = publisher.sent;
            let mut room = window;
            if !publisher.unheard {
                done = done.min(publisher.progress.done());
            }
            if self.qos > 0 {
                done = done.min(publisher.acknowledged + publisher.forgiven);
                room = room.min(publisher.receive_maximum);
            }
            room = room.saturating_sub(publisher.sent - done);
            let left = publisher.limit - publisher.sent;
            if left == 0 {
                if done == publisher.sent && !publisher.finished {
                    publisher.finished = true;
                    self.totals.finished += 1;
                }
                continue;
            }
            let batch = batch.min(publisher.receive_maximum.div_ceil(2)).min(left);
            if room < batch {
                continue;
            }
            let count = room.min(left);
            for _ in 0..count {
                publisher.append(&mut self.write, now, index, self.mark);
            }
            self.totals.sent += count;
            let conn = publisher.conn;
            self.send_written(conn);
        }
        if self.ready.is_empty() {
            // Keeps the allocation.
            self.ready = ready;
        }
    }

    /// Sends what is due. The time in the payload is the time at which it was due, so a generator
    /// or a broker that stands still cannot hide it.
    fn publish_open(&mut self, now: u64, measure_from: u64) {
        if now < self.due_ns {
            return;
        }
        let mut due = u64::MAX;
        self.behind = false;
        for index in 0..self.publishers.len() {
            let publisher = &mut self.publishers[index];
            let Pace::Open { interval_ns, .. } = publisher.pace else {
                continue;
            };
            let conn = &self.conns[publisher.conn];
            if conn.dead || publisher.finished {
                continue;
            }
            let mut room = CATCH_UP.min(publisher.limit - publisher.sent);
            if conn.has_unsent() {
                room = 0;
            }
            if self.qos > 0 {
                let unacknowledged = publisher.sent - publisher.acknowledged;
                let allowed = publisher.receive_maximum.min(60_000);
                room = room.min(allowed.saturating_sub(unacknowledged));
            }
            self.behind |= room == CATCH_UP && publisher.next_due_ns + room * interval_ns <= now;
            while publisher.next_due_ns <= now && room > 0 {
                let at = publisher.next_due_ns;
                publisher.append(&mut self.write, at, index, self.mark);
                publisher.next_due_ns += interval_ns;
                room -= 1;
                self.totals.sent += 1;
                if at >= measure_from {
                    self.outcome.send_delay.record(now - at);
                }
            }
            if publisher.sent < publisher.limit {
                due = due.min(publisher.next_due_ns);
            } else {
                publisher.finished = true;
                self.totals.finished += 1;
            }
            let conn = publisher.conn;
            self.send_written(conn);
        }
        self.due_ns = due;
        if due != u64::MAX && due > now && !self.spin {
            // A timer that cannot be set would show as latency; the next wait ends soon anyway.
            let _ = self.poll.wake_at(due);
        }
    }

    /// Sends `self.write` on `conn` and empties it.
    fn send_written(&mut self, conn: usize) {
        if self.write.is_empty() {
            return;
        }
        let result = self.conns[conn].send(&self.write);
        self.write.clear();
        match result {
            Ok(true) => {}
            Ok(false) => self.want_write(conn, true),
            Err(error) => self.fail(conn, &error.to_string()),
        }
    }

    fn want_write(&mut self, conn: usize, write: bool) {
        let fd = self.conns[conn].fd();
        if let Err(error) = self.poll.change(fd, conn as u64, write) {
            self.fail(conn, &error.to_string());
        }
    }

    fn flush(&mut self, conn: usize) {
        match self.conns[conn].flush() {
            Ok(true) => {
                self.want_write(conn, false);
                if let Role::Publisher(index) = self.roles[conn] {
                    self.list(index);
                }
            }
            Ok(false) => {}
            Err(error) => self.fail(conn, &error.to_string()),
        }
    }

    fn list(&mut self, publisher: usize) {
        let entry = &mut self.publishers[publisher];
        if !entry.listed {
            entry.listed = true;
            self.ready.push(publisher);
        }
    }

    /// Reads once and handles every whole packet.
    fn receive(&mut self, index: usize, measure_from: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        if conn.dead {
            return Ok(());
        }
        let mut read = std::mem::take(&mut self.read);
        let filled = conn.read_into(&mut read);
        let result = match filled {
            Ok(filled) => {
                let now = now_ns();
                match self.handle(index, &read[..filled], now, measure_from) {
                    Ok(used) => {
                        self.conns[index].keep(&read[used..filled]);
                        self.send_written(index);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        self.read = read;
        result
    }

    /// The answer is how many bytes were whole packets. Answers are gathered in `self.write`.
    fn handle(&mut self, conn: usize, bytes: &[u8], now: u64, measure_from: u64) -> Result<usize> {
        let mut used = 0;
        while let Some(packet) = wire::next_packet(&bytes[used..])? {
            used += packet.total_len;
            match (packet.kind(), self.roles[conn]) {
                (wire::PUBLISH, Role::Subscriber(subscriber)) => {
                    let publish = wire::received(self.version, &packet)?;
                    match publish.qos {
                        0 => {}
                        1 => wire::ack(&mut self.write, wire::PUBACK << 4, publish.packet_id),
                        _ => wire::ack(&mut self.write, wire::PUBREC << 4, publish.packet_id),
                    }
                    self.note(subscriber, publish.payload, now, measure_from);
                }
                (wire::PUBREL, Role::Subscriber(_)) => {
                    wire::ack(&mut self.write, wire::PUBCOMP << 4, packet_id(&packet)?);
                }
                (wire::PUBACK | wire::PUBCOMP, Role::Publisher(publisher)) => {
                    if is_failure(&packet) {
                        self.outcome.refused += 1;
                    }
                    self.acknowledge(publisher);
                }
                (wire::PUBREC, Role::Publisher(publisher)) => {
                    if is_failure(&packet) {
                        self.outcome.refused += 1;
                        self.acknowledge(publisher);
                    } else {
                        let id = packet_id(&packet)?;
                        wire::ack(&mut self.write, wire::PUBREL << 4 | 2, id);
                    }
                }
                (wire::DISCONNECT, _) => {
                    let code = packet.body.first().copied().unwrap_or(0);
                    anyhow::bail!("the broker disconnected with code 0x{code:02X}");
                }
                (kind, _) => anyhow::bail!("unexpected packet type {kind}"),
            }
        }
        Ok(used)
    }

    fn acknowledge(&mut self, publisher: usize) {
        self.publishers[publisher].acknowledged += 1;
        self.totals.acknowledged += 1;
        self.list(publisher);
    }

    /// Notes one message at one subscriber.
    #[inline]
    fn note(&mut self, subscriber: usize, payload: &[u8], now: u64, measure_from: u64) {
        let Some((sequence, at, index)) = stamp(payload, self.mark) else {
            return;
        };
        let subscriber = &mut self.subscribers[subscriber];
        let local = index.wrapping_sub(subscriber.first_publisher);
        let Some(stream) = subscriber.streams.get_mut(local) else {
            return;
        };
        let group = &mut self.groups[subscriber.group];
        let moved = if group.shared {
            group.shared_received += 1;
            self.publishers[index].progress.count_one();
            true
        } else {
            let from = stream.next;
            if !stream.receive(sequence) {
                return;
            }
            let to = stream.next;
            to > from && self.publishers[index].progress.advance(from, to)
        };
        self.totals.delivered += 1;
        if at >= measure_from {
            self.outcome.latency.record(now.saturating_sub(at));
        }
        if moved {
            self.list(index);
        }
    }

    /// Gives up windows in which nothing has moved for too long: what is in them is lost. A broker
    /// that is overloaded may serve others first, so while anything moves there is more patience.
    fn check_stalls(&mut self, now: u64) {
        let arrived = self.totals.delivered + self.totals.acknowledged;
        if arrived != self.arrived.0 {
            self.arrived = (arrived, now);
        }
        let patience_ns = match now - self.arrived.1 < self.stall_ns {
            true => self.stall_ns * STARVED,
            false => self.stall_ns,
        };
        for index in 0..self.publishers.len() {
            let publisher = &mut self.publishers[index];
            let moved = publisher.acknowledged + publisher.progress.done() + publisher.sent;
            if moved != publisher.moved.0 || publisher.finished {
                publisher.moved = (moved, now);
                continue;
            }
            if now - publisher.moved.1 < patience_ns
                || self.conns[publisher.conn].dead
                || !matches!(publisher.pace, Pace::Closed { .. })
            {
                continue;
            }
            self.outcome.stalls += 1;
            publisher.moved.1 = now;
            publisher.forgiven = publisher.sent.saturating_sub(publisher.acknowledged);
            publisher.progress.give_up(publisher.sent);
            self.list(index);
        }
    }

    fn fail(&mut self, conn: usize, why: &str) {
        if self.conns[conn].dead {
            return;
        }
        self.conns[conn].dead = true;
        self.write.clear();
        // Level-triggered: a dead descriptor would wake the loop for ever.
        let _ = self.poll.remove(self.conns[conn].fd());
        self.totals.errors += 1;
        if self.outcome.errors.len() < ERRORS_KEPT {
            let who = match self.roles[conn] {
                Role::Publisher(_) => "publisher",
                Role::Subscriber(_) => "subscriber",
            };
            self.outcome.errors.push(format!("{who}: {why}"));
        }
    }

    /// Adds what is new to the shared counters.
    fn tell(&mut self, control: &Control) {
        let (now, before) = (self.totals, self.told);
        let add = |counter: &AtomicU64, now: u64, before: u64| {
            if now != before {
                counter.fetch_add(now - before, Relaxed);
            }
        };
        add(&control.sent, now.sent, before.sent);
        add(&control.acknowledged, now.acknowledged, before.acknowledged);
        add(&control.delivered, now.delivered, before.delivered);
        add(&control.finished, now.finished, before.finished);
        add(&control.errors, now.errors, before.errors);
        self.told = now;
    }

    fn finish(mut self) -> Outcome {
        for group in &self.groups {
            let sent: u64 = self.publishers[group.publishers.clone()]
                .iter()
                .map(|publisher| publisher.sent)
                .sum();
            if group.shared {
                self.outcome.lost += sent.saturating_sub(group.shared_received);
                self.outcome.duplicates += group.shared_received.saturating_sub(sent);
            }
        }
        for subscriber in &self.subscribers {
            if self.groups[subscriber.group].shared {
                continue;
            }
            for (offset, stream) in subscriber.streams.iter().enumerate() {
                let sent = self.publishers[subscriber.first_publisher + offset].sent;
                self.outcome.lost += stream.lost(sent);
                self.outcome.duplicates += stream.duplicates;
                self.outcome.late += stream.late;
            }
        }
        for conn in &mut self.conns {
            conn.say_goodbye();
        }
        self.outcome.sent = self.totals.sent;
        self.outcome.acknowledged = self.totals.acknowledged;
        self.outcome.delivered = self.totals.delivered;
        self.outcome
    }
}

impl Publisher {
    /// Appends one PUBLISH with its sequence number and time.
    #[inline]
    fn append(&mut self, out: &mut Vec<u8>, at_ns: u64, index: usize, mark: u32) {
        let template = &self.templates[self.next_template % self.templates.len()];
        self.next_template += 1;
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let packet = &mut out[start..];
        if template.packet_id_at > 0 {
            let id = (self.sent % 65_535) as u16 + 1;
            packet[template.packet_id_at..][..2].copy_from_slice(&id.to_be_bytes());
        }
        let payload = &mut packet[template.payload_at..];
        payload[..8].copy_from_slice(&self.sent.to_be_bytes());
        payload[8..16].copy_from_slice(&at_ns.to_be_bytes());
        payload[16..20].copy_from_slice(&(index as u32).to_be_bytes());
        payload[20..24].copy_from_slice(&mark.to_be_bytes());
        self.sent += 1;
    }
}

/// Sequence number, time and publisher of a payload of this run.
#[inline]
pub fn stamp(payload: &[u8], mark: u32) -> Option<(u64, u64, usize)> {
    let head = payload.first_chunk::<24>()?;
    let (sequence, rest) = head.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (index, theirs) = rest.split_first_chunk::<4>()?;
    if *theirs != mark.to_be_bytes() {
        return None;
    }
    let index = u32::from_be_bytes(*index) as usize;
    Some((
        u64::from_be_bytes(*sequence),
        u64::from_be_bytes(*at),
        index,
    ))
}

fn packet_id(packet: &wire::Raw<'_>) -> Result<[u8; 2]> {
    let id = packet.body.first_chunk::<2>();
    id.copied()
        .ok_or_else(|| anyhow::anyhow!("an acknowledgement without a packet identifier"))
}

/// Version 5: a reason code of 0x80 or more.
fn is_failure(packet: &wire::Raw<'_>) -> bool {
    packet.body.get(2).is_some_and(|code| *code >= 0x80)
}
