//! SIGKILL in the middle of what webhooks do: what was answered is so afterwards, and nothing that
//! was acknowledged to anybody is lost.
//!
//! Moments are random. A failure prints its seed, and `TIDINGS_CRASH_SEED=N` takes that instead of
//! the usual one; threads and sockets add luck of their own, so it may need a few attempts.
//! `TIDINGS_CRASH_ROUNDS=N` makes each scenario go on for N rounds.

mod deliveries;
mod replays;
mod rotation;
mod states;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::harness::random::Rng;

/// Settings under which endpoints on this machine may be reached.
const LOCAL: &str = "webhooks.allow_http = true\nwebhooks.allow_networks = [\"127.0.0.0/8\"]\n";

/// A broker in a process of its own.
fn process(settings: &str) -> ProcessBroker {
    let directory = scratch();
    let path = directory.path().join("broker.toml");
    let listen = "mqtt.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"\n";
    std::fs::write(&path, format!("{listen}{settings}")).expect("written");
    ProcessBroker::start_raw(directory, &["--config", "broker.toml"], &[])
}

fn http(broker: &ProcessBroker) -> SocketAddr {
    let listed = broker.field("http");
    let first = listed.split(',').next().expect("split has a first part");
    first.parse().expect("an address")
}

/// Kills at random moments. For scenarios whose other tasks have threads of their own: the timer of
/// the runtime is too coarse for it.
struct Killer {
    rng: Rng,
    /// How long the last answer took.
    took: Option<Duration>,
    /// Requests that were not answered any more, and all.
    unanswered: u32,
    asked: u32,
}

impl Killer {
    /// With a seed that is printed.
    fn new(usual: u64) -> Killer {
        let given = std::env::var("TIDINGS_CRASH_SEED");
        let seed = given.map_or(usual, |seed| seed.parse().expect("a number"));
        println!("TIDINGS_CRASH_SEED={seed}");
        Killer {
            rng: Rng::new(seed),
            took: None,
            unanswered: 0,
            asked: 0,
        }
    }

