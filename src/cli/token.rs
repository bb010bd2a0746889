//! `tidings token`: a token for a user, from the broker that runs, or with the key in its store when
//! none does.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use tidings::access::Access;
use tidings::config::{Config, Durability, parse_duration};
use tidings::ops::control::Request;
use tidings::signing_key;
use tidings::store::{Options as StoreOptions, admin};

use super::ConfigOptions;
use super::ask::{ask, connect, explain_unheard};
use super::store::Place;

/// The options of `tidings token`.
#[derive(Debug, Args)]
pub struct Options {
    /// The user whom the token is for, as the password file has it
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long it is good for, such as 90s, 15m, 12h or 30d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_expires)]
    expires: Duration,
    #[command(flatten)]
    place: Place,
}

/// Whole seconds: tokens know no less.
fn parse_expires(text: &str) -> Result<Duration, &'static str> {
    let expires = parse_duration(text).filter(|expires| expires.subsec_nanos() == 0);
    expires.ok_or("a whole number and a unit (s, m, h, d), such as 12h")
}

impl Options {
    /// With the options that were given before the command's name.
    pub fn after(mut self, before: ConfigOptions) -> Options {
        self.place.begin_with(before);
        self
    }
}

/// Writes the token, and nothing else.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let (config, store) = options.place.load()?;
    ensure!(
        options.place.is_named() || config.store.durability != Durability::Memory,
        "store.durability is \"memory\": such a broker has no control socket to ask it by, and the \
         key that tokens are signed with ends with it"
    );
    let token = match connect(&store.path)? {
        Some(stream) => from_broker(stream, options)?,
        None => from_store(&store, &config, options)?,
    };
    writeln!(out, "{token}")?;
    Ok(())
}

fn from_broker(stream: UnixStream, options: &Options) -> anyhow::Result<String> {
    let request = Request {
        command: "token".to_owned(),
        user: Some(options.user.clone()),
        expires_secs: Some(options.expires.as_secs()),
        ..Request::default()
    };
    let answer = ask(stream, &request)?.ok_or_else(|| {
        anyhow!("the broker ended the connection and gave no answer, as when it is stopped")
    })?;
    match (answer.token, answer.error) {
        (Some(token), None) if answer.ok => Ok(token),
        (_, why) => bail!(
            "the broker issued no token: {}",
            why.as_deref().unwrap_or("it does not say why")
        ),
    }
}

fn from_store(store: &StoreOptions, config: &Config, options: &Options) -> anyhow::Result<String> {
    // Before the store is touched: most mistakes are here.
    let access = Access::new(config)?;
    // The latest time that the store knows is the earliest that a broker goes by.
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now_ms.map_or(0, |since| since.as_millis() as u64);
    access.issue(&options.user, options.expires, now_ms)?;
    let recovered = admin::recovered(store)
        .map_err(explain_unheard)
        .context("no broker runs there, and its store cannot be read for the key")?;
    let key = signing_key::kept(&recovered).with_context(|| {
        format!(
            "there is no key to sign tokens with in {} yet: a broker makes one when it starts; start \
             it, and give the command again",
            store.path.display()
        )
    })?;
    access.sign_with(key);
    let now_ms = now_ms.max(recovered.clock_ms);
    Ok(access.issue(&options.user, options.expires, now_ms)?)
}
