//! Publishes a number of messages that nobody receives while they are published.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{open_publishers, template, traffic};
use crate::engine::{Control, EnginePlan, GroupPlan, Outcome, Pace, Phase, PublisherPlan};
use crate::options::Options;
use crate::process::{self, Snapshot};
use crate::report::Report;

pub struct Fill {
    /// Each publisher goes through them in turn.
    pub topics: Vec<String>,
    pub publishers: usize,
    /// Of each publisher.
    pub messages: u64,
    /// Of each publisher.
    pub window: u64,
    /// The payloads have to be text.
    pub text: bool,
}

impl Fill {
    /// Publishes, and reports what is acknowledged how fast. With `--kill` the broker is killed as
    /// soon as everything is.
    pub fn run(&self, options: &Options, report: &mut Report) -> Result<Outcome> {
        let ids: Vec<String> = (0..self.publishers)
            .map(|index| format!("{}w{index}", options.run_name()))
            .collect();
        let templates: Vec<_> = self
            .topics
            .iter()
            .map(|topic| template(options, topic, self.text))
            .collect();
        let window = self.window;
        let batch = options
            .batch
            .map_or(window / 2, |batch| batch as u64)
            .clamp(1, window);
        // Those who publish are not those whose sessions are durable.
        let passing = Options {
            durable: false,
            ..options.clone()
        };
        let publishers = open_publishers(&passing, &ids)?
            .into_iter()
            .map(|client| PublisherPlan {
                client,
                pace: Pace::Closed { window, batch },
                templates: templates.clone(),
                limit: self.messages,
            })
            .collect();
        let plan = EnginePlan {
            groups: vec![GroupPlan {
                publishers,
                subscribers: Vec::new(),
                endpoints: 0,
                shared: false,
                unheard: true,
            }],
            version: options.version,
            qos: options.qos,
            stall: options.stall(),
            spin: options.spin,
            mark: options.mark(),
            listener: None,
        };
        let control = Control::new();
        let threads = traffic::start(vec![plan], &control)?;
        let total = self.messages * self.publishers as u64;
        let over = || {
            control.finished.load(Relaxed) + control.errors.load(Relaxed) >= self.publishers as u64
        };
        let wait_for = |acknowledged: u64| {
            while control.acknowledged.load(Relaxed) < acknowledged && !over() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        // A tenth is the warm-up.
        wait_for(total / 10);
        let from = Snapshot::take(options.broker_pid);
        let acknowledged = control.acknowledged.load(Relaxed);
        wait_for(total);
        let to = Snapshot::take(options.broker_pid);
        let acknowledged = control.acknowledged.load(Relaxed) - acknowledged;
        if let Some(pid) = options.broker_pid.filter(|_| options.kill) {
            process::kill(pid);
        }
        control.enter(Phase::Quit);
        let outcome = Outcome::gather(threads)?;
        report.interval(&from, &to, acknowledged);
        let seconds = (to.at_ns - from.at_ns).max(1) as f64 / 1e9;
        report.figure("acknowledged_per_s", acknowledged as f64 / seconds);
        report.set("sent", outcome.sent);
        report.set(
            "unacknowledged",
            outcome.sent.saturating_sub(outcome.acknowledged),
        );
        report.set("stalls", outcome.stalls);
        report.set("refused", outcome.refused);
        report.set("errors", outcome.errors.clone());
        Ok(outcome)
    }
}
