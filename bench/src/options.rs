//! What can be said on the command line; one set of options for all scenarios, so that the same
//! word means the same everywhere. A scenario documents its own defaults for the counts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::client::Target;
use crate::engine::stamp::{BINARY_LEN, TEXT_LEN};
use crate::web::{PublishOver, SubscribeOver, WebOptions};
use crate::wire::Version;

/// What a subscription that nobody publishes to looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FilterKind {
    Exact,
    /// A single-level wildcard in the middle.
    Plus,
    /// A multi-level wildcard at the end.
    Hash,
}

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the broker listens for MQTT.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub address: SocketAddr,
    /// The broker's process: without it there are no figures of CPU and memory.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// QoS of publishers and subscriptions.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// 3.1.1 or 5.
    #[arg(long = "version", default_value = "3.1.1")]
    pub version: Version,
    /// Bytes of payload, at least 24; 49 where it has to be text.
    #[arg(long, default_value_t = 64)]
    pub payload: usize,
    /// Closed loop: messages that each publisher has in flight, unacknowledged or undelivered.
    #[arg(long)]
    pub window: Option<usize>,
    /// Closed loop: a publisher waits until it may send this many at once [half of the window].
    #[arg(long)]
    pub batch: Option<usize>,
    /// Open loop: messages a second of all publishers together, instead of a window.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    /// Seconds of load before measuring begins.
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Messages of each publisher (of all together where a scenario says so), instead of a time.
    #[arg(long)]
    pub messages: Option<u64>,
    /// Pairs, publishers, connections or retained messages, as the scenario says.
    #[arg(long)]
    pub clients: Option<usize>,
    /// Subscribers of each topic, or durable sessions.
    #[arg(long)]
    pub subscribers: Option<usize>,
    /// Topics that each publisher goes through in turn; above 1, subscriptions end in `+`.
    #[arg(long, default_value_t = 1)]
    pub topics: usize,
    /// In `shared`: the same messages to the same clients in turns, but each has a topic of its own
    /// and the publisher goes through them. What it costs more with a shared subscription is the
    /// price of sharing; the rest is that of so many connections.
    #[arg(long)]
    pub turns: bool,
    /// Durable sessions that each message matches, in `offline` and `drain`.
    #[arg(long, default_value_t = 1)]
    pub targets: usize,
    /// Unrelated connections that are open during the run.
    #[arg(long, default_value_t = 0)]
    pub idle: usize,
    /// Unrelated subscriptions that exist during the run.
    #[arg(long)]
    pub unrelated: Option<usize>,
    /// Connections that hold the unrelated subscriptions.
    #[arg(long, default_value_t = 10)]
    pub holders: usize,
    /// What the unrelated subscriptions look like.
    #[arg(long, value_enum, default_value_t = FilterKind::Exact)]
    pub filters: FilterKind,
    /// Sessions that outlive their connection (clean_session = 0).
    #[arg(long)]
    pub durable: bool,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Never sleep in the generator: costs a core, takes its own wake-ups out of the latency.
    #[arg(long)]
    pub spin: bool,
    /// Leave behind what the run made in the broker; `connects`: leave connections open.
    #[arg(long)]
    pub keep: bool,
    /// `drain`: the messages were stored by an earlier `offline --keep --run NAME`.
    #[arg(long)]
    pub filled: bool,
    /// `offline`: kills the broker (SIGKILL) as soon as everything is acknowledged.
    #[arg(long, requires_all = ["broker_pid", "keep"])]
    pub kill: bool,
    /// Subscriptions that are made, as fast as the broker takes them, while measuring goes on.
    #[arg(long)]
    pub storm: Option<usize>,
    /// Name of the run in topics and client identifiers [of this process].
    #[arg(long)]
    pub run: Option<String>,
    /// `retained`: times that the retained messages are asked for.
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// `raw-log`: where to write.
    #[arg(long, default_value = ".")]
    pub directory: PathBuf,
    /// Seconds without any progress after which messages in flight are taken for lost.
    #[arg(long, default_value_t = 2.0)]
    pub stall: f64,
    /// One JSON object on standard output instead of lines for people.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub web: WebOptions,
}

impl Options {
    pub fn check(&self) -> Result<()> {
        let payload_min = match self.web.text() {
            true => TEXT_LEN,
            false => BINARY_LEN,
        };
        ensure!(
            self.payload >= payload_min,
            "--payload must be at least {payload_min}"
        );
        ensure!(self.threads >= 1, "--threads must be at least 1");
        ensure!(self.topics >= 1, "--topics must be at least 1");
        ensure!(self.targets >= 1, "--targets must be at least 1");
        ensure!(
            self.window
                .is_none_or(|window| (1..=60_000).contains(&window)),
            "--window must be 1 to 60000: packet identifiers have 16 bits"
        );
        Ok(())
    }

    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            version: self.version,
            websocket: false,
        }
    }

    /// MQTT over WebSocket.
    fn websocket_target(&self) -> Target {
        Target {
            address: self.web.http,
            version: self.version,
            websocket: true,
        }
    }

    /// Where publishers connect that speak MQTT.
    pub fn publisher_target(&self) -> Target {
        match self.web.publish_over {
            PublishOver::MqttWs => self.websocket_target(),
            PublishOver::Mqtt | PublishOver::Http => self.target(),
        }
    }

    /// Where subscribers connect that speak MQTT.
    pub fn subscriber_target(&self) -> Target {
        match self.web.subscribe_over {
            SubscribeOver::MqttWs => self.websocket_target(),
            SubscribeOver::Mqtt | SubscribeOver::Sse | SubscribeOver::Ws => self.target(),
        }
    }

    /// Short, because client identifiers of more than 23 bytes may be refused.
    pub fn run_name(&self) -> String {
        self.run
            .clone()
            .unwrap_or_else(|| format!("{:x}", std::process::id() & 0xF_FFFF))
    }

    /// Marks the payloads of a run, so that those of another one are not counted.
    pub fn mark(&self) -> u32 {
        // FNV-1a: the same in every process, unlike the hashes of the standard library.
        self.run_name().bytes().fold(0x811C_9DC5, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }

    pub fn stall(&self) -> Duration {
        Duration::from_secs_f64(self.stall)
    }
}
