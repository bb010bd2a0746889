//! A broker with endpoints that answer as the test says, without sockets and with a clock that
//! moves only when everybody waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tidings_protocol::mqtt::{PropertiesBuilder, Property, QoS};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::access::{Access, Principal};
use crate::broker::{Broker, Publication};
use crate::config::{Config, Sources, WebhooksConfig};
use crate::edges::webhook::Driver;
use crate::edges::webhook::client::{Answer, Dial, Exchange, Outgoing, SendError};
use crate::store::{MemoryStore, Recovered, SlowStore, Store};
use crate::webhooks::{Definition, Endpoint, Webhooks};

/// It takes no time to wait for it.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Status(u16),
    RetryAfter(u16, &'static str),
    /// Answers 200 after a while.
    Late(Duration),
    Hang,
    Broken,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The host of the endpoint's URL.
    pub host: String,
    /// Since the start.
    pub at: Duration,
    pub id: String,
    pub attempt: u32,
    pub body: Vec<u8>,
}

impl Call {
    /// The payloads of all events in it.
    pub fn data(&self) -> Vec<String> {
        let body: Value = serde_json::from_slice(&self.body).expect("JSON");
        let data = |event: &Value| event["data"].as_str().expect("a text").to_owned();
        match &body {
            Value::Array(events) => events.iter().map(data).collect(),
            event => vec![data(event)],
        }
    }
}

type Behaviour = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// Answers in place of a network.
#[derive(Clone)]
struct Fake {
    behave: Behaviour,
    calls: mpsc::UnboundedSender<Call>,
    began: Instant,
}

struct Line {
    fake: Fake,
    host: String,
}

impl Dial for Fake {
    type Exchange = Line;

    fn dial(&self, definition: &Definition, _: Arc<WebhooksConfig>) -> Result<Line, String> {
        Ok(Line {
            fake: self.clone(),
            host: definition.url.host().to_owned(),
        })
    }
}

impl Exchange for Line {
    async fn exchange(&self, outgoing: &Outgoing) -> Result<Answer, SendError> {
        let header = |name: &str| outgoing.headers[name].to_str().expect("text").to_owned();
        let call = Call {
            host: self.host.clone(),
            at: self.fake.began.elapsed(),
            id: header("webhook-id"),
            attempt: header("webhook-attempt").parse().expect("a number"),
            body: outgoing.body.to_vec(),
        };
        let reply = (self.fake.behave)(&call);
        // The test may be over.
        let _ = self.fake.calls.send(call);
        let (status, retry_after) = match reply {
            Reply::Status(status) => (status, None),
            Reply::RetryAfter(status, value) => (status, Some(value)),
            Reply::Late(delay) => {
                tokio::time::sleep(delay).await;
                (200, None)
            }
            Reply::Hang => std::future::pending().await,
            Reply::Broken => return Err(SendError::Http("it broke".to_owned())),
        };
        Ok(Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: retry_after.map(HeaderValue::from_static),
            content_type: None,
            body: Bytes::new(),
            is_cut: false,
        })
    }

    fn sweep(&self) -> Option<Instant> {
        None
    }
}

/// A disk, and what an earlier broker left on it.
pub(super) struct Disk {
    pub store: Arc<SlowStore>,
    recovered: Mutex<Option<Recovered>>,
    directory: Arc<TempDir>,
}

impl Disk {
    pub fn new() -> Disk {
        Disk {
            store: Arc::new(SlowStore::new()),
            recovered: Mutex::default(),
            directory: Arc::new(tempfile::tempdir().expect("a directory")),
        }
    }

    /// Everything appended so far is durable.
    pub fn commit(&self) {
        self.store.commit();
    }

    /// How many appends there were.
    pub fn appends(&self) -> usize {
        self.store.appends().0
    }

    /// Whether something is not durable.
    pub fn has_more(&self) -> bool {
        let (appends, durable) = self.store.appends();
        appends > durable
    }

    /// What is there after a crash that this many appends survived.
    pub fn crashed(&self, count: usize) -> Disk {
        let (store, recovered) = self.store.crashed(count);
        Disk {
            store: Arc::new(store),
            recovered: Mutex::new(Some(recovered)),
            directory: Arc::clone(&self.directory),
        }
    }

    /// The keys of all documents that are there after a crash.
    pub fn documents(&self) -> Vec<String> {
        let recovered = self.recovered.lock();
        let documents = recovered.iter().flat_map(|it| &it.documents);
        documents.map(|it| it.key.to_string()).collect()
    }
}

/// Everything of a test.
pub(super) struct World {
    pub broker: Arc<Broker>,
    pub webhooks: Arc<Webhooks>,
    pub began: Instant,
    driver: Option<Driver>,
    calls: mpsc::UnboundedReceiver<Call>,
}

