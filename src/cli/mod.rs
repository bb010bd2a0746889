//! The command line: its words, and the commands that are not the broker itself.
//!
//! Each command is a module with a function that does the work and says what went wrong;
//! `main` calls it and turns the outcome into an exit code.

mod ask;
pub mod backup;
pub mod check;
mod client;
pub mod passwd;
pub mod publish;
pub mod store;
pub mod subscribe;
mod terminal;
#[cfg(test)]
mod tests;
pub mod token;
pub mod webhook;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tidings::config::{Config, Problems, Sources};

/// The file that is read when it is there and no other is named.
const DEFAULT_FILE: &str = "broker.toml";

/// Tidings, a message broker: MQTT 3.1, 3.1.1 and 5 in one process.
///
/// Without a command it serves. Settings come from broker.toml (the one named by --config,
/// or the one in the current directory if there is one), then from the environment
/// (TIDINGS_MQTT_LISTEN=0.0.0.0:1883), then from --set; the later wins. Every setting and
/// its default is described in the broker.toml that comes with Tidings; `tidings config`
/// prints it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct CommandLine {
    #[command(flatten)]
    options: ConfigOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ConfigOptions {
    /// Read settings from FILE instead of ./broker.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one setting, such as --set mqtt.listen=0.0.0.0:1883; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve(ConfigOptions),
    /// Check the configuration and tell what is wrong with it; nothing is started
    Check(ConfigOptions),
    /// Print every setting with its default and what it means
    Config,
    /// Check, compact, export or import the store of a broker that is not running
    ///
    /// The store is the one that the broker would use with the same settings, or the one that
    /// --path names. The command is given as the user that runs the broker. `tidings backup` copies
    /// a store, while the broker runs too.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Copy the store to a directory, while the broker runs or while it does not
    ///
    /// The copy has all sessions, queues and retained messages as of one moment. To go back to it,
    /// start a broker with store.path on the copy, or on a copy of that.
    ///
    /// A running broker makes the copy itself, so that it must be able to write to TARGET; as a
    /// service of systemd it can do so below its state directory (/var/lib/tidings) only. The
    /// command is given as the user that runs the broker, or as root, and with the settings of the
    /// broker: it finds it by the directory of its store.
    Backup(backup::Options),
    /// Add users to a password file, change their passwords, or delete them
    ///
    /// The file is made if it does not exist; access.password_file names it to the broker, and a
    /// running broker reads it again on SIGHUP. Passwords are kept as argon2id hashes and, for
    /// clients that log in with SCRAM-SHA-256 (enhanced authentication of MQTT 5), as a SCRAM
    /// verifier beside the hash. Somebody who gets hold of the file can try passwords much faster
    /// against the verifier than against the hash: leave it out with --no-scram where no client
    /// needs it, and do not let the file be read by others.
    Passwd(passwd::Options),
    /// Print a token for a user, for what cannot send a password with each request
    ///
    /// Whoever shows the token is that user until it expires, or until the user is gone or has
    /// another password. A running broker is asked for it through the control socket in the
    /// directory of its store; otherwise the key in the store is used. The command is given as the
    /// user that runs the broker, or as root if it runs, and with the settings of the broker.
    Token(token::Options),
    /// Publish a message to a broker, and wait until it is acknowledged
    Pub(publish::Options),
    /// Subscribe at a broker, and write the messages to standard output as they come
    Sub(subscribe::Options),
    /// Register webhooks at a broker that runs, look at them, stop and start them, send again
    ///
    /// The broker is asked at its HTTP address. One sees and changes one's own webhooks; who may
    /// subscribe to $SYS/webhooks/#, all of them.
    Webhook(Box<webhook::Options>),
}

/// What to do, with its options gathered.
#[derive(Debug)]
pub enum Task {
    Serve(ConfigOptions),
    Check(ConfigOptions),
    Config,
    Store(store::StoreCommand),
    Backup(backup::Options),
    Passwd(passwd::Options),
    Token(token::Options),
    Publish(publish::Options),
    Subscribe(subscribe::Options),
    Webhook(Box<webhook::Options>),
}

impl CommandLine {
    /// Options may stand before and after the command's name.
    pub fn task(self) -> Result<Task, clap::Error> {
        let before = self.options;
        match self.command {
            None => Ok(Task::Serve(before)),
            Some(Command::Serve(after)) => Ok(Task::Serve(before.and(after))),
            Some(Command::Check(after)) => Ok(Task::Check(before.and(after))),
            Some(Command::Store(command)) => Ok(Task::Store(command.after(before))),
            Some(Command::Backup(options)) => Ok(Task::Backup(options.after(before))),
            Some(Command::Token(options)) => Ok(Task::Token(options.after(before))),
            Some(_) if before.config.is_some() || !before.set.is_empty() => {
                let why = "--config and --set have a meaning for serve, check, store, backup and \
                           token only\n";
                Err(clap::Error::raw(
                    clap::error::ErrorKind::ArgumentConflict,
                    why,
                ))
            }
            Some(Command::Config) => Ok(Task::Config),
            Some(Command::Passwd(options)) => Ok(Task::Passwd(options)),
            Some(Command::Pub(options)) => Ok(Task::Publish(options)),
            Some(Command::Sub(options)) => Ok(Task::Subscribe(options)),
            Some(Command::Webhook(options)) => Ok(Task::Webhook(options)),
        }
    }
}

impl ConfigOptions {
    fn and(mut self, after: ConfigOptions) -> ConfigOptions {
        self.set.extend(after.set);
        ConfigOptions {
            config: after.config.or(self.config),
            set: self.set,
        }
    }

    /// The file that settings are read from, if any.
    pub fn file(&self) -> Option<&Path> {
        match &self.config {
            Some(file) => Some(file),
            None => Some(Path::new(DEFAULT_FILE)).filter(|file| file.exists()),
        }
    }

    /// Reads all settings, the file again each time.
    pub fn load(&self) -> Result<Config, Problems> {
        let mut sources = Sources::new()
            .environment(std::env::vars_os())
            .set(self.set.iter().cloned());
        if let Some(file) = self.file() {
            sources = sources.read_file(file)?;
        }
        Config::load(&sources)
    }
}
