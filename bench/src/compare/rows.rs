//! What is compared: one run each, with the figures that are read from it.

use super::kinds::Setup;
use super::web_rows::WEB_ROWS;
use crate::web::SubscribeOver;
use crate::wire::Version;

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

pub struct Figure {
    /// In the report of the run.
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

/// What stands below all brokers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    None,
    Relay,
    /// Appending groups of so many records, with a flush each.
    RawLog(usize),
}

pub struct Row {
    /// For `--rows` and the raw results.
    pub id: &'static str,
    pub title: &'static str,
    pub scenario: &'static str,
    pub arguments: &'static [&'static str],
    pub version: Version,
    pub qos: u8,
    pub shared: bool,
    /// Would store something in the broker and clean it at the end.
    pub leaves: bool,
    /// Brokers run with the configuration that loses least.
    pub durable: bool,
    /// The broker also listens for HTTP and WebSockets; how subscribers are connected.
    pub web: Option<SubscribeOver>,
    /// It also may send webhooks to this machine.
    pub webhooks: bool,
    /// The one broker that has such a thing; empty for all.
    pub only: &'static str,
    /// The broker is killed at the end, started again, and asked for what it acknowledged.
    pub killed: bool,
    pub floor: Floor,
    pub figures: &'static [Figure],
}

impl Row {
    /// The configuration that it needs.
    pub fn setup(&self) -> Setup {
        match self.web {
            Some(_) if self.webhooks => Setup::Webhooks,
            Some(_) => Setup::Web,
            None if self.durable => Setup::Durable,
            None => Setup::Usual,
        }
    }
}

pub const CPU: Figure = Figure {
    key: "broker_cpu_ns_per_message",
    label: "CPU per delivered message",
    unit: "ns",
    better: Better::Less,
};

pub const RATE: Figure = Figure {
    key: "delivered_per_s",
    label: "delivered",
    unit: "/s",
    better: Better::More,
};

const ACKNOWLEDGED: Figure = Figure {
    key: "acknowledged_per_s",
    label: "acknowledged",
    unit: "/s",
    better: Better::More,
};

const CPU_ACKNOWLEDGED: Figure = Figure {
    key: "broker_cpu_ns_per_message",
    label: "CPU per acknowledged message",
    unit: "ns",
    better: Better::Less,
};

pub const fn percentile(key: &'static str, label: &'static str) -> Figure {
    Figure {
        key,
        label,
        unit: "µs",
        better: Better::Less,
    }
}

pub const LATENCY: &[Figure] = &[
    percentile("latency_p50_us", "latency, p50"),
    percentile("latency_p99_us", "latency, p99"),
    percentile("latency_p99.9_us", "latency, p99.9"),
    CPU,
];

pub const ROW: Row = Row {
    id: "",
    title: "",
    scenario: "pairs",
    arguments: &[],
    version: Version::V311,
    qos: 0,
    shared: false,
    leaves: false,
    durable: false,
    web: None,
    webhooks: false,
    only: "",
    killed: false,
    floor: Floor::None,
    figures: &[CPU, RATE],
};

/// All rows, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(WEB_ROWS)
}

