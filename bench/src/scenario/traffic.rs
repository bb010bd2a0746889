//! Messages from publishers to connected subscribers: pairs, fan-in, fan-out, shared subscriptions,
//! many subscriptions, latency.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use super::{hold_idle, hold_unrelated, open_publishers, open_subscribers, template};
use crate::client::forget_sessions;
use crate::engine::{Control, Engine, EnginePlan, GroupPlan, Outcome, Pace, Phase, PublisherPlan};
use crate::options::Options;
use crate::process::{self, Snapshot, now_ns};
use crate::report::Report;

/// How long memory is left to settle before it is read.
const SETTLE: Duration = Duration::from_millis(300);

/// How the clients are connected to each other.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub groups: usize,
    pub publishers: usize,
    pub subscribers: usize,
    /// Webhook endpoints, which get what subscribers get. Only one group can have any.
    pub endpoints: usize,
    pub shared: bool,
}

impl Shape {
    /// How many get each message.
    fn receivers(&self) -> u64 {
        match self.shared {
            true => 1,
            false => (self.subscribers + self.endpoints) as u64,
        }
    }
}

pub fn pairs(options: &Options) -> Result<Report> {
    let shape = Shape {
        groups: options.clients.unwrap_or(10),
        publishers: 1,
        subscribers: 1,
        endpoints: 0,
        shared: false,
    };
    run("pairs", options, shape, None)
}

pub fn fan_in(options: &Options) -> Result<Report> {
    let shape = Shape {
        groups: 1,
        publishers: options.clients.unwrap_or(100),
        subscribers: 1,
        endpoints: 0,
        shared: false,
    };
    run("fan-in", options, shape, None)
}

pub fn fan_out(options: &Options) -> Result<Report> {
    let shape = Shape {
        groups: 1,
        publishers: options.clients.unwrap_or(1),
        subscribers: options.subscribers.unwrap_or(100),
        endpoints: 0,
        shared: false,
    };
    run("fan-out", options, shape, None)
}

pub fn shared(options: &Options) -> Result<Report> {
    let shape = Shape {
        groups: 1,
        publishers: options.clients.unwrap_or(1),
        subscribers: options.subscribers.unwrap_or(100),
        endpoints: 0,
        shared: true,
    };
    if !options.turns {
        return run("shared", options, shape, None);
    }
    let mut options = options.clone();
    options.topics = shape.subscribers;
    run("turns", &options, shape, None)
}

pub fn many_subscriptions(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.unrelated.get_or_insert(100_000);
    let shape = Shape {
        groups: options.clients.unwrap_or(10),
        publishers: 1,
        subscribers: 1,
        endpoints: 0,
        shared: false,
    };
    run("many-subscriptions", &options, shape, None)
}

pub fn latency(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.rate.get_or_insert(2000.0);
    let shape = Shape {
        groups: options.clients.unwrap_or(1),
        publishers: 1,
        subscribers: options.subscribers.unwrap_or(1),
        endpoints: 0,
        shared: false,
    };
    run("latency", &options, shape, None)
}

pub fn persistent_pairs(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.durable = true;
    if options.qos == 0 {
        options.qos = 1;
    }
    let shape = Shape {
        groups: options.clients.unwrap_or(10),
        publishers: 1,
        subscribers: 1,
        endpoints: 0,
        shared: false,
    };
    run("persistent-pairs", &options, shape, None)
}

/// The clients of a run, by name.
pub struct Names {
    pub run: String,
}

impl Names {
    pub fn publisher(&self, group: usize, index: usize) -> String {
        format!("{}p{group}-{index}", self.run)
    }

    pub fn subscriber(&self, group: usize, index: usize) -> String {
        format!("{}s{group}-{index}", self.run)
    }

    pub fn topics(&self, group: usize, count: usize) -> Vec<String> {
        match count {
            1 => vec![format!("bench/{}/{group}", self.run)],
            _ => (0..count)
                .map(|index| format!("bench/{}/{group}/{index}", self.run))
                .collect(),
        }
    }

