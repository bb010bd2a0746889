//! Messages to webhook endpoints: the generator is their receiver too, and answers at once.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::fill::Fill;
use super::traffic::{self, Names, Shape};
use crate::client::Client;
use crate::engine::hooks::PATH;
use crate::engine::stamp::TEXT_LEN;
use crate::options::Options;
use crate::process;
use crate::report::Report;
use crate::web::{DeadBy, requests};

/// How long the broker is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

const API: &str = "/v1/webhooks";

/// One publisher, `--subscribers` endpoints (1).
pub fn deliveries(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.qos = options.qos.max(1);
    options.window.get_or_insert(1000);
    ensure!(
        options.payload >= TEXT_LEN,
        "--payload must be at least {TEXT_LEN}"
    );
    let names = Names {
        run: options.run_name(),
    };
    options.run = Some(names.run.clone());
    let shape = Shape {
        groups: 1,
        publishers: options.clients.unwrap_or(1),
        subscribers: 0,
        endpoints: options.subscribers.unwrap_or(1),
        shared: false,
    };
    let listener = TcpListener::bind("127.0.0.1:0").context("no place to receive")?;
    let receiver = listener.local_addr()?;
    let topics = match options.topics {
        1 => names.topics(0, 1),
        _ => vec![format!("bench/{}/0/+", names.run)],
    };
    let mut registry = Registry::new(&options, topics)?;
    for index in 0..shape.endpoints {
        registry.register(&format!("http://{receiver}{PATH}{index}"))?;
    }
    let (dead, _hanging) = dead_address(options.web.dead_by)?;
    for index in 0..options.web.dead {
        registry.register(&format!("http://{dead}{PATH}{index}"))?;
    }
    let mut report = traffic::run("webhooks", &options, shape, Some(listener))?;
    report.set("max_in_flight", options.web.max_in_flight);
    report.set("dead", options.web.dead);
    if !options.keep {
        registry.forget();
    }
    Ok(report)
}

/// `--messages` (1000000) for one endpoint that is dead: what they weigh.
pub fn backlog(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.qos = options.qos.max(1);
    let messages = options.messages.unwrap_or(1_000_000);
    let run = options.run_name();
    let topic = format!("bench/{run}/backlog");
    let mut report = Report::new("webhook-backlog");
    report.set("messages", messages);
    report.set("payload", options.payload);
    let (dead, _hanging) = dead_address(options.web.dead_by)?;
    let mut registry = Registry::new(&options, vec![topic.clone()])?;
    registry.register(&format!("http://{dead}{PATH}0"))?;
    let rss = || options.broker_pid.and_then(process::resident_bytes);
    let before = rss();
    let publishers = options.clients.unwrap_or(1);
    let fill = Fill {
        topics: vec![topic],
        publishers,
        messages: messages / publishers as u64,
        window: (options.window.unwrap_or(1000) / publishers).max(1) as u64,
        text: true,
    };
    fill.run(&options, &mut report)?;
    let at_once = rss();
    thread::sleep(SETTLE);
    if let (Some(before), Some(at_once), Some(after)) = (before, at_once, rss()) {
        report.set("rss_before_bytes", before);
        report.set("rss_filled_bytes", at_once);
        report.set("rss_bytes", after);
        report.figure(
            "bytes_each",
            (after as f64 - before as f64) / messages as f64,
        );
    }
    if !options.keep {
        registry.forget();
    }
    Ok(report)
}

/// Where nobody answers, and what keeps it so.
fn dead_address(by: DeadBy) -> Result<(SocketAddr, Option<thread::JoinHandle<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no place to be dead")?;
    let address = listener.local_addr()?;
    match by {
        // Closed with the listener, and nobody else is given the port so soon.
        DeadBy::Refusing => Ok((address, None)),
        DeadBy::Hanging => {
            let hanging = thread::spawn(move || {
                let held: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
                drop(held);
            });
            Ok((address, Some(hanging)))
        }
    }
}

/// The endpoints that this run has made.
struct Registry<'a> {
    options: &'a Options,
    topics: Vec<String>,
    client: Client,
    ids: Vec<String>,
}

impl Registry<'_> {
    fn new(options: &Options, topics: Vec<String>) -> Result<Registry<'_>> {
        Ok(Registry {
            client: Client::dial(options.web.http)?,
            options,
            topics,
            ids: Vec::new(),
        })
    }

    fn register(&mut self, url: &str) -> Result<()> {
        let endpoint = json!({
            "url": url,
            "topics": self.topics,
            "qos": self.options.qos,
            "ordering": "none",
            "max_in_flight": self.options.web.max_in_flight,
        });
        let made = requests::json(&mut self.client, "POST", API, Some(&endpoint))?;
        let id = made.get("id").and_then(Value::as_str);
        self.ids
            .push(id.context("an endpoint without id")?.to_owned());
        Ok(())
    }

    /// Removes them. The run is over by then, so a failure is only told about.
    fn forget(&self) {
        let remove = || {
            // The connection that registered them has been silent for long.
            let mut client = Client::dial(self.options.web.http)?;
            self.ids.iter().try_for_each(|id| {
                let path = format!("{API}/{id}");
                requests::json(&mut client, "DELETE", &path, None).map(drop)
            })
        };
        if let Err(error) = remove() {
            eprintln!("endpoints were left behind: {error:#}");
        }
    }
}
