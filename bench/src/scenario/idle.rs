//! Connections that do nothing: what each costs in memory, and what all cost in CPU time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::hold_idle;
use crate::options::Options;
use crate::process::{self, Snapshot};
use crate::report::Report;

pub fn run(options: &Options) -> Result<Report> {
    let count = options.clients.unwrap_or(10_000);
    let mut report = Report::new("idle");
    report.set("version", options.version.to_string());
    report.set("clients", count);
    let rss = || {
        thread::sleep(Duration::from_millis(500));
        options.broker_pid.and_then(process::resident_bytes)
    };
    let before = rss();
    let started = Instant::now();
    let clients = hold_idle(&options.target(), &options.run_name(), count)?;
    report.figure(
        "opened_per_s",
        count as f64 / started.elapsed().as_secs_f64(),
    );
    let after = rss();
    if let (Some(before), Some(after)) = (before, after) {
        report.set("rss_before_bytes", before);
        report.set("rss_bytes", after);
        report.figure("bytes_each", (after as f64 - before as f64) / count as f64);
    }
    let from = Snapshot::take(options.broker_pid);
    thread::sleep(Duration::from_secs_f64(options.duration));
    let to = Snapshot::take(options.broker_pid);
    report.interval(&from, &to, 0);
    report.set(
        "still_open",
        clients
            .iter()
            .filter(|client| is_open(&client.stream))
            .count(),
    );
    for client in clients {
        client.close();
    }
    thread::sleep(Duration::from_secs(1));
    if let Some(bytes) = rss() {
        report.set("rss_closed_bytes", bytes);
    }
    Ok(report)
}

/// Nothing to read is what an open idle connection has.
fn is_open(stream: &std::net::TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let waits = stream
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    waits && stream.set_nonblocking(false).is_ok()
}
