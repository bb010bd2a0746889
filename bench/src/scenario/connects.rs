//! A storm of connections: how many a second get their CONNACK, kept open or closed again.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::{Target, socket};
use crate::engine::poll::Poll;
use crate::histogram::Histogram;
use crate::options::Options;
use crate::process::{self, Snapshot, now_ns};
use crate::report::Report;
use crate::wire::{self, Version};

/// Handshakes that are under way at the same time.
const TOGETHER: usize = 100;

struct Handshake {
    stream: TcpStream,
    number: usize,
    started_ns: u64,
    asked: bool,
    answer: Vec<u8>,
}

struct Storm {
    target: Target,
    run: String,
    keep: bool,
    poll: Poll,
    slots: Vec<Option<Handshake>>,
    kept: Vec<TcpStream>,
    begun: usize,
    done: u64,
    failed: u64,
    first_failure: Option<String>,
    latency: Histogram,
}

pub fn run(options: &Options) -> Result<Report> {
    let together = options.window.unwrap_or(TOGETHER);
    let mut report = Report::new("connects");
    report.set("version", options.version.to_string());
    report.set("keep", options.keep);
    report.set("window", together);
    let mut storm = Storm {
        target: options.target(),
        run: options.run_name(),
        keep: options.keep,
        poll: Poll::new()?,
        slots: (0..together).map(|_| None).collect(),
        kept: Vec::new(),
        begun: 0,
        done: 0,
        failed: 0,
        first_failure: None,
        latency: Histogram::default(),
    };
    // Kept connections are counted, the others go on for a time. The warm-up is left out of both.
    let limit = options.keep.then(|| options.clients.unwrap_or(10_000));
    let warm_until = now_ns() + (options.warmup * 1e9) as u64;
    if limit.is_none() {
        storm.run(|_| now_ns() >= warm_until)?;
        (storm.done, storm.failed) = (0, 0);
        storm.latency = Histogram::default();
    }
    let rss = options.broker_pid.and_then(process::resident_bytes);
    let from = Snapshot::take(options.broker_pid);
    let until = from.at_ns + Duration::from_secs_f64(options.duration).as_nanos() as u64;
    storm.run(|storm| match limit {
        Some(limit) => storm.done + storm.failed >= limit as u64,
        None => now_ns() >= until,
    })?;
    let to = Snapshot::take(options.broker_pid);
    report.interval(&from, &to, storm.done);
    let seconds = (to.at_ns - from.at_ns) as f64 / 1e9;
    report.figure("connects_per_s", storm.done as f64 / seconds);
    report.set("connected", storm.done);
    report.set("failed", storm.failed);
    report.latency("latency", &storm.latency);
    if let (Some(before), Some(pid)) = (rss, options.broker_pid) {
        report.set("rss_before_bytes", before);
        if let Some(after) = process::resident_bytes(pid) {
            report.set("rss_bytes", after);
        }
    }
    report.set(
        "errors",
        storm.first_failure.into_iter().collect::<Vec<_>>(),
    );
    Ok(report)
}

impl Storm {
    fn run(&mut self, enough: impl Fn(&Storm) -> bool) -> Result<()> {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_none() {
                self.begin(slot)?;
            }
        }
        while !enough(self) {
            let count = self.poll.wait(20)?;
            for index in 0..count {
                let event = self.poll.event(index);
                let slot = event.token as usize;
                match self.step(slot) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.done += 1;
                        self.end(slot)?;
                    }
                    Err(error) => {
                        self.failed += 1;
                        self.first_failure.get_or_insert(format!("{error:#}"));
                        self.end(slot)?;
                    }
                }
                if enough(self) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, slot: usize) -> Result<()> {
        let socket = socket(self.target.address)?;
        socket.set_nonblocking(true)?;
        let started_ns = now_ns();
        match socket.connect(&self.target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        self.poll.add(socket.as_raw_fd(), slot as u64, true)?;
        self.slots[slot] = Some(Handshake {
            stream: TcpStream::from(socket),
            number: self.begun,
            started_ns,
            asked: false,
            answer: Vec::new(),
        });
        self.begun += 1;
        Ok(())
    }

    /// The answer is whether the CONNACK has come.
    fn step(&mut self, slot: usize) -> Result<bool> {
        let version: Version = self.target.version;
        let Some(handshake) = &mut self.slots[slot] else {
            return Ok(false);
        };
        if !handshake.asked {
            if let Some(error) = handshake.stream.take_error()? {
                return Err(error).context("cannot connect");
            }
            let mut bytes = Vec::with_capacity(64);
            let id = format!("{}c{}", self.run, handshake.number);
            wire::connect(&mut bytes, version, &id, false);
            handshake.stream.write_all(&bytes)?;
            handshake.asked = true;
            self.poll
                .change(handshake.stream.as_raw_fd(), slot as u64, false)?;
            return Ok(false);
        }
        let mut chunk = [0; 512];
        match handshake.stream.read(&mut chunk) {
            Ok(0) => anyhow::bail!("the broker closed the connection"),
            Ok(count) => handshake.answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(packet) = wire::next_packet(&handshake.answer)? else {
            return Ok(false);
        };
        wire::connack(version, &packet)?;
        self.latency.record(now_ns() - handshake.started_ns);
        Ok(true)
    }

    /// Keeps or closes what is in the slot and begins the next.
    fn end(&mut self, slot: usize) -> Result<()> {
        if let Some(mut handshake) = self.slots[slot].take() {
            self.poll.remove(handshake.stream.as_raw_fd())?;
            if self.keep {
                self.kept.push(handshake.stream);
            } else {
                // The connection is closed in any case.
                let _ = handshake.stream.write_all(&wire::DISCONNECT_PACKET);
            }
        }
        self.begin(slot)
    }
}