const ROWS: &[Row] = &[
    Row {
        id: "pairs10-qos0",
        title: "10 pairs, QoS 0",
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "pairs10-qos1",
        title: "10 pairs, QoS 1",
        qos: 1,
        ..ROW
    },
    Row {
        id: "pairs10-qos2",
        title: "10 pairs, QoS 2",
        qos: 2,
        ..ROW
    },
    Row {
        id: "pairs10-qos0-v5",
        title: "10 pairs, QoS 0, MQTT 5",
        version: Version::V5,
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "pairs10-qos1-v5",
        title: "10 pairs, QoS 1, MQTT 5",
        version: Version::V5,
        qos: 1,
        ..ROW
    },
    Row {
        id: "pair1-qos0",
        title: "1 pair, QoS 0",
        arguments: &["--clients", "1"],
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "pair1-qos1",
        title: "1 pair, QoS 1",
        arguments: &["--clients", "1"],
        qos: 1,
        ..ROW
    },
    Row {
        id: "pair1-qos2",
        title: "1 pair, QoS 2",
        arguments: &["--clients", "1"],
        qos: 2,
        ..ROW
    },
    Row {
        id: "pairs100-single-qos0",
        title: "100 pairs, 1 message in flight each, QoS 0",
        arguments: &["--clients", "100", "--window", "1"],
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "pairs100-single-qos1",
        title: "100 pairs, 1 message in flight each, QoS 1",
        arguments: &["--clients", "100", "--window", "1"],
        qos: 1,
        ..ROW
    },
    Row {
        id: "topics-qos0",
        title: "10 pairs, 100 topics each, `+` subscriptions, QoS 0",
        arguments: &["--topics", "100"],
        ..ROW
    },
    Row {
        id: "fan-in-qos0",
        title: "fan-in 100 → 1, QoS 0",
        scenario: "fan-in",
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "fan-out100-qos0",
        title: "fan-out 1 → 100, QoS 0",
        scenario: "fan-out",
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "fan-out1000-qos0",
        title: "fan-out 1 → 1000, QoS 0",
        scenario: "fan-out",
        arguments: &["--subscribers", "1000", "--window", "100"],
        floor: Floor::Relay,
        ..ROW
    },
    Row {
        id: "fan-out1000-qos1",
        title: "fan-out 1 → 1000, QoS 1",
        scenario: "fan-out",
        arguments: &["--subscribers", "1000", "--window", "100"],
        qos: 1,
        ..ROW
    },
    Row {
        id: "fan-out1000-rate100",
        title: "fan-out 1 → 1000, 100 publishes a second, QoS 0",
        scenario: "fan-out",
        arguments: &["--subscribers", "1000", "--rate", "100"],
        floor: Floor::Relay,
        figures: LATENCY,
        ..ROW
    },
    Row {
        id: "shared1",
        title: "shared subscription with 1 member, QoS 0",
        scenario: "shared",
        arguments: &["--subscribers", "1"],
        shared: true,
        ..ROW
    },
    Row {
        id: "shared100",
        title: "shared subscription with 100 members, QoS 0",
        scenario: "shared",
        arguments: &["--subscribers", "100"],
        shared: true,
        ..ROW
    },
    Row {
        id: "latency2000",
        title: "1 pair at 2,000 a second, QoS 0",
        scenario: "latency",
        arguments: &["--rate", "2000"],
        floor: Floor::Relay,
        figures: LATENCY,
        ..ROW
    },
    Row {
        id: "idle-beside",
        title: "10 pairs beside 10,000 idle connections, QoS 0",
        arguments: &["--idle", "10000"],
        ..ROW
    },
    Row {
        id: "idle10000",
        title: "10,000 idle connections",
        scenario: "idle",
        arguments: &["--clients", "10000", "--duration", "1"],
        figures: &[Figure {
            key: "bytes_each",
            label: "resident memory each",
            unit: "B",
            better: Better::Less,
        }],
        ..ROW
    },
    Row {
        id: "connects",
        title: "connections opened and closed",
        scenario: "connects",
        figures: &[
            Figure {
                key: "connects_per_s",
                label: "connections",
                unit: "/s",
                better: Better::More,
            },
            Figure {
                key: "broker_cpu_ns_per_message",
                label: "CPU of each",
                unit: "ns",
                better: Better::Less,
            },
        ],
        ..ROW
    },
    Row {
        id: "subscriptions100k",
        title: "10 pairs beside 100,000 subscriptions, QoS 0",
        scenario: "many-subscriptions",
        arguments: &["--unrelated", "100000"],
        figures: &[
            Figure {
                key: "bytes_each_subscription",
                label: "resident memory of a subscription",
                unit: "B",
                better: Better::Less,
            },
            CPU,
        ],
        ..ROW
    },
    Row {
        id: "storm100k",
        title: "1 pair at 2,000 a second while 100,000 subscriptions are made",
        scenario: "latency",
        arguments: &["--storm", "100000"],
        figures: &[
            percentile("latency_p99_us", "latency, p99"),
            percentile("latency_max_us", "latency, maximum"),
            Figure {
                key: "storm_subscribed_per_s",
                label: "subscriptions",
                unit: "/s",
                better: Better::More,
            },
        ],
        ..ROW
    },
    Row {
        id: "retained100k",
        title: "100,000 retained messages to a new subscriber of `#`",
        scenario: "retained",
        leaves: true,
        figures: &[Figure {
            key: "replay_ms",
            label: "until all are there",
            unit: "ms",
            better: Better::Less,
        }],
        ..ROW
    },
    Row {
        id: "persistent-qos1",
        title: "10 pairs with durable sessions, connected, QoS 1",
        scenario: "persistent-pairs",
        leaves: true,
        qos: 1,
        ..ROW
    },
    Row {
        id: "offline-1000",
        title: "QoS 1 into 100 absent sessions, 1,000 in flight",
        scenario: "offline",
        leaves: true,
        qos: 1,
        floor: Floor::RawLog(1000),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "offline-100",
        title: "QoS 1 into 100 absent sessions, 100 in flight",
        scenario: "offline",
        leaves: true,
        arguments: &["--window", "100"],
        qos: 1,
        floor: Floor::RawLog(100),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "offline-1000-ten",
        title: "QoS 1 into 100 absent sessions, ten of them per message, 1,000 in flight",
        scenario: "offline",
        leaves: true,
        arguments: &["--targets", "10"],
        qos: 1,
        floor: Floor::RawLog(1000),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "offline-100-ten",
        title: "QoS 1 into 100 absent sessions, ten of them per message, 100 in flight",
        scenario: "offline",
        leaves: true,
        arguments: &["--targets", "10", "--window", "100"],
        qos: 1,
        floor: Floor::RawLog(100),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "durable-1000",
        title: "QoS 1 into 100 absent sessions, 1,000 in flight, persistence at its best",
        scenario: "offline",
        leaves: true,
        durable: true,
        arguments: &["--messages", "100000", "--stall", "20"],
        qos: 1,
        floor: Floor::RawLog(1000),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "durable-100-ten",
        title: "QoS 1 into 100 absent sessions, ten of them per message, 100 in flight, persistence at its best",
        scenario: "offline",
        leaves: true,
        durable: true,
        arguments: &[
            "--targets",
            "10",
            "--window",
            "100",
            "--messages",
            "100000",
            "--stall",
            "20",
        ],
        qos: 1,
        floor: Floor::RawLog(100),
        figures: &[ACKNOWLEDGED, CPU_ACKNOWLEDGED],
        ..ROW
    },
    Row {
        id: "killed",
        title: "kill -9 after 20,000 acknowledged messages, persistence at its best",
        scenario: "offline",
        leaves: true,
        durable: true,
        killed: true,
        arguments: &["--messages", "20000", "--stall", "20"],
        qos: 1,
        figures: &[
            Figure {
                key: "lost_by_kill",
                label: "lost of these",
                unit: "messages",
                better: Better::Less,
            },
            Figure {
                key: "restart_ms",
                label: "until it serves again",
                unit: "ms",
                better: Better::Less,
            },
        ],
        ..ROW
    },
    Row {
        id: "drain",
        title: "400,000 messages to 100 sessions that return",
        scenario: "drain",
        // Some pause for seconds between two batches.
        arguments: &["--stall", "20"],
        leaves: true,
        qos: 1,
        figures: &[RATE, CPU],
        ..ROW
    },
];