    fn filter(&self, group: usize, topics: usize, shared: bool) -> String {
        let filter = match topics {
            1 => format!("bench/{}/{group}", self.run),
            _ => format!("bench/{}/{group}/+", self.run),
        };
        if shared {
            format!("$share/{}/{filter}", self.run)
        } else {
            filter
        }
    }
}

/// A closed loop by default, with a window that lets brokers batch and makes none of them drop.
fn pace(options: &Options, publishers: usize, index: usize, start_ns: u64) -> Pace {
    if let Some(rate) = options.rate {
        let interval_ns = (1e9 * publishers as f64 / rate) as u64;
        return Pace::Open {
            interval_ns: interval_ns.max(1),
            first_at_ns: start_ns + interval_ns * index as u64 / publishers as u64,
        };
    }
    let window = options.window.unwrap_or(200) as u64;
    let batch = options.batch.map_or(window / 2, |batch| batch as u64);
    Pace::Closed {
        window,
        batch: batch.clamp(1, window),
    }
}

/// Runs what `shape` says; `listener` is where webhooks are delivered to.
pub fn run(
    scenario: &str,
    options: &Options,
    shape: Shape,
    listener: Option<TcpListener>,
) -> Result<Report> {
    let target = options.target();
    let names = Names {
        run: options.run_name(),
    };
    let mut report = Report::new(scenario);
    describe(&mut report, options, shape);

    let pid = options.broker_pid;
    let rss = || {
        thread::sleep(SETTLE);
        pid.and_then(process::resident_bytes)
    };
    let empty = rss();
    let idle = hold_idle(&target, &names.run, options.idle)?;
    let with_idle = if idle.is_empty() { empty } else { rss() };
    let started = Instant::now();
    let unrelated = options.unrelated.unwrap_or(0);
    let holders = hold_unrelated(
        &target,
        &names.run,
        options.filters,
        unrelated,
        options.holders,
    )?;
    let subscribed = started.elapsed();
    if let (Some(before), Some(after)) = (empty, with_idle)
        && !idle.is_empty()
    {
        report.figure(
            "bytes_each_idle",
            (after as f64 - before as f64) / idle.len() as f64,
        );
    }
    if unrelated > 0 {
        report.figure(
            "subscribed_per_s",
            unrelated as f64 / subscribed.as_secs_f64(),
        );
        if let (Some(before), Some(after)) = (with_idle, rss()) {
            let bytes = after as f64 - before as f64;
            report.figure("bytes_each_subscription", bytes / unrelated as f64);
        }
    }

    let plans = plan(options, shape, &names, listener)?;
    let control = Control::new();
    let threads = start(plans, &control)?;
    let measured = measure(&control, options, shape, &names)?;
    if let Some((count, seconds)) = measured.storm {
        report.figure("storm_subscribed_per_s", count as f64 / seconds);
        report.figure("storm_seconds", seconds);
    }
    let rss_after = pid.and_then(process::resident_bytes);
    drain(&control, options, shape);
    control.enter(Phase::Quit);
    let mut outcome = Outcome::gather(threads)?;

    let messages = measured.delivered;
    report.interval(&measured.from, &measured.to, messages);
    let seconds = (measured.to.at_ns - measured.from.at_ns) as f64 / 1e9;
    report.figure("delivered_per_s", messages as f64 / seconds);
    if options.qos > 0 {
        report.figure("acknowledged_per_s", measured.acknowledged as f64 / seconds);
    }
    report.set("delivered", outcome.delivered);
    report.set("sent", outcome.sent);
    report.set("lost", outcome.lost);
    report.set("duplicates", outcome.duplicates);
    report.set("out_of_order", outcome.late);
    report.set("stalls", outcome.stalls);
    report.set("refused", outcome.refused);
    if shape.endpoints > 0 {
        report.set("webhook_ids", outcome.webhook_ids);
        report.set("wrong_webhook_ids", outcome.wrong_ids);
        if outcome.wrong_ids > 0 || outcome.webhook_ids != outcome.delivered {
            outcome.errors.push(format!(
                "{} messages had {} values of webhook-id",
                outcome.delivered, outcome.webhook_ids
            ));
        }
    }
    if options.qos > 0 {
        report.set(
            "unacknowledged",
            outcome.sent.saturating_sub(outcome.acknowledged),
        );
    }
    report.latency("latency", &outcome.latency);
    report.latency("send_delay", &outcome.send_delay);
    if let Some(rss) = rss_after {
        report.set("rss_bytes", rss);
    }
    report.set("errors", outcome.errors);

    if options.durable && !options.keep {
        let ids: Vec<String> = (0..shape.groups)
            .flat_map(|group| {
                let publishers = (0..shape.publishers).map(move |index| (true, group, index));
                publishers.chain((0..shape.subscribers).map(move |index| (false, group, index)))
            })
            .map(|(publisher, group, index)| {
                if publisher {
                    names.publisher(group, index)
                } else {
                    names.subscriber(group, index)
                }
            })
            .collect();
        forget_sessions(&target, &ids);
    }
    drop((idle, holders));
    Ok(report)
}

