//! Load generator and benchmarks for Tidings and other brokers.
//!
//! `scenario` says what can be measured, `engine` makes the load, `report` prints what was found.

mod client;
mod compare;
mod engine;
mod histogram;
mod options;
mod process;
mod relay;
mod report;
mod scenario;
mod web;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

use options::Options;
use scenario::{connects, idle, offline, raw_log, resume, retained, streams, traffic, webhooks};

#[derive(Parser)]
#[command(name = "tidings-bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// `--clients` publishers (10), each with one subscriber.
    Pairs(Options),
    /// `--clients` publishers (100), one subscriber.
    FanIn(Options),
    /// One publisher, `--subscribers` subscribers (100).
    FanOut(Options),
    /// One publisher, one shared subscription with `--subscribers` members (100).
    Shared(Options),
    /// Pairs beside `--unrelated` subscriptions (100000), and what each of these weighs.
    ManySubscriptions(Options),
    /// `--rate` messages a second (2000), whatever comes back; percentiles.
    Latency(Options),
    /// Pairs with sessions that outlive their connection, at QoS 1 unless said otherwise.
    PersistentPairs(Options),
    /// `--clients` connections (10000) that do nothing, and what each of these weighs.
    Idle(Options),
    /// Connections a second, `--window` handshakes at a time (100); with `--keep`, `--clients` of
    /// them (10000) stay open.
    Connects(Options),
    /// `--clients` retained messages (100000), and how long a new subscriber of `#` waits for them.
    Retained(Options),
    /// `--clients` publishers (10) send `--messages` (400000 of all together) to `--subscribers`
    /// durable sessions (100) that are away, with `--window` in flight (1000 of all together).
    Offline(Options),
    /// What `offline` does, then the sessions come back for what they are owed.
    Drain(Options),
    /// Appends and fdatasyncs a file in `--directory`, in groups of `--window`: the floor under
    /// `offline`.
    RawLog(Options),
    /// `--clients` subscribers (10000) that get nothing, and what each of these weighs; then a
    /// message for all of them.
    Streams(Options),
    /// A reader of an event stream comes back `--messages` (1000000) later.
    Resume(Options),
    /// One publisher, `--subscribers` webhook endpoints (1) beside `--dead` ones.
    Webhooks(Options),
    /// `--messages` (1000000) for one webhook endpoint that is dead, and what each of these weighs.
    WebhookBacklog(Options),
    /// Runs the floor of QoS 0: a relay that copies bytes without parsing them.
    Relay(relay::RelayOptions),
    /// Runs Tidings beside other brokers; writes a table and a plot.
    Compare(compare::CompareOptions),
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that `Result` from main would print: `compare` reads this.
            eprintln!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (scenario, options): (fn(&Options) -> Result<report::Report>, Options) =
        match Arguments::parse().command {
            Command::Pairs(options) => (traffic::pairs, options),
            Command::FanIn(options) => (traffic::fan_in, options),
            Command::FanOut(options) => (traffic::fan_out, options),
            Command::Shared(options) => (traffic::shared, options),
            Command::ManySubscriptions(options) => (traffic::many_subscriptions, options),
            Command::Latency(options) => (traffic::latency, options),
            Command::PersistentPairs(options) => (traffic::persistent_pairs, options),
            Command::Idle(options) => (idle::run, options),
            Command::Connects(options) => (connects::run, options),
            Command::Retained(options) => (retained::run, options),
            Command::Offline(options) => (offline::offline, options),
            Command::Drain(options) => (offline::drain, options),
            Command::RawLog(options) => (raw_log::run, options),
            Command::Streams(options) => (streams::run, options),
            Command::Resume(options) => (resume::run, options),
            Command::Webhooks(options) => (webhooks::deliveries, options),
            Command::WebhookBacklog(options) => (webhooks::backlog, options),
            Command::Relay(options) => {
                process::raise_open_files();
                return relay::run(&options);
            }
            Command::Compare(options) => {
                process::raise_open_files();
                return compare::run(&options);
            }
        };
    options.check()?;
    process::raise_open_files();
    scenario(&options)?.print(options.json);
    Ok(())
}
