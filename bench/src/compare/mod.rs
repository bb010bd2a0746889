//! Runs Tidings beside other brokers and writes down what came out.
//!
//! `peers` starts and stops brokers, `rows` says what is measured, `results` keeps the rounds,
//! `table` and `plot` show them. Each run is a process of this program, so that no run inherits the
//! memory, the ports or the threads of another.

mod kinds;
mod machine;
mod peers;
mod plot;
mod results;
mod rows;
mod table;
mod web_rows;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use kinds::{Durable, FLOOR, TIDINGS};
use machine::Machine;
use peers::{Peer, Running};
use results::{Results, Run};
use rows::{Better, Floor, Row};

/// A run that takes longer hangs.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(clap::Args, Clone, Debug)]
pub struct CompareOptions {
    /// The release binary of Tidings.
    #[arg(long, default_value = "target/release/tidings")]
    pub tidings: PathBuf,
    /// A broker that is not on the PATH, or another version: `flashmq=/opt/flashmq`,
    /// `mosquitto-2.1=/opt/mosquitto`.
    #[arg(long = "broker", value_name = "NAME=PATH")]
    pub brokers: Vec<String>,
    /// Only these brokers, by name; `floor` is the relay and the raw disk.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only rows with one of these names, or whose name contains it where no row has it.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds that each run is measured.
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    /// Installs the brokers that Debian and crates.io have.
    #[arg(long)]
    pub install: bool,
    /// Where brokers keep their files during a run; should be a disk, not memory.
    #[arg(long, default_value = "target/compare")]
    pub directory: PathBuf,
    /// Where the results go [bench/results/DATE-COMMIT].
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Lists brokers and rows, and runs nothing.
    #[arg(long)]
    pub list: bool,
}

/// Everything that a page of results shows.
pub struct Comparison {
    options: CompareOptions,
    command: String,
    commit: String,
    date: String,
    peers: Vec<Peer>,
    rows: Vec<&'static Row>,
    results: Results,
}

pub fn run(options: &CompareOptions) -> Result<()> {
    if options.install {
        peers::install()?;
    }
    let mut comparison = Comparison {
        options: options.clone(),
        command: command(),
        commit: machine::commit(),
        date: machine::today(),
        peers: choose_peers(options)?,
        rows: choose_rows(options)?,
        results: Results::default(),
    };
    if options.list {
        for peer in &comparison.peers {
            println!(
                "{:<16} {} ({})",
                peer.name,
                peer.version,
                peer.program.display()
            );
        }
        for row in &comparison.rows {
            println!("{:<22} {}", row.id, row.title);
        }
        return Ok(());
    }
    let machine = Machine::this();
    let output = options.output.clone().unwrap_or_else(|| {
        PathBuf::from(format!(
            "bench/results/{}-{}",
            comparison.date, comparison.commit
        ))
    });
    fs::create_dir_all(output.join("peers"))?;
    for peer in &comparison.peers {
        for (name, template) in peer.kind.all_files() {
            fs::write(output.join("peers").join(name), template)?;
        }
    }
    fs::create_dir_all(&options.directory)?;
    let directory = options.directory.canonicalize()?;
    let mut raw = File::create(output.join("runs.jsonl"))?;
    comparison.measure(&directory, &mut raw)?;
    let title = "CPU time of the broker per delivered message";
    fs::write(output.join("cost.svg"), plot::svg(&comparison, title))?;
    let page = table::page(&comparison, &machine, "Tidings and other brokers");
    fs::write(output.join("README.md"), page)?;
    print!("{}", table::summary(&comparison));
    println!("{}", output.join("README.md").display());
    Ok(())
}

/// The arguments, without where this machine has its programs.
fn command() -> String {
    let arguments = std::env::args()
        .skip(2)
        .map(|argument| match argument.split_once('=') {
            Some((name, path)) if path.contains('/') => format!("{name}=PATH"),
            _ => argument,
        });
    arguments.collect::<Vec<_>>().join(" ")
}

fn choose_peers(options: &CompareOptions) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if options.tidings.is_file() {
        peers.push(Peer::named(TIDINGS, options.tidings.clone())?);
    } else {
        eprintln!("no {}: comparing the others", options.tidings.display());
    }
    for text in &options.brokers {
        let (name, path) = text.split_once('=').context("--broker takes NAME=PATH")?;
        peers.push(Peer::named(name, PathBuf::from(path))?);
    }
    for peer in Peer::installed() {
        if peers.iter().all(|chosen| chosen.name != peer.name) {
            peers.push(peer);
        }
    }
    peers.push(Peer::named(FLOOR, std::env::current_exe()?)?);
    if !options.only.is_empty() {
        peers.retain(|peer| options.only.contains(&peer.name));
    }
    ensure!(!peers.is_empty(), "no broker to compare");
    Ok(peers)
}

