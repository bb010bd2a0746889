//! Asking a broker that runs, through its control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use tidings::ops::control::{self, Answer, Request};
use tidings::store::StoreError;

use super::store::explain;

/// A connection to the broker that runs on the store; `None` if nobody listens there.
pub fn connect(store: &Path) -> anyhow::Result<Option<UnixStream>> {
    match control::connect(store) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if nobody_listens(&error) => Ok(None),
        Err(error) => bail!(
            "cannot talk to the broker that runs on {}: {error}; give the command as the user \
             that runs the broker, or as root",
            store.display()
        ),
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

/// The broker's answer, however long that takes; `None` if it ended the connection instead.
pub fn ask(mut stream: UnixStream, request: &Request) -> anyhow::Result<Option<Answer>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut answer = String::new();
    // Who is turned away is told so before it was heard: what is there is read in any case.
    let sent = stream.write_all(&line);
    BufReader::new(stream)
        .read_line(&mut answer)
        .and(sent)
        .context("the connection to the broker was lost")?;
    if answer.is_empty() {
        return Ok(None);
    }
    let answer =
        serde_json::from_str(&answer).context("what listens there is no broker of this kind")?;
    Ok(Some(answer))
}

/// Why a store on which nobody listens cannot be opened.
pub fn explain_unheard(error: StoreError) -> anyhow::Error {
    let in_use = |path: PathBuf| {
        anyhow!(
            "{} is in use, and nobody answers there: by a broker that is starting or stopping, or \
             has no control socket (its log says why), or by another command; try again in a \
             moment",
            path.display()
        )
    };
    match error {
        StoreError::Locked(path) => in_use(path),
        error => explain(error),
    }
}
