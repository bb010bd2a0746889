//! The `tidings` binary: wiring. It parses the command line, loads the configuration, starts
//! the server, and passes on what the operating system wants from it.

mod cli;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tidings::config::{Config, DEFAULTS, Problems};
use tidings::ops::{files, logging, systemd};
use tidings::{Server, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use cli::{CommandLine, ConfigOptions, Task};

/// Messages are made by one thread and freed by another, in sizes from a few bytes to megabytes: it
/// makes the difference of a quarter of the work for messages that are kept.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The command line or the configuration is wrong; clap uses the same.
const EXIT_CONFIGURATION: u8 = 2;

/// Threads that may wait for the disk or verify passwords at once. When thousands of clients come
/// back for their queues together, more of them would only compete for the processor and for memory.
const BLOCKING_THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let task = CommandLine::parse()
        .task()
        .unwrap_or_else(|error| error.exit());
    let outcome = match task {
        Task::Serve(options) => serve(&options),
        Task::Check(options) => cli::check::run(&options, &mut std::io::stdout()),
        Task::Config => print_defaults(),
        Task::Store(command) => cli::store::run(&command, &mut std::io::stdout()),
        Task::Backup(options) => cli::backup::run(&options, &mut std::io::stdout()),
        Task::Passwd(options) => cli::passwd::run(&options),
        Task::Token(options) => cli::token::run(&options, &mut std::io::stdout()),
        Task::Publish(options) => talk(cli::publish::run(&options)),
        Task::Subscribe(options) => {
            let stop = tokio::signal::ctrl_c();
            talk(cli::subscribe::run(&options, &mut std::io::stdout(), stop))
        }
        Task::Webhook(options) => talk(cli::webhook::run(&options, &mut std::io::stdout())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Problems>() => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Err(error) => {
            eprintln!("tidings: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a client: one connection needs one thread.
fn talk(client: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("the runtime cannot be started")?
        .block_on(client)
}

fn print_defaults() -> anyhow::Result<()> {
    // Not `print!`, which panics when the reader has gone.
    std::io::stdout().write_all(DEFAULTS.as_bytes())?;
    Ok(())
}

fn serve(options: &ConfigOptions) -> anyhow::Result<()> {
    let config = options.load()?;
    logging::init(&config.log).context("logging cannot be set up")?;
    for warning in config.warnings() {
        warn!("{warning}");
    }
    check_open_files(&config);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime
        .enable_all()
        .thread_name("tidings")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build();
    runtime
        .context("the runtime cannot be started")?
        .block_on(run(options, config))
}

/// Warns if the process may not open as many connections as it is configured to accept.
fn check_open_files(config: &Config) {
    // What is open besides connections: files of the store, listeners, the runtime's own.
    const OTHERS: u64 = 100;
    let needed = u64::try_from(config.limits.connections_max)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    if let Some(limit) = files::raise_limit().filter(|limit| *limit < needed) {
        let connections_max = config.limits.connections_max;
        info!(
            limit,
            connections_max, "the limit on open files is reached before limits.connections_max"
        );
    }
}

async fn run(options: &ConfigOptions, config: Config) -> anyhow::Result<()> {
    // Before anything is bound, so that no signal is missed.
    let mut signals = Signals::new().context("signals cannot be received")?;
    let mut server = match Server::start(config).await {
        Ok(server) => server,
        // Told apart for the exit code: the password file is part of the configuration.
        Err(StartError::Config(problems)) => return Err(problems.into()),
        Err(error) => return Err(error.into()),
    };
    let (mqtt, http) = (
        joined(&server.addresses().mqtt),
        joined(&server.addresses().http),
    );
    info!(%mqtt, %http, pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "ready");
    let status = match http.is_empty() {
        true => format!("MQTT on {mqtt}"),
        false => format!("MQTT on {mqtt}, HTTP on {http}"),
    };
    systemd::ready(&status);
    if let Some(every) = systemd::watchdog_interval() {
        tokio::spawn(systemd::feed_watchdog(every));
    }

    while let Wanted::Reload = signals.next().await {
        systemd::reloading();
        match reload(&mut server, options).await {
            Ok(()) => info!("configuration reloaded"),
            Err(error) => error!("the configuration stays as it was: {error:#}"),
        }
        systemd::ready(&status);
    }

    info!("stopping");
    systemd::stopping();
    tokio::select! {
        () = server.shutdown() => info!("stopped"),
        // Who asks twice does not want to wait for the deadline.
        () = signals.stop() => warn!("stopped at once, by a second signal"),
    }
    Ok(())
}

fn joined(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(",")
}

async fn reload(server: &mut Server, options: &ConfigOptions) -> anyhow::Result<()> {
    let options = options.clone();
    let config = tokio::task::spawn_blocking(move || options.load()).await??;
    for warning in config.warnings() {
        warn!("{warning}");
    }
    server.reload(config)?;
    Ok(())
}

/// The signals that concern a broker.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// Waits for a signal to stop; there is nothing left to reload.
    async fn stop(&mut self) {
        while let Wanted::Reload = self.next().await {}
    }
}

/// What a signal asks for.
enum Wanted {
    Reload,
    Stop,
}
