//! What is compared of event streams, WebSockets and webhooks.

use super::kinds::TIDINGS;
use super::rows::{Better, CPU, Figure, LATENCY, RATE, ROW, Row, percentile};
use crate::web::SubscribeOver::{MqttWs, Sse, Ws};

const BATCHES: &[&str] = &["--subscribers", "1000", "--window", "100"];
const RAW_BATCHES: &[&str] = &["--subscribers", "1000", "--window", "100", "--raw"];
const PACED: &[&str] = &["--subscribers", "1000", "--rate", "100"];
const RAW_PACED: &[&str] = &["--subscribers", "1000", "--rate", "100", "--raw"];
const IDLE: &[&str] = &["--clients", "10000", "--duration", "1", "--stall", "20"];
const OWN: &[&str] = &[
    "--clients",
    "9999",
    "--duration",
    "1",
    "--stall",
    "20",
    "--own-filter",
];

const fn less(key: &'static str, label: &'static str, unit: &'static str) -> Figure {
    Figure {
        key,
        label,
        unit,
        better: Better::Less,
    }
}

const EACH: &[Figure] = &[
    less("bytes_each", "resident memory each", "B"),
    less("latency_max_us", "until all have a message", "µs"),
];

const FAN_OUT: Row = Row {
    scenario: "fan-out",
    arguments: BATCHES,
    ..ROW
};

const RESUME: Row = Row {
    scenario: "resume",
    web: Some(Sse),
    figures: &[
        less("first_event_ms", "until the first event", "ms"),
        less("caught_up_ms", "until it has caught up", "ms"),
        CPU,
    ],
    ..ROW
};

const WEBHOOKS: Row = Row {
    scenario: "webhooks",
    web: Some(Sse),
    webhooks: true,
    only: TIDINGS,
    leaves: true,
    qos: 1,
    ..ROW
};

const DELIVERY_LATENCY: &[Figure] = &[
    percentile("latency_p50_us", "publish to POST, p50"),
    percentile("latency_p99_us", "publish to POST, p99"),
    CPU,
];

pub const WEB_ROWS: &[Row] = &[
    Row {
        id: "sse1000",
        title: "fan-out 1 → 1000 over SSE, payloads",
        arguments: RAW_BATCHES,
        web: Some(Sse),
        ..FAN_OUT
    },
    Row {
        id: "sse1000-json",
        title: "fan-out 1 → 1000 over SSE, JSON envelopes",
        web: Some(Sse),
        only: TIDINGS,
        ..FAN_OUT
    },
    Row {
        id: "ws1000",
        title: "fan-out 1 → 1000 over WebSocket (Tidings: JSON envelopes, nchan: payloads)",
        web: Some(Ws),
        ..FAN_OUT
    },
    Row {
        id: "mqtt-ws1000",
        title: "fan-out 1 → 1000 over MQTT over WebSocket, QoS 0",
        web: Some(MqttWs),
        ..FAN_OUT
    },
    Row {
        id: "sse1000-rate100",
        title: "fan-out 1 → 1000 over SSE, payloads, 100 publishes a second",
        arguments: RAW_PACED,
        web: Some(Sse),
        figures: LATENCY,
        ..FAN_OUT
    },
    Row {
        id: "sse1000-json-rate100",
        title: "fan-out 1 → 1000 over SSE, JSON envelopes, 100 publishes a second",
        arguments: PACED,
        web: Some(Sse),
        only: TIDINGS,
        figures: LATENCY,
        ..FAN_OUT
    },
    Row {
        id: "ws1000-rate100",
        title: "fan-out 1 → 1000 over WebSocket, 100 publishes a second",
        arguments: PACED,
        web: Some(Ws),
        figures: LATENCY,
        ..FAN_OUT
    },
    Row {
        id: "mqtt-ws1000-rate100",
        title: "fan-out 1 → 1000 over MQTT over WebSocket, 100 publishes a second, QoS 0",
        arguments: PACED,
        web: Some(MqttWs),
        figures: LATENCY,
        ..FAN_OUT
    },
    Row {
        id: "sse10000-idle",
        title: "10,000 idle event streams",
        scenario: "streams",
        arguments: IDLE,
        web: Some(Sse),
        figures: EACH,
        ..ROW
    },
    Row {
        id: "sse10000-idle-own",
        title: "9,999 idle event streams, each with a filter of its own too",
        scenario: "streams",
        arguments: OWN,
        web: Some(Sse),
        only: TIDINGS,
        figures: EACH,
        ..ROW
    },
    Row {
        id: "ws10000-idle",
        title: "10,000 idle WebSockets",
        scenario: "streams",
        arguments: IDLE,
        web: Some(Ws),
        figures: EACH,
        ..ROW
    },
    Row {
        id: "mqtt-ws10000-idle",
        title: "10,000 idle MQTT clients over WebSocket",
        scenario: "streams",
        arguments: IDLE,
        web: Some(MqttWs),
        figures: EACH,
        ..ROW
    },
    Row {
        id: "resume10k",
        title: "an event stream that comes back 10,000 messages later",
        arguments: &["--raw", "--messages", "10000"],
        ..RESUME
    },
    Row {
        id: "resume1m",
        title: "an event stream that comes back 1,000,000 messages later",
        arguments: &["--raw", "--stall", "20"],
        // Takes nchan minutes.
        only: TIDINGS,
        ..RESUME
    },
    Row {
        id: "webhooks64",
        title: "webhook, 64 deliveries in flight",
        arguments: &["--stall", "20"],
        figures: &[CPU, RATE],
        ..WEBHOOKS
    },
    Row {
        id: "webhooks-rate100",
        title: "webhook, 100 publishes a second",
        arguments: &["--rate", "100", "--stall", "20"],
        figures: DELIVERY_LATENCY,
        ..WEBHOOKS
    },
    Row {
        id: "webhooks10",
        title: "10 webhooks, 100 publishes a second",
        arguments: &["--subscribers", "10", "--rate", "100", "--stall", "20"],
        figures: DELIVERY_LATENCY,
        ..WEBHOOKS
    },
    Row {
        id: "webhooks10-refusing990",
        title: "10 webhooks beside 990 that refuse connections, 100 publishes a second",
        arguments: &[
            "--subscribers",
            "10",
            "--dead",
            "990",
            "--rate",
            "100",
            "--stall",
            "20",
        ],
        figures: DELIVERY_LATENCY,
        ..WEBHOOKS
    },
    Row {
        id: "webhooks10-hanging990",
        title: "10 webhooks beside 990 that never answer, 100 publishes a second",
        arguments: &[
            "--subscribers",
            "10",
            "--dead",
            "990",
            "--dead-by",
            "hanging",
            "--rate",
            "100",
            "--stall",
            "20",
        ],
        figures: DELIVERY_LATENCY,
        ..WEBHOOKS
    },
    Row {
        id: "webhook-backlog1m",
        title: "1,000,000 messages for a webhook that refuses connections",
        scenario: "webhook-backlog",
        figures: &[less("bytes_each", "resident memory each", "B")],
        ..WEBHOOKS
    },
];
