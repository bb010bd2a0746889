//! The real binary: for what only a process shows, such as its command line, its environment,
//! signals and exit codes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use super::wire::Connect;
use super::{Client, DEADLINE, scratch};

pub struct ProcessBroker {
    child: Child,
    log: Arc<Log>,
    fields: Vec<(String, String)>,
    arguments: Vec<String>,
    /// Goes with the process.
    directory: TempDir,
}

/// What a finished run left.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn follow(stderr: impl Read + Send + 'static) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer
                    .lines
                    .lock()
                    .expect("no panic while locked")
                    .0
                    .push(line);
                writer.changed.notify_all();
            }
            writer.lines.lock().expect("no panic while locked").1 = true;
            writer.changed.notify_all();
        });
        log
    }

    /// The first line with all of `words`.
    fn wait_for(&self, words: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        let mut state = self.lines.lock().expect("no panic while locked");
        loop {
            if let Some(line) = state
                .0
                .iter()
                .find(|line| words.iter().all(|word| line.contains(word)))
            {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                let ended = if state.1 {
                    "the process ended"
                } else {
                    "deadline"
                };
                panic!(
                    "no log line with {words:?} ({ended}); it logged:\n{}",
                    state.0.join("\n")
                );
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .expect("no panic while locked")
                .0;
        }
    }

    fn text(&self) -> String {
        self.lines
            .lock()
            .expect("no panic while locked")
            .0
            .join("\n")
    }
}

/// The binary with an empty directory to work in and none of our environment's `TIDINGS_`
/// variables.
fn command(directory: &TempDir) -> Command {
    command_of(env!("CARGO_BIN_EXE_tidings").as_ref(), directory)
}

fn command_of(binary: &OsStr, directory: &TempDir) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_"))
    {
        command.env_remove(name);
    }
    command
        .current_dir(directory.path())
        .env_remove("NOTIFY_SOCKET")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs the binary to its end; for commands and for starts that must fail.
pub fn run<S: AsRef<OsStr>>(
    directory: &TempDir,
    arguments: &[S],
    environment: &[(&str, &str)],
) -> Finished {
    run_with_input(directory, arguments, environment, "")
}

pub fn run_with_input<S: AsRef<OsStr>>(
    directory: &TempDir,
    arguments: &[S],
    environment: &[(&str, &str)],
    input: &str,
) -> Finished {
    let mut command = command(directory);
    command.args(arguments).envs(environment.iter().copied());
    finish(command, input)
}

/// Runs the binary to its end, without the rights of root: root may read and write everything.
pub fn run_unprivileged<S: AsRef<OsStr>>(directory: &TempDir, arguments: &[S]) -> Finished {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    /// `nobody`, whatever its name is.
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return run(directory, arguments, &[]);
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, open).expect("our own directory");
    // Where it lies nobody else may be let in. Copied by another process: a file that this one
    // has open for writing could be so in a child that is being started at the same time, and is
    // not run then.
    let binary = directory.path().join("tidings");
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_tidings"))
        .arg(&binary)
        .status();
    assert!(copied.expect("cp runs").success(), "cp");
    let mut command = command_of(binary.as_os_str(), directory);
    command.args(arguments).uid(NOBODY).gid(NOBODY);
    finish(command, "")
}

fn finish(mut command: Command, input: &str) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A process that reads no input closes the pipe; that is its right.
    let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    drop(stdin);
    let stderr = Log::follow(child.stderr.take().expect("piped"));
    let stdout = Log::follow(child.stdout.take().expect("piped"));
    let status = wait(&mut child)
        .unwrap_or_else(|| panic!("it did not end by itself; stderr:\n{}", stderr.text()));
    let finished = |log: Arc<Log>| {
        let mut state = log.lines.lock().expect("no panic while locked");
        while !state.1 {
            state = log.changed.wait(state).expect("no panic while locked");
        }
        state.0.join("\n")
    };
    Finished {
        status,
        stdout: finished(stdout),
        stderr: finished(stderr),
    }
}

/// Waits for the process's end; kills it at the deadline and returns `None`.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        // There is no event to wait for in std; the result does not depend on this interval.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn spawn(
    directory: &TempDir,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Child, Arc<Log>) {
    let mut child = command(directory)
        .args(arguments)
        // Several run at a time, and the port that is the default is there only once.
        .env("TIDINGS_HTTP_LISTEN", "127.0.0.1:0")
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let log = Log::follow(child.stderr.take().expect("piped"));
    (child, log)
}

impl ProcessBroker {
    /// On port 0 of the loopback interface, anybody may connect, with these further `--set` values.
    pub fn start(settings: &[&str]) -> ProcessBroker {
        let mut arguments = vec![
            "--set",
            "mqtt.listen=127.0.0.1:0",
            "--set",
            "http.listen=127.0.0.1:0",
        ];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        ProcessBroker::start_raw(scratch(), &arguments, &[])
    }

    /// With exactly these arguments and variables, in this directory.
    pub fn start_raw(
        directory: TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> ProcessBroker {
        let (child, log) = spawn(&directory, arguments, environment);
        let mut broker = ProcessBroker {
            child,
            log,
            fields: Vec::new(),
            arguments: arguments.iter().map(|&it| it.to_owned()).collect(),
            directory,
        };
        broker.wait_until_ready();
        broker
    }

    fn wait_until_ready(&mut self) {
        let line = self.log.wait_for(&["ready", "mqtt="]);
        self.fields = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
    }

    /// SIGKILL: it ends where it is, without a word.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it again, after its end, with the same arguments in the same directory.
    pub fn start_again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        (self.child, self.log) = spawn(&self.directory, &arguments, &[]);
        self.wait_until_ready();
    }

    /// Memory that is resident and its own: without the pages of files.
    pub fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: usize = kilobytes
            .and_then(|number| number.parse().ok())
            .expect("a line such as \"RssAnon: 1234 kB\"");
        kilobytes * 1024
    }

    /// The directory that it works in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A field of the `ready` line.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field == name);
        &found
            .unwrap_or_else(|| panic!("no field {name} in the ready line: {:?}", self.fields))
            .1
    }

    pub fn address(&self) -> SocketAddr {
        let listed = self.field("mqtt");
        let first = listed.split(',').next().expect("split has a first part");
        first
            .parse()
            .unwrap_or_else(|error| panic!("mqtt={listed}: {error}"))
    }

    pub async fn connect(&self, connect: Connect) -> Client {
        Client::connect(self.address(), connect).await
    }

    /// The first log line with all of `words`, now or within the deadline.
    pub fn expect_log(&self, words: &[&str]) -> String {
        self.log.wait_for(words)
    }

    /// All that was logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Sends a signal by name: `TERM`, `INT`, `KILL`, `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.expect("kill runs").success(), "kill -{name}");
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        match wait(&mut self.child) {
            Some(status) => status,
            None => panic!("it did not end; it logged:\n{}", self.log.text()),
        }
    }
}

impl Drop for ProcessBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
