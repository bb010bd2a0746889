//! What a run found, as one flat object: printed as lines for people or as JSON.

use serde_json::{Map, Value};

use crate::histogram::Histogram;
use crate::process::Snapshot;

#[derive(Default)]
pub struct Report {
    fields: Map<String, Value>,
}

impl Report {
    pub fn new(scenario: &str) -> Report {
        let mut report = Report::default();
        report.set("scenario", scenario);
        report
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    /// A figure, rounded so that no digits are shown that are only noise.
    pub fn figure(&mut self, key: &str, value: f64) {
        let rounded = if value.abs() >= 1000.0 {
            value.round()
        } else {
            (value * 100.0).round() / 100.0
        };
        self.set(key, rounded);
    }

    pub fn figure_if(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.figure(key, value);
        }
    }

    /// A figure that was set.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.fields.get(key)?.as_f64()
    }

    /// CPU, disk and time between two snapshots, for each of `messages`.
    pub fn interval(&mut self, from: &Snapshot, to: &Snapshot, messages: u64) {
        let each = |ns: u64| ns as f64 / messages.max(1) as f64;
        let seconds = (to.at_ns - from.at_ns) as f64 / 1e9;
        self.figure("seconds", seconds);
        let between = |a: Option<u64>, b: Option<u64>| Some(b? - a?.min(b?));
        let broker = between(from.broker_cpu_ns, to.broker_cpu_ns);
        self.figure_if("broker_cpu_ns_per_message", broker.map(each));
        self.figure_if(
            "broker_cpu_percent",
            broker.map(|ns| ns as f64 / 1e7 / seconds),
        );
        if let (Some(a), Some(b)) = (from.user_system_ms, to.user_system_ms) {
            self.set("broker_user_ms", b.0 - a.0);
            self.set("broker_system_ms", b.1 - a.1);
        }
        self.figure(
            "generator_cpu_ns_per_message",
            each(to.own_cpu_ns - from.own_cpu_ns),
        );
        if let Some(bytes) = between(from.disk_write_bytes, to.disk_write_bytes) {
            self.set("disk_write_bytes", bytes);
        }
    }

    /// Percentiles in microseconds.
    pub fn latency(&mut self, key: &str, histogram: &Histogram) {
        if histogram.count() == 0 {
            return;
        }
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            self.figure(
                &format!("{key}_{name}_us"),
                histogram.quantile(share) as f64 / 1e3,
            );
        }
        self.figure(&format!("{key}_max_us"), histogram.max() as f64 / 1e3);
    }

    pub fn print(&self, json: bool) {
        if json {
            println!("{}", Value::Object(self.fields.clone()));
            return;
        }
        for (key, value) in &self.fields {
            match value {
                Value::String(text) => println!("{key:<34} {text}"),
                value => println!("{key:<34} {value}"),
            }
        }
    }
}
