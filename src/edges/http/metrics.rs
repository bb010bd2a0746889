//! `GET /metrics`: figures in the text format of Prometheus. No label has a value that a client
//! chooses.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use hyper::{Response, StatusCode};

use super::Edge;
use super::respond::{self, Body};
use crate::broker::feed::FeedSummary;
use crate::broker::stats::{ATTEMPT_ENDS, ATTEMPT_MILLIS, DROPS};
use crate::store::Health;
use crate::webhooks::Endpoint;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Figures(String);

impl Figures {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(
            self.0,
            "# HELP tidings_{name} {help}\n# TYPE tidings_{name} {kind}\n"
        );
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "tidings_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.value(name, "", value);
    }

    fn per_stream(
        &mut self,
        name: &str,
        help: &str,
        streams: &[&FeedSummary],
        value: impl Fn(&FeedSummary) -> u64,
    ) {
        self.head(name, "gauge", help);
        for stream in streams {
            let label = stream.stream.as_deref().unwrap_or_default();
            self.value(name, &format!("{{stream=\"{label}\"}}"), value(stream));
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", help);
        self.value(name, "", value);
    }
}

/// All figures.
pub(super) fn show(edge: &Edge) -> Response<Body> {
    let broker = &edge.broker;
    let stats = &broker.stats;
    let store = broker.store().stats();
    let mut out = Figures(String::new());
    out.head("build_info", "gauge", "The version that runs.");
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    out.value("build_info", &version, 1);
    let uptime = broker.clock.now().since(broker.clock.started_at()) / 1000;
    out.gauge("uptime_seconds", "Time since the start.", uptime);
    out.head("connections", "gauge", "Connections at this moment.");
    out.value(
        "connections",
        "{edge=\"mqtt\"}",
        stats.clients_connected.get(),
    );
    out.value("connections", "{edge=\"http\"}", edge.connections());
    out.gauge(
        "http_streams",
        "Event streams, long polls and WebSockets.",
        edge.streams(),
    );
    out.gauge(
        "http_body_bytes",
        "Bytes of the bodies of requests that are not answered yet.",
        edge.bodies.bytes(),
    );
    out.counter(
        "connections_accepted_total",
        "MQTT connections since the start.",
        stats.connections_total.get(),
    );
    out.counter(
        "connections_refused_total",
        "Connections refused.",
        stats.connections_refused.get(),
    );
    out.counter(
        "connections_panicked_total",
        "Connections ended by a defect.",
        stats.connections_panicked.get(),
    );
    out.gauge(
        "sessions",
        "Sessions, connected or not.",
        broker.session_count(),
    );
    out.counter(
        "messages_received_total",
        "Messages published.",
        stats.publish_received.get(),
    );
    out.counter(
        "messages_sent_total",
        "Messages delivered.",
        stats.publish_sent.get(),
    );
    out.head(
        "messages_dropped_total",
        "counter",
        "Messages not delivered or not accepted, by reason.",
    );
    for (reason, name) in DROPS {
        let label = format!("{{reason=\"{name}\"}}");
        out.value("messages_dropped_total", &label, stats.dropped_for(reason));
    }
    out.counter(
        "received_bytes_total",
        "Bytes received from MQTT clients.",
        stats.bytes_received.get(),
    );
    out.counter(
        "sent_bytes_total",
        "Bytes sent to MQTT clients.",
        stats.bytes_sent.get(),
    );
    out.gauge(
        "queued_bytes",
        "Bytes of messages in all queues.",
        stats.queued_bytes.get(),
    );
    out.gauge(
        "queued_memory_bytes",
        "Bytes of memory that they take.",
        stats.held_bytes.get(),
    );
    out.gauge(
        "retained_messages",
        "Retained messages.",
        broker.retained_count(),
    );
    let feeds = broker.feeds();
    let (streams, windows): (Vec<_>, Vec<_>) = feeds.iter().partition(|feed| feed.stream.is_some());
    out.per_stream(
        "stream_messages",
        "Messages that a stream keeps.",
        &streams,
        |stream| stream.messages,
    );
    out.per_stream(
        "stream_bytes",
        "Bytes of the messages that a stream keeps.",
        &streams,
        |stream| stream.bytes,
    );
    out.gauge(
        "windows",
        "Sets of filters that are kept for readers that come back.",
        windows.len(),
    );
    of_webhooks(edge, &mut out);
    let healthy = u8::from(matches!(broker.store().health(), Health::Well));
    out.gauge(
        "store_healthy",
        "1 while the store takes everything.",
        healthy,
    );
    out.gauge(
        "store_waiting_bytes",
        "Bytes that wait for the disk.",
        store.waiting_bytes,
    );
    out.counter(
        "store_commits_total",
        "Groups written and flushed together.",
        store.commits,
    );
    out.counter(
        "store_messages_total",
        "Messages committed.",
        store.messages,
    );
    let longest = store.commit_micros_max as f64 / 1e6;
    out.gauge(
        "store_commit_seconds_max",
        "The longest commit since the last look.",
        longest,
    );
    out.gauge(
        "store_log_bytes",
        "Bytes of the log on the disk.",
        store.log_bytes,
    );
    out.counter(
        "store_written_bytes_total",
        "Bytes written to the log.",
        store.log_bytes_written,
    );
    out.counter("store_checkpoints_total", "Checkpoints.", store.checkpoints);
    respond::with(StatusCode::OK, CONTENT_TYPE, out.0)
}

