//! The real binary, started again and again on one directory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::link::{DEADLINE, Step, violation};

/// How the broker is started.
pub struct Setup {
    /// The directory of the store.
    pub data: PathBuf,
    /// Further values for `--set`.
    pub settings: Vec<String>,
    /// Variables, such as those that put the shim before the system's file operations.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// Small files, so that a round sees segments come and go and several checkpoints.
    pub fn new(data: &Path) -> Setup {
        let settings = [
            "mqtt.listen=127.0.0.1:0",
            "http.listen=",
            "sys.interval=0s",
            "store.segment_bytes=64KiB",
            "store.checkpoint_bytes=48KiB",
            "store.disk_free_min=0",
        ];
        let mut settings: Vec<String> = settings.map(str::to_owned).into();
        settings.push(format!("store.path={}", data.display()));
        Setup {
            data: data.to_owned(),
            settings,
            environment: Vec::new(),
        }
    }

    /// From now on the store is in another directory.
    pub fn move_to(&mut self, data: &Path) {
        let before = format!("store.path={}", self.data.display());
        for setting in &mut self.settings {
            if *setting == before {
                *setting = format!("store.path={}", data.display());
            }
        }
        self.data = data.to_owned();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
            .current_dir(self.data.parent().expect("a directory of its own"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it and kills it after `delay`, whatever it is doing then.
    pub async fn start_and_kill(&self, delay: Duration) -> Process {
        let mut process = self.spawn();
        tokio::time::sleep(delay).await;
        process.kill();
        process
    }

    /// Starts it, and waits until it serves clients.
    pub async fn start(&self) -> Step<Running> {
        let mut process = self.spawn();
        let ready = process.ready.take().expect("nobody took it");
        match tokio::time::timeout(DEADLINE, ready).await {
            Ok(Ok(address)) => Ok(Running { process, address }),
            Ok(Err(_)) => violation(format!("it did not start:\n{}", process.log())),
            Err(_) => violation(format!("it does not get ready:\n{}", process.log())),
        }
    }

    fn spawn(&self) -> Process {
        let mut child = self.command().spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("piped");
        let (tell, ready) = oneshot::channel();
        let (growing, grows) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let address = line
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("mqtt="))
                    .filter(|_| line.contains(" ready "))
                    .and_then(|address| address.parse().ok());
                if let Some(address) = address
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(address);
                }
                let mut log = log.lock().expect("nobody panics with it");
                log.push(line);
                growing.send_replace(log.len());
            }
        });
        Process {
            child,
            lines,
            grows,
            reader: Some(reader),
            ready: Some(ready),
        }
    }
}

/// A process, running or dead.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    grows: watch::Receiver<usize>,
    reader: Option<std::thread::JoinHandle<()>>,
    ready: Option<oneshot::Receiver<SocketAddr>>,
}

impl Process {
    /// SIGKILL; returns when it is dead and all that it logged was read.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// SIGTERM; returns when it has stopped in order.
    pub async fn stop(&mut self) -> Step<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let started = std::time::Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.kill();
                return match status.success() {
                    true => Ok(()),
                    false => violation(format!("it ended with {status}:\n{}", self.log())),
                };
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        violation(format!("it does not stop:\n{}", self.log()))
    }

    /// All that it logged so far.
    pub fn log(&self) -> String {
        self.lines.lock().expect("nobody panics with it").join("\n")
    }

    /// Waits for a line of the log that has `word` in it.
    pub async fn expect_log(&self, word: &str) -> Step<()> {
        let mut grows = self.grows.clone();
        let found = tokio::time::timeout(DEADLINE, grows.wait_for(|_| self.log().contains(word)));
        match found.await {
            Ok(Ok(_)) => Ok(()),
            _ => violation(format!("{word:?} is not in the log:\n{}", self.log())),
        }
    }

    /// A line that no healthy broker writes; one with `allowed` in it is none.
    pub fn complaint(&self, allowed: Option<&str>) -> Option<String> {
        let lines = self.lines.lock().expect("nobody panics with it");
        lines
            .iter()
            .find(|line| {
                (line.contains("panicked") || line.contains("ERROR"))
                    && allowed.is_none_or(|allowed| !line.contains(allowed))
            })
            .cloned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A broker that serves clients.
pub struct Running {
    pub process: Process,
    pub address: SocketAddr,
}
