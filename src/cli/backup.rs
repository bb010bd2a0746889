//! `tidings backup`: a copy of a store, made by the broker that runs on it, or by this program
//! when none does.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tidings::ops::control::{self, Answer, Request};
use tidings::store::{StoreError, admin};

use super::ConfigOptions;
use super::store::{Place, explain};

/// The options of `tidings backup`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where to: a directory that is empty or does not exist
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Options {
    /// With the options that were given before the command's name.
    pub fn after(mut self, before: ConfigOptions) -> Options {
        self.place.begin_with(before);
        self
    }
}

/// Returns once the copy is complete.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let store = options.place.options()?;
    // The broker's current directory is another one.
    let target = std::path::absolute(&options.target)
        .with_context(|| format!("{} is no path", options.target.display()))?;
    match control::connect(&store.path) {
        Ok(stream) => ask(stream, &target)?,
        Err(error) if nobody_listens(&error) => {
            admin::backup(&store, &target).map_err(|error| match error {
                StoreError::Locked(path) => anyhow!(
                    "{} is in use, and nobody answers there: by a broker that is starting or \
                     stopping, or has no control socket (its log says why), or by another command; \
                     try again in a moment",
                    path.display()
                ),
                error => explain(error),
            })?;
        }
        Err(error) => bail!(
            "cannot talk to the broker that runs on {}: {error}; give the command as the user \
             that runs the broker, or as root",
            store.path.display()
        ),
    }
    writeln!(
        out,
        "{} is a copy of the store; a broker that is started with store.path = {:?} goes on from it",
        target.display(),
        target
    )?;
    Ok(())
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

/// Has the running broker make the copy, however long that takes.
fn ask(mut stream: UnixStream, target: &Path) -> anyhow::Result<()> {
    let Some(text) = target.to_str() else {
        bail!(
            "{} is not UTF-8, and a running broker is asked in UTF-8; name another directory",
            target.display()
        );
    };
    let request = Request {
        command: "backup".to_owned(),
        target: Some(text.to_owned()),
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    let mut answer = String::new();
    // Who is turned away is told so before it was heard: what is there is read in any case.
    let sent = stream.write_all(&line);
    BufReader::new(stream)
        .read_line(&mut answer)
        .and(sent)
        .context("the connection to the broker was lost")?;
    if answer.is_empty() {
        bail!(
            "the broker ended the connection and gave no answer, as when it is stopped; \
             `tidings store check --path {text}` tells whether the copy is complete"
        );
    }
    let answer: Answer =
        serde_json::from_str(&answer).context("what listens there is no broker of this kind")?;
    match answer.error {
        None if answer.ok => Ok(()),
        why => bail!(
            "the broker made no backup: {}",
            why.as_deref().unwrap_or("it does not say why")
        ),
    }
}