/// Figures of webhooks, over all endpoints: their names are their owners' choice.
fn of_webhooks(edge: &Edge, out: &mut Figures) {
    let stats = &edge.broker.stats.webhooks;
    let endpoints = edge.webhooks.list_all();
    out.head("webhook_endpoints", "gauge", "Webhook endpoints, by state.");
    for state in ["active", "paused", "disabled"] {
        let in_state = endpoints.iter().filter(|it| it.state().as_str() == state);
        let label = format!("{{state=\"{state}\"}}");
        out.value("webhook_endpoints", &label, in_state.count());
    }
    let sum = |of: &dyn Fn(&Endpoint) -> u64| endpoints.iter().map(|it| of(it)).sum::<u64>();
    let dead = sum(&|it| it.dead.len() as u64);
    out.gauge(
        "webhook_queued_messages",
        "Messages that wait to be delivered to webhooks, be it again.",
        sum(&|it| it.queue.len()).saturating_sub(dead),
    );
    out.gauge(
        "webhook_retrying_messages",
        "Messages of which an attempt failed, and another is due later.",
        sum(&|it| it.gauges.retrying.load(Ordering::Relaxed)),
    );
    out.gauge(
        "webhook_dead_letters",
        "Messages that ran out of attempts and are kept.",
        dead,
    );
    out.counter(
        "webhook_dead_letters_crowded_out_total",
        "Dead letters that had to go for others.",
        sum(&|it| it.dead.crowded_out()),
    );
    out.gauge(
        "webhook_attempts_in_flight",
        "Attempts under way.",
        stats.in_flight.get(),
    );
    out.gauge(
        "webhook_endpoints_broken",
        "Endpoints that are left alone for a while, because most of their last attempts failed.",
        stats.broken.get(),
    );
    out.head("webhook_attempts_total", "counter", "Attempts, by result.");
    for (end, name) in ATTEMPT_ENDS {
        let label = format!("{{result=\"{name}\"}}");
        out.value("webhook_attempts_total", &label, stats.attempts(end));
    }
    let name = "webhook_attempt_seconds";
    out.head(name, "histogram", "How long attempts take.");
    let up_to = stats.attempts_up_to();
    for (most, count) in ATTEMPT_MILLIS.iter().zip(up_to) {
        let label = format!("{{le=\"{}\"}}", *most as f64 / 1e3);
        out.value("webhook_attempt_seconds_bucket", &label, count);
    }
    let all = up_to[ATTEMPT_MILLIS.len()];
    out.value("webhook_attempt_seconds_bucket", "{le=\"+Inf\"}", all);
    out.value(
        "webhook_attempt_seconds_sum",
        "",
        stats.millis.get() as f64 / 1e3,
    );
    out.value("webhook_attempt_seconds_count", "", all);
    out.counter(
        "webhook_messages_delivered_total",
        "Messages delivered to webhooks.",
        stats.delivered.get(),
    );
    out.counter(
        "webhook_messages_dead_total",
        "Messages that became dead letters.",
        stats.dead.get(),
    );
    out.counter(
        "webhook_messages_discarded_total",
        "Messages of QoS 0 whose only attempt failed.",
        stats.discarded.get(),
    );
    out.counter(
        "webhook_endpoints_disabled_total",
        "Endpoints disabled because they were gone, or only failed.",
        stats.disabled.get(),
    );
    out.counter(
        "webhook_tasks_panicked_total",
        "Tasks of endpoints ended by a defect.",
        stats.panicked.get(),
    );
}