fn describe(report: &mut Report, options: &Options, shape: Shape) {
    report.set("version", options.version.to_string());
    report.set("qos", options.qos);
    report.set("payload", options.payload);
    report.set("groups", shape.groups);
    report.set("publishers", shape.publishers);
    report.set("subscribers", shape.subscribers);
    if shape.endpoints > 0 {
        report.set("endpoints", shape.endpoints);
    }
    for (key, over) in [
        (
            "subscribe_over",
            options.web.subscribe_over.to_possible_value(),
        ),
        ("publish_over", options.web.publish_over.to_possible_value()),
    ] {
        if let Some(over) = over {
            report.set(key, over.get_name());
        }
    }
    report.set("topics", options.topics);
    report.set("durable", options.durable);
    match pace(options, 1, 0, 0) {
        Pace::Closed { window, batch } => {
            report.set("window", window);
            report.set("batch", batch);
        }
        Pace::Open { .. } => report.figure("rate", options.rate.unwrap_or(0.0)),
    }
    report.set("idle", options.idle);
    report.set("unrelated", options.unrelated.unwrap_or(0));
}

/// Connects everyone; one plan per thread.
fn plan(
    options: &Options,
    shape: Shape,
    names: &Names,
    mut listener: Option<TcpListener>,
) -> Result<Vec<EnginePlan>> {
    let threads = options.threads.min(shape.groups);
    let mut plans: Vec<EnginePlan> = (0..threads)
        .map(|_| EnginePlan {
            groups: Vec::new(),
            version: options.version,
            qos: options.qos,
            stall: options.stall(),
            spin: options.spin,
            mark: options.mark(),
            listener: listener.take(),
        })
        .collect();
    let ids = |name: &dyn Fn(usize, usize) -> String, each: usize| -> Vec<String> {
        (0..shape.groups)
            .flat_map(|group| (0..each).map(move |index| (group, index)))
            .map(|(group, index)| name(group, index))
            .collect()
    };
    let subscriber_ids = ids(
        &|group, index| names.subscriber(group, index),
        shape.subscribers,
    );
    let publisher_ids = ids(
        &|group, index| names.publisher(group, index),
        shape.publishers,
    );
    let subscribers = open_subscribers(options, &subscriber_ids, |index| {
        let group = index / shape.subscribers;
        match options.turns {
            true => vec![names.topics(group, options.topics)[index % shape.subscribers].clone()],
            false => vec![names.filter(group, options.topics, shape.shared)],
        }
    })?;
    let publishers = open_publishers(options, &publisher_ids)?;

    let text = options.web.text() || shape.endpoints > 0;
    let start_ns = now_ns() + 20_000_000;
    let count = shape.groups * shape.publishers;
    let mut subscribers = subscribers.into_iter();
    let mut publishers = publishers.into_iter().enumerate();
    for group in 0..shape.groups {
        let templates: Vec<_> = names
            .topics(group, options.topics)
            .iter()
            .map(|topic| template(options, topic, text))
            .collect();
        plans[group % threads].groups.push(GroupPlan {
            publishers: (&mut publishers)
                .take(shape.publishers)
                .map(|(index, client)| PublisherPlan {
                    client,
                    pace: pace(options, count, index, start_ns),
                    templates: templates.clone(),
                    limit: options.messages.unwrap_or(u64::MAX),
                })
                .collect(),
            subscribers: (&mut subscribers).take(shape.subscribers).collect(),
            endpoints: shape.endpoints,
            shared: shape.shared,
            unheard: false,
        });
    }
    Ok(plans)
}

