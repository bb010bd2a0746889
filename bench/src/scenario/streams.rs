//! Subscribers that get nothing: what each weighs. In the end one message goes to all of them.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::{open_publishers, open_subscribers, template, traffic};
use crate::engine::{Control, EnginePlan, GroupPlan, Outcome, Pace, Phase, PublisherPlan};
use crate::options::Options;
use crate::process::{self, Snapshot};
use crate::report::Report;

pub fn run(options: &Options) -> Result<Report> {
    let count = options.clients.unwrap_or(10_000);
    let run = options.run_name();
    let topic = format!("bench/{run}/all");
    let mut report = Report::new("streams");
    report.set("clients", count);
    report.set("own_filter", options.web.own_filter);
    let rss = || {
        thread::sleep(Duration::from_secs(1));
        options.broker_pid.and_then(process::resident_bytes)
    };
    let before = rss();
    let started = Instant::now();
    let ids: Vec<String> = (0..count).map(|index| format!("{run}s{index}")).collect();
    let subscribers = open_subscribers(options, &ids, |index| {
        let mut filters = vec![topic.clone()];
        if options.web.own_filter {
            filters.push(format!("bench/{run}/own/{index}"));
        }
        filters
    })?;
    let seconds = started.elapsed().as_secs_f64();
    report.figure("opened_per_s", count as f64 / seconds);
    if let (Some(before), Some(after)) = (before, rss()) {
        report.set("rss_before_bytes", before);
        report.set("rss_bytes", after);
        report.figure("bytes_each", (after as f64 - before as f64) / count as f64);
    }
    let from = Snapshot::take(options.broker_pid);
    thread::sleep(Duration::from_secs_f64(options.duration));
    let to = Snapshot::take(options.broker_pid);
    report.interval(&from, &to, 0);

    let mut publishers = open_publishers(options, &[format!("{run}p")])?;
    let publisher = publishers.pop().ok_or_else(|| anyhow!("no publisher"))?;
    let plan = EnginePlan {
        groups: vec![GroupPlan {
            publishers: vec![PublisherPlan {
                client: publisher,
                pace: Pace::Closed {
                    window: 1,
                    batch: 1,
                },
                templates: vec![template(options, &topic, options.web.text())],
                limit: 1,
            }],
            subscribers,
            endpoints: 0,
            shared: false,
            unheard: false,
        }],
        version: options.version,
        qos: options.qos,
        stall: options.stall(),
        spin: options.spin,
        mark: options.mark(),
        listener: None,
    };
    let outcome = tell_all(options, plan, count as u64)?;
    report.set("reached", outcome.delivered);
    report.set("delivered", outcome.delivered);
    report.set("lost", outcome.lost);
    report.latency("latency", &outcome.latency);
    report.set("errors", outcome.errors);
    thread::sleep(Duration::from_secs(1));
    if let Some(bytes) = rss() {
        report.set("rss_closed_bytes", bytes);
    }
    Ok(report)
}

/// Publishes, and waits until all have it or nothing has come for as long as a stall takes.
fn tell_all(options: &Options, plan: EnginePlan, count: u64) -> Result<Outcome> {
    let control = Control::new();
    control.measure_from(0);
    let threads = traffic::start(vec![plan], &control)?;
    let mut last = (0, Instant::now());
    while last.0 < count && last.1.elapsed() < options.stall() {
        let delivered = control.delivered.load(Relaxed);
        if delivered > last.0 {
            last = (delivered, Instant::now());
        }
        thread::sleep(Duration::from_millis(2));
    }
    control.enter(Phase::Quit);
    Outcome::gather(threads)
}
