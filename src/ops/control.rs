//! What the person who runs the broker can ask of it while it runs: a backup, or a token for a user.
//!
//! The broker listens on a Unix socket `control` in the directory of its store, which nobody but
//! its own user (and root) may connect to. A request is one JSON object on one line, and so is
//! its answer; a connection may ask many things, one after the other:
//!
//! ```text
//! {"command":"backup","target":"/var/backups/tidings"}
//! {"ok":true}
//! {"command":"token","user":"alice","expires_secs":3600}
//! {"ok":true,"token":"eyJhbGciOi…"}
//! {"command":"dance"}
//! {"ok":false,"error":"unknown command \"dance\"; this broker knows \"backup\" and \"token\""}
//! ```
//!
//! A broker that cannot have such a socket says so in its log and runs without it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::config::{Durability, StoreConfig};
use crate::store::Store;

/// The name of the socket.
const SOCKET: &str = "control";
/// The operating system takes names of sockets up to here.
const NAME_MAX: usize = 107;
/// Connections at a time: it takes one to ask for something.
const CLIENTS_MAX: usize = 8;
/// The longest request: a path, with room for everything in it to be escaped.
const LINE_MAX: u64 = 64 << 10;
/// How long a client may keep us waiting for a request, or for room for an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A request. What it needs besides its name depends on the command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is wanted: `backup` or `token`.
    pub command: String,
    /// Where a backup goes: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// For whom a token is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// How long a token is good for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_secs: Option<u64>,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// Why not, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The token that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
}

impl Answer {
    fn done() -> Answer {
        Answer {
            ok: true,
            error: None,
            token: None,
        }
    }

    fn refused(why: String) -> Answer {
        Answer {
            ok: false,
            error: Some(why),
            token: None,
        }
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a flag and texts can be written as JSON");
        line.push(b'\n');
        line
    }
}

/// Issues a token for a user, good for so long; why not.
pub type Issue = Box<dyn Fn(&str, Duration) -> Result<String, String> + Send + Sync>;

/// Connects to the broker whose store is in `directory`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] when none is running there.
pub fn connect(directory: &Path) -> io::Result<BlockingStream> {
    let name = Name::of(directory)?;
    BlockingStream::connect(&name.path)
}

/// A name for the socket in a directory that is short enough for the operating system.
struct Name {
    path: PathBuf,
    /// What a short name leads through.
    _directory: Option<File>,
}

impl Name {
    fn of(directory: &Path) -> io::Result<Name> {
        let path = directory.join(SOCKET);
        if path.as_os_str().len() <= NAME_MAX {
            return Ok(Name {
                path,
                _directory: None,
            });
        }
        let directory = File::open(directory)?;
        Ok(Name {
            path: format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()).into(),
            _directory: Some(directory),
        })
    }
}

/// The socket of a running broker. Dropping it removes the socket and ends its connections.
pub struct Control {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Control {
    /// Starts to listen, for a store that has files. The caller holds the lock on its directory,
    /// by having it open. Needs a tokio runtime.
    pub fn start(config: &StoreConfig, store: &Arc<dyn Store>, issue: Issue) -> Option<Control> {
        if config.durability == Durability::Memory {
            return None;
        }
        let bound = std::path::absolute(&config.path)
            .and_then(|directory| Ok((directory.join(SOCKET), bind(&directory)?)));
        match bound {
            // Whoever stops the broker does not wait for those who listen here.
            Ok((socket, listener)) => Some(Control {
                socket,
                task: tokio::spawn(run(
                    listener,
                    Arc::new(Served {
                        store: Arc::downgrade(store),
                        backup: Mutex::new(()),
                        issue,
                    }),
                )),
            }),
            Err(error) => {
                let directory = config.path.display();
                tracing::warn!(%directory, %error, "no control socket: a backup or a token needs the broker stopped");
                None
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %error, "the control socket was not removed");
        }
    }
}

fn bind(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET);
    // One that is there is left over from a broker that was killed: it had the lock that we have.
    if fs::symlink_metadata(&path).is_ok_and(|it| it.file_type().is_socket()) {
        fs::remove_file(&path)?;
    }
    let name = Name::of(directory)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&name.path)?)?;
    // Before it listens: until then nobody can connect.
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    socket.listen(CLIENTS_MAX as i32)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
}

