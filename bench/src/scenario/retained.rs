//! Retained messages: storing them, and the time until a new subscriber of `#` has all of them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Client, Target};
use crate::engine::stamp::Stamp;
use crate::options::Options;
use crate::process::{self, Snapshot, now_ns};
use crate::report::Report;
use crate::wire;

/// PUBLISH packets that are sent before their acknowledgements are read.
const TOGETHER: usize = 500;

pub fn run(options: &Options) -> Result<Report> {
    let count = options.clients.unwrap_or(100_000);
    let target = options.target();
    let run = options.run_name();
    let mark = options.mark();
    let mut report = Report::new("retained");
    report.set("version", options.version.to_string());
    report.set("qos", options.qos);
    report.set("payload", options.payload);
    report.set("retained", count);
    let rss = || options.broker_pid.and_then(process::resident_bytes);
    let before = rss();

    let mut publisher = Client::open(&target, &format!("{run}w"), false)?;
    let started = Instant::now();
    let mut payload = vec![b'x'; options.payload];
    store(&mut publisher, count, |index| {
        payload[..8].copy_from_slice(&(index as u64).to_be_bytes());
        payload[8..16].copy_from_slice(&now_ns().to_be_bytes());
        payload[16..20].fill(0);
        payload[20..24].copy_from_slice(&mark.to_be_bytes());
        (topic(&run, index), payload.clone())
    })?;
    report.figure(
        "stored_per_s",
        count as f64 / started.elapsed().as_secs_f64(),
    );
    std::thread::sleep(Duration::from_millis(300));
    if let (Some(before), Some(after)) = (before, rss()) {
        report.figure("bytes_each", (after as f64 - before as f64) / count as f64);
    }

    let mut times = Vec::new();
    let mut fewest = count;
    let from = Snapshot::take(options.broker_pid);
    for repeat in 0..options.repeat.max(1) {
        let (received, seconds) = replay(options, &target, &format!("{run}r{repeat}"), count)?;
        fewest = fewest.min(received);
        times.push(seconds * 1e3);
    }
    let to = Snapshot::take(options.broker_pid);
    report.interval(&from, &to, (count * times.len()) as u64);
    times.sort_by(f64::total_cmp);
    report.figure("replay_ms", times[times.len() / 2]);
    report.figure("replay_max_ms", times[times.len() - 1]);
    report.set("received_fewest", fewest);
    report.set("lost", count - fewest);
    if let Some(bytes) = rss() {
        report.set("rss_bytes", bytes);
    }
    if !options.keep {
        store(&mut publisher, count, |index| {
            (topic(&run, index), Vec::new())
        })
        .context("cannot clear the retained messages")?;
    }
    publisher.close();
    Ok(report)
}

fn topic(run: &str, index: usize) -> String {
    format!(
        "retained-{run}/device{:05}/reading{:03}",
        index / 256,
        index % 256
    )
}

/// Publishes retained messages at QoS 1 and waits until all are acknowledged.
fn store(
    client: &mut Client,
    count: usize,
    mut message: impl FnMut(usize) -> (String, Vec<u8>),
) -> Result<()> {
    let together = TOGETHER.min(usize::from(client.connected.receive_maximum));
    let mut bytes = Vec::new();
    for start in (0..count).step_by(together) {
        let end = count.min(start + together);
        bytes.clear();
        for index in start..end {
            let (topic, payload) = message(index);
            let mut packet = wire::publish(client.version, 1, true, &topic, &payload);
            let id = (index % 65_535) as u16 + 1;
            packet.bytes[packet.packet_id_at..][..2].copy_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&packet.bytes);
        }
        client.stream.write_all(&bytes)?;
        for _ in start..end {
            client.expect(|packet| {
                let failed = packet.body.get(2).is_some_and(|code| *code >= 0x80);
                ensure!(packet.kind() == wire::PUBACK && !failed, "not stored");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// How many different messages came, and after how many seconds the last of them.
fn replay(options: &Options, target: &Target, id: &str, count: usize) -> Result<(usize, f64)> {
    let mark = options.mark();
    let mut client = Client::open(target, id, false)?;
    client.stream.set_read_timeout(Some(options.stall()))?;
    let mut seen = vec![false; count];
    let mut received = 0;
    let mut buffer = vec![0; 1 << 18];
    let mut filled = 0;
    let mut answers = Vec::new();
    let began = Instant::now();
    let mut last = began;
    client.begin_subscribe(["#"], options.qos)?;
    while received < count {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        match client.stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            // Nothing came for as long as a stall takes: what is missing will not come.
            Err(_) => break,
        }
        let mut used = 0;
        let before = received;
        while let Some(packet) = wire::next_packet(&buffer[used..filled])? {
            used += packet.total_len;
            match packet.kind() {
                wire::SUBACK => wire::suback(client.version, &packet)?,
                wire::PUBLISH => {
                    let publish = wire::received(client.version, &packet)?;
                    match publish.qos {
                        0 => {}
                        1 => wire::ack(&mut answers, wire::PUBACK << 4, publish.packet_id),
                        _ => wire::ack(&mut answers, wire::PUBREC << 4, publish.packet_id),
                    }
                    if let Some(stamp) = Stamp::read_binary(publish.payload, mark)
                        && let Some(seen) = seen.get_mut(stamp.sequence as usize)
                        && !*seen
                    {
                        *seen = true;
                        received += 1;
                    }
                }
                wire::PUBREL => {
                    let id = packet.body.first_chunk().context("a short PUBREL")?;
                    wire::ack(&mut answers, wire::PUBCOMP << 4, *id);
                }
                kind => anyhow::bail!("unexpected packet type {kind}"),
            }
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if received > before {
            last = Instant::now();
        }
        if !answers.is_empty() {
            client.stream.write_all(&answers)?;
            answers.clear();
        }
    }
    client.close();
    Ok((received, (last - began).as_secs_f64()))
}