/// An endpoint of the configuration, for `t/#`.
pub(super) fn endpoint(name: &str, fields: &str) -> String {
    let url = format!("url = \"https://{name}.example/\"");
    format!("[[webhook]]\nname = \"{name}\"\n{url}\ntopics = [\"t/#\"]\n{fields}\n")
}

impl World {
    /// With these settings and endpoints.
    pub fn new(settings: &str, behave: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> World {
        let (store, _) = MemoryStore::new();
        World::start(
            Arc::new(store),
            Recovered::default(),
            None,
            settings,
            behave,
        )
    }

    /// The same, over a store whose disk is as slow as the test wants it, and with what is on it.
    pub fn over(
        disk: &Disk,
        settings: &str,
        behave: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> World {
        let recovered = disk.recovered.lock().take().unwrap_or_default();
        let store: Arc<dyn Store> = Arc::clone(&disk.store) as _;
        World::start(store, recovered, Some(&disk.directory), settings, behave)
    }

    fn start(
        store: Arc<dyn Store>,
        mut recovered: Recovered,
        directory: Option<&Arc<TempDir>>,
        settings: &str,
        behave: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> World {
        let path = directory.map(|it| format!("store.path={}", it.path().display()));
        let sources = Sources::new()
            .file("the test's settings", settings)
            .set(path);
        let config = Config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        let access = Access::new(&config).expect("in order");
        let documents = std::mem::take(&mut recovered.documents);
        let (mqtt, limits) = (config.mqtt.clone(), config.limits.clone());
        let (broker, _) = Broker::restore(mqtt, limits, store, recovered, &access);
        let broker = Arc::new(broker);
        let webhooks = Webhooks::start(Arc::clone(&broker), access, &config, &documents);
        let (sender, calls) = mpsc::unbounded_channel();
        let began = Instant::now();
        let fake = Fake {
            behave: Arc::new(behave),
            calls: sender,
            began,
        };
        let driver = Driver::start_with(Arc::clone(&webhooks), fake);
        World {
            broker,
            webhooks,
            began,
            driver: Some(driver),
            calls,
        }
    }

    /// The endpoint with this name.
    pub fn endpoint(&self, name: &str) -> Arc<Endpoint> {
        self.webhooks.endpoint(name).expect("it is there")
    }

    /// Publishes to `t/a`.
    pub fn publish(&self, payload: &str) {
        self.publish_to("t/a", payload);
    }

    pub fn publish_to(&self, topic: &str, payload: &str) {
        self.publish_with(topic, payload, QoS::AtLeastOnce, &[]);
    }

    pub fn publish_with(&self, topic: &str, payload: &str, qos: QoS, properties: &[Property<'_>]) {
        let mut built = PropertiesBuilder::new();
        for property in properties {
            built.push(*property);
        }
        let publication = Publication {
            qos,
            retain: false,
            properties: built.as_properties(),
            payload: payload.as_bytes(),
            packet_id: None,
            shared_payload: None,
        };
        let published = self
            .broker
            .batch()
            .publish_one(&Principal::operator(), topic, publication);
        published.expect("taken");
    }

    /// The next request.
    pub async fn call(&mut self) -> Call {
        tokio::time::timeout(YEAR, self.calls.recv())
            .await
            .expect("a request, some day")
            .expect("the endpoints are there")
    }

    /// The next requests.
    pub async fn some(&mut self, count: usize) -> Vec<Call> {
        let mut calls = Vec::with_capacity(count);
        while calls.len() < count {
            calls.push(self.call().await);
        }
        calls
    }

    /// Requests that were made by then and not asked for; lets that much time pass.
    pub async fn within(&mut self, time: Duration) -> Vec<Call> {
        tokio::time::sleep(time).await;
        let mut calls = Vec::new();
        while let Ok(call) = self.calls.try_recv() {
            calls.push(call);
        }
        calls
    }

    /// Lets time pass until something is so. It may take a year, of which nobody notices anything.
    pub async fn until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let end = Instant::now() + YEAR;
        let mut step = Duration::from_millis(1);
        while !is_so(self) {
            assert!(Instant::now() < end, "never: {what}");
            tokio::time::sleep(step).await;
            step = (step * 2).min(Duration::from_secs(600));
        }
    }

    /// Everything of this endpoint is done.
    pub async fn until_empty(&self, name: &str) {
        let endpoint = self.endpoint(name);
        self.until("its queue is empty", |_| endpoint.queue.is_empty())
            .await;
    }

    pub async fn stop(&mut self) {
        let driver = self.driver.take().expect("once");
        driver.stop(Duration::from_secs(1)).await;
    }
}