/// What every client is served with.
struct Served {
    store: Weak<dyn Store>,
    /// Held by the one who has a backup made: it takes a thread, of which there are few.
    backup: Mutex<()>,
    issue: Issue,
}

async fn run(listener: UnixListener, served: Arc<Served>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if clients.len() < CLIENTS_MAX => {
                    clients.spawn(serve(stream, Arc::clone(&served)));
                }
                Ok((stream, _)) => refuse(&stream),
                Err(error) => {
                    // Out of file descriptors or memory: only time helps.
                    tracing::error!(%error, "no connection to the control socket can be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Turns away one client too many. Nothing was written to it yet, so that there is room for this.
fn refuse(stream: &UnixStream) {
    let answer = Answer::refused(
        "too many connections to the control socket; try again in a moment".to_owned(),
    );
    let _ = stream.try_write(&answer.line());
}

async fn serve(stream: UnixStream, served: Arc<Served>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let read = timeout(SILENCE_MAX, read_line(&mut reader)).await;
        let (answer, goes_on) = match read {
            Ok(Ok(None)) | Ok(Err(ReadError::Lost)) => return,
            Ok(Ok(Some(line))) => (answer(&line, &served).await, true),
            Ok(Err(ReadError::TooLong)) => {
                let why = format!("a request has at most {LINE_MAX} bytes");
                (Err(why), false)
            }
            Err(_) => {
                let why = format!("no request came for {} seconds", SILENCE_MAX.as_secs());
                (Err(why), false)
            }
        };
        let line = answer.unwrap_or_else(Answer::refused).line();
        let written = timeout(SILENCE_MAX, writer.write_all(&line)).await;
        if !goes_on || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

enum ReadError {
    TooLong,
    Lost,
}

/// One line; `None` at the end.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, ReadError> {
    let mut line = Vec::new();
    let mut limited = reader.take(LINE_MAX);
    match limited.read_until(b'\n', &mut line).await {
        Ok(_) if line.is_empty() => Ok(None),
        Ok(_) if line.len() as u64 == LINE_MAX && !line.ends_with(b"\n") => Err(ReadError::TooLong),
        Ok(_) => Ok(Some(line)),
        Err(_) => Err(ReadError::Lost),
    }
}

async fn answer(line: &[u8], served: &Served) -> Result<Answer, String> {
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| format!("a request is one JSON object on one line: {error}"))?;
    match request.command.as_str() {
        "backup" => {
            let target = request.target.map(PathBuf::from);
            let target = target.ok_or("a backup needs a \"target\", an absolute path")?;
            if !target.is_absolute() {
                return Err(format!(
                    "the target of a backup is an absolute path, and {target:?} is not"
                ));
            }
            served.backup(target).await?;
            Ok(Answer::done())
        }
        "token" => {
            let (Some(user), Some(seconds)) = (request.user, request.expires_secs) else {
                return Err("a token needs a \"user\" and \"expires_secs\"".to_owned());
            };
            let token = (served.issue)(&user, Duration::from_secs(seconds))?;
            tracing::info!(user, seconds, "token issued");
            Ok(Answer {
                token: Some(token),
                ..Answer::done()
            })
        }
        other => Err(format!(
            "unknown command {other:?}; this broker knows \"backup\" and \"token\""
        )),
    }
}

impl Served {
    async fn backup(&self, target: PathBuf) -> Result<(), String> {
        let Ok(_alone) = self.backup.try_lock() else {
            return Err("another backup is being made; try again when it is done".to_owned());
        };
        let Some(store) = self.store.upgrade() else {
            return Err("the broker is stopping".to_owned());
        };
        let started = Instant::now();
        let directory = target.display().to_string();
        let copied = tokio::task::spawn_blocking(move || store.backup(&target)).await;
        let outcome = match copied {
            Ok(copied) => copied.map_err(|error| error.to_string()),
            Err(_) => Err("the backup panicked: this is a defect, please report it".to_owned()),
        };
        match &outcome {
            Ok(()) => {
                let millis = started.elapsed().as_millis() as u64;
                tracing::info!(directory, millis, "backup made");
            }
            Err(error) => tracing::warn!(directory, %error, "no backup was made"),
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