    /// Asks for something, and kills the broker while it works on that, or once it has answered.
    async fn while_asked(
        &mut self,
        broker: &mut ProcessBroker,
        asked: (&'static str, String, Value),
    ) -> Option<(u16, Value)> {
        let Some(took) = self.took.filter(|_| self.rng.chance(60)) else {
            return self.once_answered(broker, asked).await;
        };
        let (at, (method, path, body)) = (http(broker), asked);
        let asking = tokio::spawn(async move { ask(at, method, &path, body).await });
        let micros = self.rng.below(took.as_micros() as u64 * 3 / 2);
        std::thread::sleep(Duration::from_micros(micros));
        broker.kill();
        let answer = asking.await.expect("no panic");
        self.asked += 1;
        self.unanswered += u32::from(answer.is_none());
        answer
    }

    /// The same, at the very moment of the answer.
    async fn once_answered(
        &mut self,
        broker: &mut ProcessBroker,
        (method, path, body): (&'static str, String, Value),
    ) -> Option<(u16, Value)> {
        let (at, began, took) = (http(broker), Instant::now(), &mut self.took);
        let kill = || {
            *took = Some(began.elapsed());
            broker.kill();
        };
        let answer = ask_then(at, method, &path, body, kill).await;
        self.asked += 1;
        answer
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let Killer {
            unanswered, asked, ..
        } = self;
        println!("{unanswered} of {asked} requests were not answered");
    }
}

/// How often a scenario kills: this often, unless it is told otherwise.
fn rounds(usual: u32) -> Range<u32> {
    let given = std::env::var("TIDINGS_CRASH_ROUNDS");
    0..given.map_or(usual, |rounds| rounds.parse().expect("a number"))
}

/// Asks for something with a body of JSON; none if the broker is gone before it has answered in full.
async fn ask(at: SocketAddr, method: &str, path: &str, body: Value) -> Option<(u16, Value)> {
    ask_then(at, method, path, body, || {}).await
}

/// The same, and does something once the answer begins to arrive. A short one is there in full then.
async fn ask_then(
    at: SocketAddr,
    method: &str,
    path: &str,
    body: Value,
    then: impl FnOnce(),
) -> Option<(u16, Value)> {
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let asking = async {
        let mut stream = TcpStream::connect(at).await.ok()?;
        stream.write_all((head + &body).as_bytes()).await.ok()?;
        stream.readable().await.ok()?;
        then();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        match status {
            204 => Some((status, Value::Null)),
            _ => Some((status, serde_json::from_str(body).ok()?)),
        }
    };
    let asked = tokio::time::timeout(DEADLINE, asking).await;
    asked.unwrap_or_else(|_| panic!("{method} {path} is not answered"))
}

/// Asks a broker that nobody kills, and has it done.
async fn done(broker: &ProcessBroker, method: &str, path: &str, body: Value) -> Value {
    let answer = ask(http(broker), method, path, body).await;
    match answer {
        Some((200..=299, answer)) => answer,
        _ => panic!("{method} {path}: {answer:?}"),
    }
}

/// Registers an endpoint. Answers its path, and what is shown of it.
async fn register(broker: &ProcessBroker, fields: Value) -> (String, Value) {
    let made = done(broker, "POST", "/v1/webhooks", fields).await;
    let id = made["id"].as_str().expect("an id");
    (format!("/v1/webhooks/{id}"), made)
}

/// Waits until what is shown of an endpoint is as wanted.
async fn until_shown(broker: &ProcessBroker, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(http(broker), path, |shown| {
        let shown: Value = serde_json::from_str(shown).expect("JSON");
        wanted(&shown).then_some(shown)
    })
    .await
}

/// Publishes numbers, many at a time, and has all of them acknowledged.
async fn publish_all(broker: &ProcessBroker, topic: &str, numbers: Range<u32>) {
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    let numbers: Vec<u32> = numbers.collect();
    for some in numbers.chunks(500) {
        let mut ids = Vec::new();
        let packets: Vec<Packet> = some
            .iter()
            .map(|number| {
                let id = publisher.fresh_id();
                ids.push(id);
                Publish::new(topic, number.to_string()).qos(1).id(id).into()
            })
            .collect();
        publisher.send_all(packets).await;
        for id in ids {
            publisher.expect_puback(id).await;
        }
    }
}

/// Publishes numbers one after the other, `count` at most, until the broker is killed. Answers those
/// that were acknowledged.
async fn publish_until_killed(
    broker: &ProcessBroker,
    topic: &'static str,
    from: u32,
    count: u32,
) -> JoinHandle<Vec<u32>> {
    let mut publisher = broker.connect(Connect::v5("live")).await;
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in from..from + count {
            let id = publisher.fresh_id();
            let publish = Publish::new(topic, number.to_string()).qos(1).id(id);
            publisher.send(publish).await;
            match publisher.next_or_closed().await {
                Some(Packet::PubAck(ack)) if ack.packet_id == id => acknowledged.push(number),
                Some(other) => panic!("{other:?} instead of PUBACK"),
                None => return acknowledged,
            }
        }
        publisher.wait_until_closed().await;
        acknowledged
    })
}

fn number(request: &Request) -> u32 {
    request.data().parse().expect("a number")
}

/// Sees that all is in order, as fifo promises: nothing is sent for the first time while something
/// before it was not accepted, and numbers of one topic ascend. What was accepted may come again.
#[derive(Default)]
struct Fifo {
    /// By topic and number, whether it was accepted.
    seen: BTreeMap<(String, u32), bool>,
}

impl Fifo {
    fn see(&mut self, request: &Request) {
        let topic = request.json()["subject"]
            .as_str()
            .expect("a topic")
            .to_owned();
        let number = number(request);
        let behind = (topic.clone(), number)..=(topic.clone(), u32::MAX);
        let is_new = !self.seen.contains_key(behind.start());
        if is_new {
            let later = self.seen.range(behind).next();
            assert_eq!(later, None, "{topic} {number} comes after it");
            let waits = self.seen.iter().find(|(_, accepted)| !**accepted);
            assert_eq!(waits, None, "{topic} {number} overtakes it");
        }
        *self.seen.entry((topic, number)).or_default() |= request.accepted;
    }

    /// Whether it was accepted.
    fn has(&self, topic: &str, number: u32) -> bool {
        let accepted = self.seen.get(&(topic.to_owned(), number));
        accepted.is_some_and(|it| *it)
    }
}
