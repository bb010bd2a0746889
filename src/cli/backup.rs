//! `tidings backup`: a copy of a store, made by the broker that runs on it, or by this program
//! when none does.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tidings::ops::control::Request;
use tidings::store::admin;

use super::ConfigOptions;
use super::ask::{ask, connect, explain_unheard};
use super::store::Place;

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
    match connect(&store.path)? {
        Some(stream) => ask_for_copy(stream, &target)?,
        None => admin::backup(&store, &target).map_err(explain_unheard)?,
    }
    writeln!(
        out,
        "{} is a copy of the store; a broker that is started with store.path = {:?} goes on from it",
        target.display(),
        target
    )?;
    Ok(())
}

/// Has the running broker make the copy, however long that takes.
fn ask_for_copy(stream: UnixStream, target: &Path) -> anyhow::Result<()> {
    let Some(text) = target.to_str() else {
        bail!(
            "{} is not UTF-8, and a running broker is asked in UTF-8; name another directory",
            target.display()
        );
    };
    let request = Request {
        command: "backup".to_owned(),
        target: Some(text.to_owned()),
        ..Request::default()
    };
    let Some(answer) = ask(stream, &request)? else {
        bail!(
            "the broker ended the connection and gave no answer, as when it is stopped; \
             `tidings store check --path {text}` tells whether the copy is complete"
        );
    };
    match answer.error {
        None if answer.ok => Ok(()),
        why => bail!(
            "the broker made no backup: {}",
            why.as_deref().unwrap_or("it does not say why")
        ),
    }
}
