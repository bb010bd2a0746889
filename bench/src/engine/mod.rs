//! The load itself: one thread, one epoll, any number of publishers and subscribers.
//!
//! Built to cost far less than any broker: one large read per wake-up, packets walked in place,
//! acknowledgements gathered into one write, PUBLISH packets copied from a template and patched.
//!
//! A *group* is one set of topics with its publishers and its subscribers; every subscriber gets
//! everything of its group. A group lives in one thread, so nothing here is shared but a few
//! counters that the main thread reads.

pub mod conn;
pub mod hooks;
mod plan;
pub mod poll;
mod publish;
pub mod receipts;
mod receive;
pub mod stamp;

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Result;

use crate::client::Client;
use crate::process::now_ns;
use crate::web::Language;
use crate::wire::{Template, Version};
use conn::{CLOSED, Conn};
use hooks::Deliveries;
use poll::{Poll, TIMER};
use receipts::{Progress, Stream};

pub use plan::{Control, EnginePlan, GroupPlan, Outcome, Pace, Phase, PublisherPlan};

/// Bytes that are read at once: enough for some thousand small messages.
const READ_BYTES: usize = 256 * 1024;

/// Open loop: messages that one publisher catches up on before the receivers are looked at.
const CATCH_UP: u64 = 256;

/// How many times longer a publisher waits that stands still while others do not.
const STARVED: u64 = 5;

/// The token of the listener for webhooks.
const LISTENER: u64 = TIMER - 1;

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
    /// What it publishes is acknowledged.
    answered: bool,
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
    /// Brings what webhook endpoints are sent.
    Deliverer,
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
    /// Where webhooks are delivered to.
    listener: Option<TcpListener>,
    deliveries: Deliveries,
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
            listener: plan.listener,
            deliveries: Deliveries::default(),
            read: vec![0; READ_BYTES],
            write: Vec::with_capacity(READ_BYTES),
            behind: false,
            outcome: Outcome::default(),
            arrived: (0, now_ns()),
            totals: Totals::default(),
            told: Totals::default(),
        };
        if let Some(listener) = &engine.listener {
            listener.set_nonblocking(true)?;
            engine.poll.add(listener.as_raw_fd(), LISTENER, false)?;
        }
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
            (plan.subscribers.len() + plan.endpoints) as u32
        };
        for client in plan.subscribers {
            let role = self.add_subscriber(first, count);
            self.add_conn(client, role)?;
        }
        for _ in 0..plan.endpoints {
            self.add_subscriber(first, count);
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
                answered: self.qos > 0 || publisher.client.language == Language::Answers,
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

    /// A subscriber of these publishers, in the group that is added next.
    fn add_subscriber(&mut self, first_publisher: usize, publishers: usize) -> Role {
        let role = Role::Subscriber(self.subscribers.len());
        self.subscribers.push(Subscriber {
            group: self.groups.len(),
            first_publisher,
            streams: (0..publishers).map(|_| Stream::default()).collect(),
        });
        role
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
                if event.token == LISTENER {
                    self.accept()?;
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
        if matches!(self.roles[conn], Role::Deliverer) && why == CLOSED {
            // Connections that are not needed any more may be closed.
            return;
        }
        self.totals.errors += 1;
        if self.outcome.errors.len() < ERRORS_KEPT {
            let who = match self.roles[conn] {
                Role::Publisher(_) => "publisher",
                Role::Subscriber(_) => "subscriber",
                Role::Deliverer => "delivery",
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
        self.outcome.webhook_ids = self.deliveries.distinct();
        self.outcome
    }
}
