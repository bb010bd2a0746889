//! `tidings webhook`: the endpoints of a running broker, over its HTTP API.

mod api;
mod fields;
mod show;

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use api::{Api, ConnectOptions, segment};
use fields::Fields;

/// The options of `tidings webhook`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    connect: ConnectOptions,
    /// Write the answers of the broker as they are
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register a webhook, and show its secret, which is shown this once
    Create {
        /// Where to deliver, such as https://example.com/hook
        #[arg(value_name = "URL")]
        to: String,
        /// What to deliver: Topic Filters
        #[arg(required = true)]
        topics: Vec<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// List all webhooks that one may see
    List,
    /// Show a webhook
    Show { id: String },
    /// Change some fields of a webhook; the others stay as they are
    Change {
        id: String,
        /// Where to deliver instead
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        /// What to deliver instead: a Topic Filter; may be given many times
        #[arg(long = "topic", value_name = "FILTER")]
        topics: Vec<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// End a webhook, with everything that is queued for it
    Delete { id: String },
    /// Deliver nothing for the time being; what comes is queued
    Pause { id: String },
    /// Deliver again
    Resume { id: String },
    /// Take and deliver messages again, after it was disabled
    Enable { id: String },
    /// Take no new messages and deliver none; what is queued stays
    Disable { id: String },
    /// Make another secret, and show it, this once; the one before signs too for a while
    RotateSecret { id: String },
    /// Send a test message, to this webhook alone
    Test { id: String },
    /// List the last attempts, the latest first
    Attempts {
        id: String,
        /// At most so many
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// List messages that ran out of attempts, show one, or discard them
    DeadLetters {
        id: String,
        /// The one to show or to discard
        seq: Option<u64>,
        #[command(flatten)]
        selection: Selection,
        /// At most so many are listed
        #[arg(long, default_value = "100", conflicts_with = "discard",
              value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Discard them
        #[arg(long)]
        discard: bool,
        /// Only count what would be discarded
        #[arg(long, requires = "discard", conflicts_with = "seq")]
        dry_run: bool,
    },
    /// Send messages again: dead letters, or what a stream has
    Replay {
        id: String,
        /// Where the messages are taken from
        #[arg(long, value_name = "SOURCE", required_unless_present = "cancel")]
        source: Option<Source>,
        /// The name of the stream; without it, one that has all that the webhook gets
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        #[command(flatten)]
        selection: Selection,
        /// Messages a second
        #[arg(long, value_name = "NUMBER")]
        rate_limit: Option<u32>,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
        /// End the replay out of a stream that is under way
        #[arg(long, conflicts_with_all = ["source", "stream", "rate_limit", "dry_run"])]
        cancel: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    DeadLetters,
    Stream,
}

/// Which messages are meant: those that fit all that is given.
#[derive(Debug, Args)]
struct Selection {
    /// A Topic Filter
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// From this time on: 2026-01-31T12:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of dead letters: the status of the last response, 0 for those without one
    #[arg(long, value_name = "STATUS")]
    status: Option<u16>,
}

impl Selection {
    fn query(&self) -> String {
        let status = self.status.map(|it| it.to_string());
        let given = [
            ("topic", &self.topic),
            ("since", &self.since),
            ("until", &self.until),
            ("status", &status),
        ];
        let given = given
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        given
            .map(|(name, value)| format!("{name}={}&", segment(value)))
            .collect()
    }
}

/// Does what was asked for, and writes what came of it.
pub async fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let api = Api::new(&options.connect)?;
    let id_path = |id: &str| format!("/v1/webhooks/{}", segment(id));
    let act = async |id: &str, action: &str| {
        let path = format!("{}/{action}", id_path(id));
        api.ask(Method::POST, &path, None).await
    };
    let answer = match &options.command {
        Command::Create { to, topics, fields } => {
            let mut object = fields.read()?;
            object.insert("url".to_owned(), to.as_str().into());
            object.insert("topics".to_owned(), topics.as_slice().into());
            let body = Value::Object(object);
            api.ask(Method::POST, "/v1/webhooks", Some(body)).await?
        }
        Command::List => all(&api, "/v1/webhooks?", "webhooks", u64::MAX).await?,
        Command::Show { id } => api.ask(Method::GET, &id_path(id), None).await?,
        Command::Change {
            id,
            to,
            topics,
            fields,
        } => {
            let mut object = fields.read()?;
            if let Some(to) = to {
                object.insert("url".to_owned(), to.as_str().into());
            }
            if !topics.is_empty() {
                object.insert("topics".to_owned(), topics.as_slice().into());
            }
            if object.is_empty() {
                bail!("nothing to change was named; see --help");
            }
            let body = Value::Object(object);
            api.ask(Method::PATCH, &id_path(id), Some(body)).await?
        }
        Command::Delete { id } => api.ask(Method::DELETE, &id_path(id), None).await?,
        Command::Pause { id } => act(id, "pause").await?,
        Command::Resume { id } => act(id, "resume").await?,
        Command::Enable { id } => act(id, "enable").await?,
        Command::Disable { id } => act(id, "disable").await?,
        Command::RotateSecret { id } => act(id, "rotate-secret").await?,
        Command::Test { id } => act(id, "test").await?,
        Command::Attempts { id, limit } => {
            let path = format!("{}/attempts?", id_path(id));
            all(&api, &path, "attempts", *limit).await?
        }
        Command::DeadLetters {
            id,
            seq,
            selection,
            limit,
            discard,
            dry_run,
        } => {
            let path = format!("{}/dead-letters", id_path(id));
            match (seq, discard) {
                (Some(seq), discard) => {
                    let method = if *discard {
                        Method::DELETE
                    } else {
                        Method::GET
                    };
                    api.ask(method, &format!("{path}/{seq}"), None).await?
                }
                (None, true) => {
                    let path = format!("{path}?{}dry_run={dry_run}", selection.query());
                    api.ask(Method::DELETE, &path, None).await?
                }
                (None, false) => {
                    let path = format!("{path}?{}", selection.query());
                    all(&api, &path, "dead_letters", *limit).await?
                }
            }
        }
        Command::Replay { id, cancel, .. } => {
            let path = format!("{}/replay", id_path(id));
            match cancel {
                true => api.ask(Method::DELETE, &path, None).await?,
                false => {
                    let body = replay_request(&options.command);
                    api.ask(Method::POST, &path, Some(body)).await?
                }
            }
        }
    };
    match options.json {
        true if answer.is_null() => {}
        true => writeln!(out, "{answer:#}")?,
        false => show::answer(&answer, out).context("standard output cannot be written")?,
    }
    Ok(())
}

fn replay_request(command: &Command) -> Value {
    let Command::Replay {
        source,
        stream,
        selection,
        rate_limit,
        dry_run,
        ..
    } = command
    else {
        return Value::Null;
    };
    json!({
        "source": match source {
            Some(Source::Stream) => "stream",
            _ => "dead-letters",
        },
        "stream": stream,
        "topic": selection.topic,
        "since": selection.since,
        "until": selection.until,
        "status": selection.status,
        "rate_limit": rate_limit,
        "dry_run": dry_run,
    })
}

/// At most `max` members of a list, page by page. `path` is ready for another parameter.
async fn all(api: &Api, path: &str, list: &str, max: u64) -> anyhow::Result<Value> {
    const PAGE_MAX: usize = 1000;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut members: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let limit = (max - members.len()).min(PAGE_MAX);
        if limit == 0 {
            break;
        }
        let page = format!("{path}limit={limit}{cursor}");
        let mut answer = api.ask(Method::GET, &page, None).await?;
        if let Some(Value::Array(page)) = answer.get_mut(list).map(Value::take) {
            members.extend(page);
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
    }
    let mut object = Map::new();
    object.insert(list.to_owned(), Value::Array(members));
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests;
