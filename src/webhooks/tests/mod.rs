//! Endpoints over a real store, and over crashes: a copy of what is durable at one moment is what a
//! killed process leaves.

mod dead_letters;
mod declared;
mod endpoints;
mod replays;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidings_protocol::mqtt::{Properties, QoS};
use tidings_protocol::webhook::Secret;

use super::*;
use crate::access::{Access, Principal};
use crate::broker::endpoint::{Change, Queued};
use crate::broker::feed::WindowConfig;
use crate::broker::{Broker, Publication};
use crate::config::Config;
use crate::store::{self, Ticket, until_durable};

struct World {
    webhooks: Arc<Webhooks>,
    broker: Arc<Broker>,
    toml: String,
    directory: TempDir,
}

fn config(directory: &Path, toml: &str) -> Config {
    Config::from_toml(&format!("store.path = {directory:?}\n{toml}")).unwrap()
}

impl World {
    fn new(toml: &str) -> World {
        World::within(tempfile::tempdir().unwrap(), toml)
    }

    fn within(directory: TempDir, toml: &str) -> World {
        let config = config(directory.path(), toml);
        let access = Access::new(&config).unwrap();
        let (store, mut recovered) = store::open(&config.store).unwrap();
        let documents = std::mem::take(&mut recovered.documents);
        let (mqtt, limits) = (config.mqtt.clone(), config.limits.clone());
        let (broker, _) = Broker::restore(mqtt, limits, store, recovered, &access);
        let windows = WindowConfig {
            age: Duration::from_secs(60),
            bytes_max: 1 << 20,
            count_max: 10,
        };
        broker.start_feeds(&config.streams, windows);
        let broker = Arc::new(broker);
        let webhooks = Webhooks::start(Arc::clone(&broker), access, &config, &documents);
        World {
            webhooks,
            broker,
            toml: toml.to_owned(),
            directory,
        }
    }

    /// The same after `kill -9`.
    fn crashed(self) -> World {
        let toml = self.toml.clone();
        self.crashed_with(&toml)
    }

    fn crashed_with(self, toml: &str) -> World {
        World::within(self.copy(), toml)
    }

    /// What is durable, and the key beside it.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        self.broker.store().backup(copy.path()).unwrap();
        let key = self.directory.path().join("webhooks.key");
        if key.exists() {
            fs::copy(key, copy.path().join("webhooks.key")).unwrap();
        }
        copy
    }

    fn reload(&self, toml: &str) {
        self.webhooks.reload(&config(self.directory.path(), toml));
    }

    async fn durable(&self, ticket: Ticket) {
        until_durable(self.broker.store(), ticket).await.unwrap();
    }

    async fn create(&self, fields: Value) -> (Arc<Endpoint>, String) {
        let definition = self.webhooks.draft(&everybody(), &object(fields)).unwrap();
        let made = self.webhooks.create(definition).unwrap();
        self.durable(made.ticket).await;
        made.value
    }

    async fn publish(&self, topic: &str, payload: &[u8]) {
        self.durable(self.publish_soon(topic, payload)).await;
    }

    fn publish_soon(&self, topic: &str, payload: &[u8]) -> Ticket {
        let publication = Publication {
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
            payload,
            packet_id: None,
            shared_payload: None,
        };
        let mut batch = self.broker.batch();
        let published = batch.publish_one(&everybody(), topic, publication);
        published.unwrap().ticket
    }

    fn texts(&self, entries: &[Queued]) -> Vec<String> {
        let read = self.broker.read_queued(entries).into_iter();
        read.map(|it| String::from_utf8(it.unwrap().payload.to_vec()).unwrap())
            .collect()
    }

    /// The payloads of what is queued, once there are `count`.
    async fn queued(&self, endpoint: &Endpoint, count: usize) -> Vec<String> {
        self.texts(&page(endpoint, count).await)
    }

    fn endpoint(&self, id: &str) -> Arc<Endpoint> {
        self.webhooks.get(&everybody(), id).unwrap()
    }

    /// As whoever drives it does with a message that ran out of attempts.
    async fn kill_letter(&self, endpoint: &Endpoint, entry: Queued, topic: &str, status: u16) {
        let record = DeadRecord {
            offset: entry.offset.0,
            size: entry.size,
            qos: entry.qos.as_u8(),
            retain: entry.retain,
            topic: topic.into(),
            attempts: 3,
            first_ms: 1,
            last_ms: entry.seq * 1000,
            status: Some(status),
            error: format!("status {status}").into(),
        };
        let value = record.to_json();
        let key = dead_key(&endpoint.id, entry.seq);
        let gone = endpoint.dead.insert(entry.seq, record);
        let keys: Vec<String> = gone
            .iter()
            .map(|it| dead_key(&endpoint.id, it.seq))
            .collect();
        let mut changes = vec![Change::Put {
            key: &key,
            value: &value,
            expires_ms: None,
        }];
        changes.extend(keys.iter().map(|key| Change::Remove { key }));
        self.durable(endpoint.queue.done(&gone, &changes)).await;
    }
}

/// What is queued, once there are `count` entries: what is durable is there a moment later.
async fn page(endpoint: &Endpoint, count: usize) -> Vec<Queued> {
    loop {
        let page = endpoint.queue.page(0, 10_000, None);
        if page.len() >= count {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn everybody() -> Principal {
    Principal::operator()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => panic!("an object"),
    }
}

fn hook() -> Value {
    json!({"url": "https://example.com/hook", "topics": ["a/#"], "headers": {"X-Token": "geheim-7"}})
}

fn secrets(endpoint: &Endpoint, now_ms: u64) -> Vec<String> {
    let signers = endpoint.signers(now_ms);
    signers.secrets.iter().map(Secret::reveal).collect()
}

fn reason(endpoint: &Endpoint) -> String {
    match endpoint.state() {
        State::Disabled { reason } => reason.into(),
        other => panic!("{other:?}"),
    }
}

fn declared(name: &str, more: &str) -> String {
    format!("[[webhook]]\nname = '{name}'\nurl = 'https://example.com/'\ntopics = 'a/#'\n{more}\n")
}