fn choose_rows(options: &CompareOptions) -> Result<Vec<&'static Row>> {
    let matches = |name: &String, row: &Row| {
        let exact = rows::all().any(|row| row.id == name);
        row.id == name || (!exact && row.id.contains(name.as_str()))
    };
    let wanted =
        |row: &&Row| options.rows.is_empty() || options.rows.iter().any(|name| matches(name, row));
    let rows: Vec<_> = rows::all().filter(wanted).collect();
    ensure!(!rows.is_empty(), "no row has such a name");
    Ok(rows)
}

impl Comparison {
    /// All rounds. Brokers take turns within each row, and begin with another one in each round, so
    /// that a machine that gets slower or faster does so for all of them.
    fn measure(&mut self, directory: &Path, raw: &mut File) -> Result<()> {
        let total = self.options.rounds * self.rows.len() * self.peers.len();
        let began = Instant::now();
        let mut done = 0;
        for round in 0..self.options.rounds {
            for row in 0..self.rows.len() {
                for turn in 0..self.peers.len() {
                    let peer = (turn + round) % self.peers.len();
                    done += 1;
                    let (name, id) = (&self.peers[peer].name, self.rows[row].id);
                    let Some(run) = self.measure_one(row, peer, directory) else {
                        continue;
                    };
                    let minutes = began.elapsed().as_secs() / 60;
                    eprint!(
                        "[{done}/{total}, {minutes} min] round {} {id} {name}: ",
                        round + 1
                    );
                    let mut line = json!({"row": id, "broker": name, "round": round + 1});
                    match &run {
                        Run::Done(report) => {
                            eprintln!("{}", brief(self.rows[row], report));
                            line["report"] = Value::Object(report.clone());
                        }
                        Run::Failed(why) => {
                            eprintln!("failed: {why}");
                            line["failed"] = why.as_str().into();
                        }
                    }
                    writeln!(raw, "{line}")?;
                    self.results.add(row, peer, run);
                }
            }
        }
        Ok(())
    }

    /// `None` where the broker does not claim to do this.
    fn measure_one(&self, row: usize, peer: usize, directory: &Path) -> Option<Run> {
        let (row, peer) = (self.rows[row], &self.peers[peer]);
        let outcome = if peer.kind.name == FLOOR {
            match row.floor {
                Floor::None => return None,
                Floor::Relay => self.run_broker(row, peer, directory),
                Floor::RawLog(group) => self.run_raw_log(group, directory),
            }
        } else {
            let kind = peer.kind;
            let able = match row.web {
                Some(over) => kind.web.is_some_and(|web| web.subscribe.contains(&over)),
                None => kind.versions.contains(&row.version),
            };
            let able = able
                && kind.qos_max >= row.qos
                && (kind.shared || !row.shared)
                && (row.only.is_empty() || row.only == kind.name)
                && (row.killed || !row.durable || !matches!(kind.durable, Durable::No));
            if !able {
                return None;
            }
            self.run_broker(row, peer, directory)
        };
        Some(outcome.unwrap_or_else(|error| {
            let why = format!("{error:#}").replace(&*directory.to_string_lossy(), "DIRECTORY");
            Run::Failed(why)
        }))
    }

    fn run_broker(&self, row: &Row, peer: &Peer, directory: &Path) -> Result<Run> {
        let directory = directory.join(&peer.name);
        let mut broker = peer.start(&directory, row.setup())?;
        if row.killed {
            return self.kill(row, peer, broker, &directory);
        }
        let report = generate(
            &self.arguments(row, row.scenario, peer, &broker),
            &mut broker,
        )?;
        ensure!(broker.is_alive(), "the broker ended during the run");
        // The cost of a message that did not come is not 0.
        let delivered = report.get("delivered").and_then(Value::as_u64);
        if delivered == Some(0) || figures_are_zero(row, &report) {
            let error = report
                .get("errors")
                .and_then(|errors| errors.get(0)?.as_str());
            bail!(
                "nothing was delivered: {}",
                error.unwrap_or("no error was seen")
            );
        }
        Ok(Run::Done(report))
    }

