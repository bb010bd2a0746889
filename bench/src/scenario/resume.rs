//! A reader of an event stream that comes back with an old event id: how long until the first event,
//! and until it has caught up.
//!
//! The reader sees one message and leaves; `--messages` (1000000) are published; it comes back. The
//! topic is one that the broker keeps: with Tidings a `[[stream]]` of `replay/#`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use super::fill::Fill;
use crate::client::Client;
use crate::engine::conn::Conn;
use crate::engine::poll::Poll;
use crate::engine::receipts::Stream;
use crate::engine::stamp::Stamp;
use crate::options::Options;
use crate::process::{self, Snapshot, now_ns};
use crate::report::Report;
use crate::web::streams::{Subscription, open};
use crate::web::{Server, SubscribeOver};

const MESSAGES: u64 = 1_000_000;

pub fn run(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.web.subscribe_over = SubscribeOver::Sse;
    options.qos = match options.web.server {
        Server::Tidings => options.qos.max(1),
        Server::Nchan => 0,
    };
    options.check()?;
    let run = options.run_name();
    let topic = format!("replay/{run}");
    let messages = options.messages.unwrap_or(MESSAGES);
    let mut report = Report::new("resume");
    report.set("messages", messages);
    report.set("payload", options.payload);
    report.set("raw", options.web.raw);

    let filters = [topic.clone()];
    let mut subscription = Subscription {
        filters: &filters,
        last_event_id: None,
    };
    let mut reader = open(&options.web, &subscription)?;
    let fill = |messages| Fill {
        topics: vec![topic.clone()],
        publishers: 1,
        messages,
        window: options.window.unwrap_or(1000) as u64,
        text: true,
    };
    // Of another run, so that it is not taken for one of those that count.
    let before = Options {
        run: Some(format!("{run}first")),
        ..options.clone()
    };
    fill(1).run(&before, &mut Report::default())?;
    let id = first_id(&mut reader, before.mark()).context("the first event")?;
    drop(reader);
    let mut filled = Report::default();
    let outcome = fill(messages).run(
        &Options {
            run: Some(run),
            ..options.clone()
        },
        &mut filled,
    )?;
    ensure!(
        outcome.acknowledged == messages && outcome.refused == 0,
        "{} of {messages} messages were acknowledged, {} refused: {:?}",
        outcome.acknowledged,
        outcome.refused,
        outcome.errors
    );
    report.figure_if("published_per_s", filled.number("acknowledged_per_s"));
    let rss = || options.broker_pid.and_then(process::resident_bytes);
    if let Some(bytes) = rss() {
        report.set("rss_before_bytes", bytes);
    }
    subscription.last_event_id = Some(&id);
    catch_up(&options, &subscription, messages, &mut report)?;
    if let Some(bytes) = rss() {
        report.set("rss_bytes", bytes);
    }
    Ok(report)
}

/// Waits for the first event, which has to be of the run `mark`, and answers with its id.
fn first_id(reader: &mut Client, mark: u32) -> Result<String> {
    loop {
        let event = reader.expect_event()?;
        if Stamp::find_text(&event, mark).is_none() {
            continue;
        }
        let at = memmem::find(&event, b"id:").context("an event without id")?;
        let id = event[at + 3..].split(|byte| *byte == b'\n').next();
        let id = id.unwrap_or_default().trim_ascii();
        return Ok(String::from_utf8_lossy(id).into_owned());
    }
}

fn catch_up(
    options: &Options,
    subscription: &Subscription<'_>,
    messages: u64,
    report: &mut Report,
) -> Result<()> {
    let mark = options.mark();
    let from = Snapshot::take(options.broker_pid);
    let client = open(&options.web, subscription)?;
    let opened_ns = now_ns();
    let mut conn = Conn::new(client)?;
    let mut poll = Poll::new()?;
    poll.add(conn.fd(), 0, false)?;
    let mut stream = Stream::default();
    let mut received = 0;
    let mut gaps = 0;
    let mut read = vec![0; 1 << 18];
    let (mut first_ns, mut last_ns) = (None, from.at_ns);
    let mut moved = Instant::now();
    let mut error = None;
    while received < messages && error.is_none() && moved.elapsed() < options.stall() {
        // Events may have come with the head, and are not announced again.
        let filled = match conn.read_into(&mut read) {
            Ok(filled) => filled,
            Err(why) => {
                error = Some(why.to_string());
                continue;
            }
        };
        let before = received;
        let mut rest = &read[..filled];
        while let Some((stamp, end)) = Stamp::find_text(rest, mark) {
            received += u64::from(stream.receive(stamp.sequence));
            gaps += u64::from(memmem::find(&rest[..end], b"event: gap").is_some());
            rest = &rest[end..];
        }
        // All but the beginning of a stamp was looked at.
        conn.keep(rest);
        if received > before {
            last_ns = now_ns();
            first_ns.get_or_insert(last_ns);
            moved = Instant::now();
        }
        poll.wait(Duration::from_millis(20).as_millis() as i32)?;
    }
    let to = Snapshot::take(options.broker_pid);
    report.interval(&from, &to, received);
    let ms = |at: u64| (at - from.at_ns) as f64 / 1e6;
    report.figure("opened_ms", ms(opened_ns));
    report.figure_if("first_event_ms", first_ns.map(ms));
    report.figure("caught_up_ms", ms(last_ns));
    let seconds = (last_ns - from.at_ns).max(1) as f64 / 1e9;
    report.figure("delivered_per_s", received as f64 / seconds);
    report.set("delivered", received);
    report.set("lost", stream.lost(messages));
    report.set("duplicates", stream.duplicates);
    report.set("out_of_order", stream.late);
    report.set("gaps", gaps);
    report.set("errors", error.into_iter().collect::<Vec<_>>());
    Ok(())
}
