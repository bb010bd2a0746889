//! The brokers that can be compared: how each is found, configured, started and stopped.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::{Client, Target};
use crate::wire::Version;

/// How long a broker may take until it answers a CONNECT, and until it has ended.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known about a broker in general.
pub struct Kind {
    pub name: &'static str,
    /// Its program on the PATH; empty where it is only found by being told of.
    program: &'static str,
    /// Configuration files.
    files: Files,
    arguments: &'static [&'static str],
    version_arguments: &'static [&'static str],
    /// Version 5 has its own port.
    two_ports: bool,
    pub versions: &'static [Version],
    pub qos_max: u8,
    pub shared: bool,
    /// What an acknowledgement of QoS 1 means with this configuration.
    pub keeps: &'static str,
    /// Whether there is a configuration that loses less.
    pub durable: Durable,
    /// The package to install it by, if there is one.
    install: Option<Package>,
}

/// How a broker is run where its persistence is to be at its best.
#[derive(Clone, Copy)]
pub enum Durable {
    /// As always: it has no persistence, or none that could be measured.
    No,
    /// As always: it is what it is.
    Already,
    /// With other files, and what an acknowledgement of QoS 1 means then.
    With(Files, &'static str),
}

/// Names and templates. The first one is what `@FILE@` stands for.
type Files = &'static [(&'static str, &'static str)];

#[derive(Clone, Copy)]
enum Package {
    Debian(&'static str),
    Cargo(&'static str),
}

macro_rules! files {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../peers/", $name)))),+]
    };
}

const BOTH: &[Version] = &[Version::V311, Version::V5];

pub const TIDINGS: &str = "tidings";
pub const FLOOR: &str = "floor";

pub const KINDS: &[Kind] = &[
    Kind {
        name: TIDINGS,
        program: "tidings",
        files: files!["tidings.toml"],
        arguments: &["--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "on disk, flushed",
        durable: Durable::Already,
        install: None,
    },
    Kind {
        name: "mosquitto-2.1",
        program: "",
        files: files!["mosquitto.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["-h"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(files!["mosquitto-2.1-durable.conf"], "in SQLite"),
        install: None,
    },
    Kind {
        name: "mosquitto",
        program: "mosquitto",
        files: files!["mosquitto.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["-h"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(
            files!["mosquitto-durable.conf"],
            "in memory, saved once a second",
        ),
        install: Some(Package::Debian("mosquitto")),
    },
    Kind {
        name: "flashmq",
        program: "flashmq",
        files: files!["flashmq.conf"],
        arguments: &["--config-file", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(
            files!["flashmq-durable.conf"],
            "in memory, saved every 5 minutes",
        ),
        install: None,
    },
    Kind {
        name: "flashmq-1-thread",
        program: "",
        files: files!["flashmq-1-thread.conf"],
        arguments: &["--config-file", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        install: None,
    },
    Kind {
        name: "rumqttd",
        program: "rumqttd",
        files: files!["rumqttd.toml"],
        arguments: &["--quiet", "--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: true,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        install: Some(Package::Cargo("rumqttd")),
    },
    Kind {
        name: "nats-server",
        program: "nats-server",
        files: files!["nats.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: &[Version::V311],
        qos_max: 1,
        shared: false,
        keeps: "written, not flushed",
        durable: Durable::With(files!["nats-durable.conf"], "on disk, flushed"),
        install: Some(Package::Debian("nats-server")),
    },
    Kind {
        name: "nanomq",
        program: "nanomq",
        files: files!["nanomq.conf"],
        arguments: &["start", "--conf", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        install: None,
    },
    Kind {
        name: "rmqtt",
        program: "rmqttd",
        files: files!["rmqtt.toml", "rmqtt-retainer.toml"],
        arguments: &["--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        install: Some(Package::Cargo("rmqttd")),
    },
    Kind {
        name: FLOOR,
        program: "",
        files: &[],
        arguments: &["relay", "--listen", "127.0.0.1:@PORT@"],
        version_arguments: &[],
        two_ports: false,
        versions: BOTH,
        qos_max: 0,
        shared: false,
        keeps: "",
        durable: Durable::No,
        install: None,
    },
];

impl Kind {
    /// All configuration files, those for durability behind the others.
    pub fn all_files(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let more: Files = match self.durable {
            Durable::With(files, _) => files,
            Durable::No | Durable::Already => &[],
        };
        self.files.iter().chain(more)
    }

    fn files(&self, durable: bool) -> Files {
        match self.durable {
            Durable::With(files, _) if durable => files,
            _ => self.files,
        }
    }
}

/// A broker of this machine.
pub struct Peer {
    pub name: String,
    pub kind: &'static Kind,
    pub program: PathBuf,
    pub version: String,
}

impl Peer {
    /// `name` is that of a kind, or begins with it (`flashmq-master`); the longest such counts.
    pub fn named(name: &str, program: PathBuf) -> Result<Peer> {
        let kind = KINDS
            .iter()
            .filter(|kind| name.starts_with(kind.name))
            .max_by_key(|kind| kind.name.len())
            .with_context(|| {
                let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
                format!("{name} begins with none of {}", known.join(", "))
            })?;
        ensure!(
            program.is_file(),
            "there is no program {}",
            program.display()
        );
        let program = program.canonicalize()?;
        let version = match kind.name {
            FLOOR => "a relay that copies bytes; appends to a file".to_owned(),
            _ => version(kind, &program),
        };
        Ok(Peer {
            name: name.to_owned(),
            kind,
            program,
            version,
        })
    }

    /// Those that are installed.
    pub fn installed() -> Vec<Peer> {
        let found = KINDS
            .iter()
            .filter(|kind| !kind.program.is_empty() && kind.name != TIDINGS);
        found
            .filter_map(|kind| Peer::named(kind.name, on_path(kind.program)?).ok())
            .collect()
    }

    /// Starts it in a directory of its own that is empty, with its persistence at its best if
    /// `durable`.
    pub fn start(&self, directory: &Path, durable: bool) -> Result<Running> {
        // What an earlier run left behind is not what is measured.
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        // Nor is what the kernel still has to write of it.
        // SAFETY: has no arguments and does not fail.
        unsafe { libc::sync() };
        self.start_again(directory, durable)
    }

    /// Starts it with what is in the directory.
    pub fn start_again(&self, directory: &Path, durable: bool) -> Result<Running> {
        let ports = free_ports(3)?;
        let beside = self.program.parent().unwrap_or(Path::new("/"));
        let fill = |template: &str, file: &Path| {
            template
                .replace("@PORT@", &ports[0].to_string())
                .replace("@PORT5@", &ports[1].to_string())
                .replace("@PORT2@", &ports[2].to_string())
                .replace("@DIR@", &directory.display().to_string())
                .replace("@PROGRAM_DIR@", &beside.display().to_string())
                .replace("@FILE@", &file.display().to_string())
                .replace("@CORES@", &cores().to_string())
                .replace("@FILES@", &crate::process::raise_open_files().to_string())
        };
        let mut first = PathBuf::new();
        for (name, template) in self.kind.files(durable).iter().rev() {
            first = directory.join(name);
            fs::write(&first, fill(template, &first))?;
        }
        let log = directory.join("output.log");
        let output = File::create(&log)?;
        let mut command = Command::new(&self.program);
        command
            .args(
                self.kind
                    .arguments
                    .iter()
                    .map(|argument| fill(argument, &first)),
            )
            .current_dir(directory)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // SAFETY: only an async-signal-safe call is made between fork and exec. A comparison that
        // is interrupted should not leave brokers behind.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let port_v5 = if self.kind.two_ports {
            ports[1]
        } else {
            ports[0]
        };
        let mut running = Running {
            child,
            addresses: [ports[0], port_v5].map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        };
        if let Err(error) = running.wait_until_ready(self.kind) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(3)..];
            bail!(
                "{} did not start: {error:#}; its last words: {last:?}",
                self.name
            );
        }
        Ok(running)
    }
}

/// A broker that runs; ended when dropped.
pub struct Running {
    child: Child,
    addresses: [SocketAddr; 2],
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self, version: Version) -> SocketAddr {
        self.addresses[usize::from(version == Version::V5)]
    }

    fn wait_until_ready(&mut self, kind: &Kind) -> Result<()> {
        let began = Instant::now();
        for version in kind.versions {
            let target = Target {
                address: self.address(*version),
                version: *version,
            };
            // One name for both would be a takeover, which is more than is asked here.
            let client_id = format!("ready{version:?}");
            loop {
                match Client::open(&target, &client_id, false) {
                    Ok(client) => {
                        client.close();
                        break;
                    }
                    Err(error) if began.elapsed() > START_TIMEOUT => return Err(error),
                    Err(_) => {}
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("it ended with {status}");
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits until it is gone.
    pub fn wait(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.is_alive() {
            ensure!(began.elapsed() < STOP_TIMEOUT, "the broker did not end");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_alive() {
            return;
        }
        // SAFETY: the child has not been waited for, so the identifier is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let began = Instant::now();
        while self.is_alive() {
            if began.elapsed() > STOP_TIMEOUT {
                // It may have ended just now; either way it is gone after this.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Installs what Debian and crates.io have.
pub fn install() -> Result<()> {
    for kind in KINDS {
        if kind.program.is_empty() || on_path(kind.program).is_some() {
            continue;
        }
        let (program, arguments) = match kind.install {
            Some(Package::Debian(name)) => ("apt-get", vec!["install", "--yes", name]),
            // Not --locked: what some of them locked is not built by the compilers of today.
            Some(Package::Cargo(name)) => ("cargo", vec!["install", name]),
            None => continue,
        };
        eprintln!("{program} {}", arguments.join(" "));
        let status = Command::new(program).args(arguments).status();
        match status {
            Ok(status) if status.success() => {}
            outcome => eprintln!("{} is left out: {outcome:?}", kind.name),
        }
    }
    Ok(())
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(home)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The first line with a digit that the program says when asked for its version.
fn version(kind: &Kind, program: &Path) -> String {
    let output = Command::new(program)
        .args(kind.version_arguments)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return "unknown".to_owned();
    };
    let mut said = String::new();
    // Cannot fail: both are in memory.
    let _ = output
        .stdout
        .as_slice()
        .chain(output.stderr.as_slice())
        .read_to_string(&mut said);
    said.lines()
        .find(|line| line.contains(|letter: char| letter.is_ascii_digit()))
        .map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<_>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<std::io::Result<_>>()?)
}