    fn arguments(&self, row: &Row, scenario: &str, peer: &Peer, broker: &Running) -> Vec<String> {
        let mut arguments = vec![scenario.to_owned()];
        let pairs = [
            ("--address", broker.address(row.version).to_string()),
            ("--broker-pid", broker.pid().to_string()),
            ("--qos", row.qos.to_string()),
            ("--version", row.version.to_string()),
        ];
        for (name, value) in pairs {
            arguments.extend([name.to_owned(), value]);
        }
        if let (Some(over), Some(web)) = (row.web, peer.kind.web) {
            arguments.extend(["--http".to_owned(), broker.http().to_string()]);
            let choices = [
                ("--subscribe-over", over.to_possible_value()),
                ("--publish-over", web.publish.to_possible_value()),
                ("--server", web.server.to_possible_value()),
            ];
            for (name, choice) in choices {
                let choice = choice.map(|it| it.get_name().to_owned());
                arguments.extend([name.to_owned(), choice.unwrap_or_default()]);
            }
        }
        if !row.arguments.contains(&"--duration") {
            arguments.extend(["--duration".to_owned(), self.options.duration.to_string()]);
        }
        if row.leaves {
            // The broker ends after the run; there is nothing to clean.
            arguments.push("--keep".to_owned());
        }
        arguments.extend(row.arguments.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    /// Has the generator kill the broker once everything is acknowledged, starts it again and has
    /// the sessions ask for what they are owed.
    fn kill(&self, row: &Row, peer: &Peer, mut broker: Running, directory: &Path) -> Result<Run> {
        let more = ["--run".to_owned(), "killed".to_owned()];
        let mut arguments = self.arguments(row, row.scenario, peer, &broker);
        arguments.extend(more.clone());
        arguments.push("--kill".to_owned());
        let filled = finish(generator(&arguments).spawn()?, None)?;
        ensure!(
            filled.get("unacknowledged").and_then(Value::as_u64) == Some(0),
            "not all messages were acknowledged"
        );
        broker.wait()?;
        let began = Instant::now();
        let mut broker = peer.start_again(directory, row.setup())?;
        let restart = began.elapsed();
        let mut arguments = self.arguments(row, "drain", peer, &broker);
        arguments.extend(more);
        arguments.push("--filled".to_owned());
        let drained = generate(&arguments, &mut broker)?;
        let lost = drained.get("lost").context("nothing is said of losses")?;
        let mut report = Map::new();
        report.insert("lost_by_kill".to_owned(), lost.clone());
        // So that the quickest to come back with nothing is not called the best.
        report.insert("lost".to_owned(), lost.clone());
        report.insert("restart_ms".to_owned(), json!(restart.as_secs_f64() * 1e3));
        report.insert("filled".to_owned(), Value::Object(filled));
        report.insert("drained".to_owned(), Value::Object(drained));
        Ok(Run::Done(report))
    }

    fn run_raw_log(&self, group: usize, directory: &Path) -> Result<Run> {
        let arguments = [
            "raw-log".to_owned(),
            "--window".to_owned(),
            group.to_string(),
            "--duration".to_owned(),
            self.options.duration.to_string(),
            "--directory".to_owned(),
            directory.display().to_string(),
        ];
        let mut report = finish(generator(&arguments).spawn()?, None)?;
        // So that it stands in the line of what the brokers acknowledge.
        if let Some(rate) = report.get(&format!("records_per_s_group_{group}")).cloned() {
            report.insert("acknowledged_per_s".to_owned(), rate);
        }
        Ok(Run::Done(report))
    }
}

/// All that should be more than nothing is nothing.
fn figures_are_zero(row: &Row, report: &Map<String, Value>) -> bool {
    let mut rates = row
        .figures
        .iter()
        .filter(|figure| figure.better == Better::More)
        .peekable();
    rates.peek().is_some()
        && rates.all(|figure| report.get(figure.key).and_then(Value::as_f64) == Some(0.0))
}

/// The figures of one run in a line.
fn brief(row: &Row, report: &Map<String, Value>) -> String {
    let mut parts: Vec<String> = row
        .figures
        .iter()
        .filter_map(|figure| {
            let value = report.get(figure.key)?.as_f64()?;
            Some(format!(
                "{} {} {}",
                figure.label,
                results::short(value),
                figure.unit
            ))
        })
        .collect();
    for key in ["lost", "unacknowledged", "stalls", "failed"] {
        match report.get(key).and_then(Value::as_u64) {
            None | Some(0) => {}
            Some(count) => parts.push(format!("{key} {count}")),
        }
    }
    if let Some(Value::Array(errors)) = report.get("errors")
        && let Some(first) = errors.first()
    {
        parts.push(first.to_string());
    }
    parts.join(", ")
}

fn generator(arguments: &[String]) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tidings-bench"));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn generate(arguments: &[String], broker: &mut Running) -> Result<Map<String, Value>> {
    finish(generator(arguments).spawn()?, Some(broker))
}

/// Waits for the generator; it is ended when it hangs or its broker is gone.
fn finish(
    mut child: std::process::Child,
    mut broker: Option<&mut Running>,
) -> Result<Map<String, Value>> {
    let began = Instant::now();
    let mut reason = None;
    while child.try_wait()?.is_none() {
        if began.elapsed() > RUN_TIMEOUT {
            reason = Some("the run took too long");
        } else if broker.as_mut().is_some_and(|broker| !broker.is_alive()) {
            reason = Some("the broker ended during the run");
        }
        if let Some(reason) = reason {
            child.kill()?;
            child.wait()?;
            bail!(reason);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim());
    }
    let report = serde_json::from_slice(&output.stdout).context("the report is no JSON object")?;
    Ok(report)
}
