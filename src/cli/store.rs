//! `tidings store`: work on a store that no broker is using.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use tidings::config::{Config, Durability};
use tidings::store::admin::{self, Exported};
use tidings::store::{Options, StoreError};

use super::ConfigOptions;

/// The commands of `tidings store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything, and tell what is damaged; nothing is changed
    ///
    /// Exits with 0 if all can be read, with 1 if not. What a crash tore off at the end of the
    /// log is no damage: nothing in it was acknowledged.
    Check(Place),
    /// Make the store as small as it can be
    ///
    /// A running broker gives space back by itself, as messages are acknowledged. This does all of
    /// it at once, and rewrites the checkpoint, which never shrinks otherwise.
    Compact(Place),
    /// Write sessions, subscriptions, queues and retained messages as JSON lines
    ///
    /// For looking at them, for moving them, and for `tidings store import`. Payloads that are
    /// text are written as text, others in base64. They are in the clear.
    Export(Export),
    /// Fill a new store with what `tidings store export` wrote
    Import(Import),
}

/// The options of `tidings store export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Write to FILE, which must not exist, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// The options of `tidings store import`.
#[derive(Debug, Args)]
pub struct Import {
    /// What to import; "-" is standard input
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Which store it is.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    config: ConfigOptions,
    /// The directory of the store, instead of the one that store.path names
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

impl StoreCommand {
    /// With the options that were given before the command's name.
    pub fn after(mut self, before: ConfigOptions) -> StoreCommand {
        let place = match &mut self {
            StoreCommand::Check(place) | StoreCommand::Compact(place) => place,
            StoreCommand::Export(options) => &mut options.place,
            StoreCommand::Import(options) => &mut options.place,
        };
        place.begin_with(before);
        self
    }
}

impl Place {
    /// Puts options that were given before the command's name before those after it.
    pub fn begin_with(&mut self, before: ConfigOptions) {
        self.config = before.and(std::mem::take(&mut self.config));
    }

    /// How to open the store: as a broker with the same configuration would.
    pub fn options(&self) -> anyhow::Result<Options> {
        let (config, options) = self.load()?;
        ensure!(
            self.path.is_some() || config.store.durability != Durability::Memory,
            "store.durability is \"memory\": such a broker keeps nothing in files; --path names \
             the directory of a store that does"
        );
        Ok(options)
    }

    /// The configuration, and how to open the store even if it would be one in memory.
    pub fn load(&self) -> anyhow::Result<(Config, Options)> {
        let config = self.config.load()?;
        let mut options = Options::from(&config.store);
        if let Some(path) = &self.path {
            options.path.clone_from(path);
        }
        Ok((config, options))
    }

    /// Whether `--path` names the store.
    pub fn is_named(&self) -> bool {
        self.path.is_some()
    }
}

/// Does what the command says; what it found or did goes to `out`.
pub fn run(command: &StoreCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        StoreCommand::Check(place) => check(&place.options()?.path, out),
        StoreCommand::Compact(place) => compact(&place.options()?, out),
        StoreCommand::Export(options) => export(options, out),
        StoreCommand::Import(options) => import(options, out),
    }
}

fn check(path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let checked = admin::check(path).map_err(explain)?;
    write!(out, "{checked}")?;
    if !checked.is_sound() {
        bail!(
            "{} is damaged. A broker started on it serves what can be read, and logs what is lost; \
             if you have a backup that is good enough, start it on that. `tidings store export` \
             saves what can be read",
            path.display()
        );
    }
    writeln!(out, "sound: everything can be read")?;
    Ok(())
}

fn compact(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let compacted = admin::compact(options).map_err(explain)?;
    let (before, after) = (compacted.bytes_before, compacted.bytes_after);
    writeln!(out, "before: {}\nafter: {}", size(before), size(after))?;
    Ok(())
}

fn export(options: &Export, out: &mut impl Write) -> anyhow::Result<()> {
    let store = options.place.options()?;
    let exported = match &options.output {
        None => admin::export(&store, &mut BufWriter::new(out)).map_err(explain)?,
        Some(path) => export_to(&store, path)?,
    };
    // Not to standard output, which may be the export.
    eprintln!("exported {}", summary(&exported));
    ensure!(
        exported.lost == 0,
        "the export is not complete: {} could not be read; `tidings store check` says more",
        count(
            exported.lost,
            "message or place in the log",
            "messages or places in the log"
        )
    );
    Ok(())
}

fn export_to(store: &Options, path: &Path) -> anyhow::Result<Exported> {
    let shown = path.display();
    let created = File::options()
        .write(true)
        .create_new(true)
        // There may be anything in messages.
        .mode(0o600)
        .open(path);
    let file = match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{shown} exists, and is not overwritten; remove it, or name another file")
        }
        created => created.with_context(|| format!("cannot create {shown}"))?,
    };
    let written = admin::export(store, &mut BufWriter::new(&file))
        .map_err(explain)
        .and_then(|exported| {
            file.sync_all()
                .with_context(|| format!("cannot flush {shown}"))?;
            Ok(exported)
        });
    if written.is_err() {
        // An export without its end is good for nothing.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn import(options: &Import, out: &mut impl Write) -> anyhow::Result<()> {
    let store = options.place.options()?;
    let mut lines: Box<dyn BufRead> = if options.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&options.file)
            .with_context(|| format!("cannot read {}", options.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let imported = admin::import(&store, &mut lines).map_err(explain)?;
    writeln!(out, "imported {}", summary(&imported))?;
    Ok(())
}

/// What went wrong, in the words of somebody who gives a command.
pub fn explain(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Locked(path) => anyhow!(
            "{} is in use by a broker, or by another command on it; stop the broker first, or \
             work on a copy: `tidings backup` makes one while it runs",
            path.display()
        ),
        _ => anyhow!("{error}"),
    }
}

fn summary(it: &Exported) -> String {
    format!(
        "{} with {}, {} ({} retained), {} in queues and {}",
        count(it.sessions, "session", "sessions"),
        count(it.subscriptions, "subscription", "subscriptions"),
        count(it.messages, "message", "messages"),
        it.retained,
        count(it.queue_entries, "entry", "entries"),
        count(it.documents, "document", "documents"),
    )
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// `12.3 MiB`: for people, who do not count bytes.
fn size(bytes: u64) -> String {
    let mut unit = "bytes";
    let mut value = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "bytes" => count(bytes, "byte", "bytes"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (10_086, "9.8 KiB"),
            (64 << 20, "64.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }
}
