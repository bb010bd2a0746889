//! The brokers of this machine: how each is found, started and stopped.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::kinds::{FLOOR, KINDS, Kind, Package, Setup, TIDINGS};
use crate::client::{Client, Target};
use crate::wire::Version;

/// How long a broker may take until it answers a CONNECT, and until it has ended.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// Starts it in a directory of its own that is empty.
    pub fn start(&self, directory: &Path, setup: Setup) -> Result<Running> {
        // What an earlier run left behind is not what is measured.
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        // Nor is what the kernel still has to write of it.
        // SAFETY: has no arguments and does not fail.
        unsafe { libc::sync() };
        self.start_again(directory, setup)
    }

    /// Starts it with what is in the directory.
    pub fn start_again(&self, directory: &Path, setup: Setup) -> Result<Running> {
        let ports = free_ports(4)?;
        let beside = self.program.parent().unwrap_or(Path::new("/"));
        let fill = |template: &str, file: &Path| {
            template
                .replace("@PORT@", &ports[0].to_string())
                .replace("@PORT5@", &ports[1].to_string())
                .replace("@PORT2@", &ports[2].to_string())
                .replace("@HTTP@", &ports[3].to_string())
                .replace("@DIR@", &directory.display().to_string())
                .replace("@PROGRAM_DIR@", &beside.display().to_string())
                .replace("@FILE@", &file.display().to_string())
                .replace("@CORES@", &cores().to_string())
                .replace("@FILES@", &crate::process::raise_open_files().to_string())
        };
        let mut first = PathBuf::new();
        for (name, template) in self.kind.files(setup).iter().rev() {
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
            http: SocketAddr::from(([127, 0, 0, 1], ports[3])),
        };
        if let Err(error) = running.wait_until_ready(self.kind, setup) {
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
    http: SocketAddr,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self, version: Version) -> SocketAddr {
        self.addresses[usize::from(version == Version::V5)]
    }

    /// Where it listens for HTTP and WebSockets, where it was set up for them.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    fn wait_until_ready(&mut self, kind: &Kind, setup: Setup) -> Result<()> {
        let began = Instant::now();
        for version in kind.versions {
            let target = Target {
                address: self.address(*version),
                version: *version,
                websocket: false,
            };
            // One name for both would be a takeover, which is more than is asked here.
            let client_id = format!("ready{version:?}");
            self.wait_for(began, || Client::open(&target, &client_id, false))?;
        }
        if matches!(setup, Setup::Web | Setup::Webhooks) {
            let http = self.http;
            self.wait_for(began, || Client::dial(http))?;
        }
        Ok(())
    }

    /// Tries until it succeeds.
    fn wait_for(&mut self, began: Instant, open: impl Fn() -> Result<Client>) -> Result<()> {
        loop {
            match open() {
                Ok(client) => {
                    client.close();
                    return Ok(());
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