type EngineThread = thread::JoinHandle<Result<Outcome>>;

pub fn start(plans: Vec<EnginePlan>, control: &Arc<Control>) -> Result<Vec<EngineThread>> {
    // SAFETY: has no memory effects. The slack is inherited by the threads made below; without it
    // the kernel may add 50 µs to each timed wake-up, which would show as the broker's latency.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    plans
        .into_iter()
        .map(|plan| {
            let engine = Engine::new(plan)?;
            let control = Arc::clone(control);
            let builder = thread::Builder::new().name("generator".to_owned());
            Ok(builder.spawn(move || engine.run(&control))?)
        })
        .collect()
}

/// The measured interval.
struct Measured {
    from: Snapshot,
    to: Snapshot,
    delivered: u64,
    acknowledged: u64,
    /// Subscriptions made meanwhile, and the seconds that took.
    storm: Option<(usize, f64)>,
}

/// Warms up, then measures for a time or until all publishers have finished.
fn measure(control: &Control, options: &Options, shape: Shape, names: &Names) -> Result<Measured> {
    let publishers = (shape.groups * shape.publishers) as u64;
    let over = || control.finished.load(Relaxed) + control.errors.load(Relaxed) >= publishers;
    let warm = |began: Instant| match options.messages {
        // A tenth of a counted run is its warm-up.
        Some(messages) => control.sent.load(Relaxed) * 10 >= messages * publishers || over(),
        None => began.elapsed().as_secs_f64() >= options.warmup,
    };
    let enough = |began: Instant| match options.messages {
        Some(_) => over(),
        None => began.elapsed().as_secs_f64() >= options.duration,
    };
    let wait = |enough: &dyn Fn(Instant) -> bool| {
        let began = Instant::now();
        while !enough(began) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    wait(&warm);
    let from = Snapshot::take(options.broker_pid);
    control.measure_from(from.at_ns);
    let delivered = control.delivered.load(Relaxed);
    let acknowledged = control.acknowledged.load(Relaxed);
    let storm = options.storm.map(|count| storm(options, names, count));
    wait(&enough);
    let mut to = Snapshot::take(options.broker_pid);
    to.at_ns = to.at_ns.max(from.at_ns + 1);
    let delivered = control.delivered.load(Relaxed) - delivered;
    let acknowledged = control.acknowledged.load(Relaxed) - acknowledged;
    let storm = match storm {
        Some(thread) => {
            let joined = thread.join().map_err(|_| anyhow!("the storm panicked"))?;
            Some(joined?)
        }
        None => None,
    };
    Ok(Measured {
        from,
        to,
        delivered,
        acknowledged,
        storm,
    })
}

/// Subscribes as fast as one connection can.
fn storm(
    options: &Options,
    names: &Names,
    count: usize,
) -> thread::JoinHandle<Result<(usize, f64)>> {
    let target = options.target();
    let run = format!("{}x", names.run);
    let kind = options.filters;
    thread::spawn(move || {
        let began = Instant::now();
        let held = hold_unrelated(&target, &run, kind, count, 1)?;
        let seconds = began.elapsed().as_secs_f64();
        for client in held {
            client.close();
        }
        Ok((count, seconds))
    })
}

/// Waits for what is under way: until all has come, or nothing has for as long as a stall takes.
fn drain(control: &Control, options: &Options, shape: Shape) {
    control.enter(Phase::Drain);
    // Sending may have been seen last just before the phase was.
    thread::sleep(Duration::from_millis(50));
    let receivers = shape.receivers();
    let mut last = (0, Instant::now());
    loop {
        let delivered = control.delivered.load(Relaxed);
        let acknowledged = control.acknowledged.load(Relaxed);
        let sent = control.sent.load(Relaxed);
        if delivered >= sent * receivers && (options.qos == 0 || acknowledged >= sent) {
            return;
        }
        if delivered + acknowledged != last.0 {
            last = (delivered + acknowledged, Instant::now());
        } else if last.1.elapsed() > options.stall() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
