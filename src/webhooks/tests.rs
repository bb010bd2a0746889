//! Endpoints over a real store, and over crashes: a copy of what is durable at one moment is what a
//! killed process leaves.

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
use crate::broker::{Broker, Publication, RouteCache, Run};
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
        let mut batch = self.broker.batch();
        let principal = everybody();
        let route = batch.route(&principal, topic, &mut RouteCache::default());
        let publication = Publication {
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
            payload,
            packet_id: None,
            shared_payload: None,
        };
        let run = Run {
            topic,
            publications: &[publication],
            publisher: 0,
            publisher_is_kept: false,
            bell: None,
        };
        batch.publish(&route.unwrap(), &run).unwrap().ticket
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

const DAY: u64 = 24 * 3600 * 1000;

#[tokio::test]
async fn what_was_registered_survives_a_crash() {
    let world = World::new("");
    let (endpoint, secret) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let made = world.webhooks.pause(&everybody(), &id, true).unwrap();
    world.durable(made.ticket).await;
    world.publish("a/b", b"1").await;

    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    assert_eq!(endpoint.state(), State::Paused);
    assert_eq!(secrets(&endpoint, 0), [&*secret]);
    let definition = endpoint.definition();
    assert_eq!(definition.topics, ["a/#"]);
    assert_eq!(definition.headers["X-Token"], "geheim-7");
    assert_eq!(world.queued(&endpoint, 1).await, ["1"]);

    world.webhooks.pause(&everybody(), &id, false).unwrap();
    let patch = object(json!({"topics": ["b"], "signature_v1a": true}));
    let draft = world.webhooks.redraft(&everybody(), &id, &patch).unwrap();
    let made = world.webhooks.replace(&everybody(), &id, draft).unwrap();
    world.durable(made.ticket).await;
    let public_key = made.value.overview(0).public_key.unwrap();
    world.publish("a/b", b"not wanted any more").await;
    world.publish("b", b"2").await;

    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    assert_eq!(endpoint.state(), State::Active);
    assert_eq!(endpoint.overview(0).public_key, Some(public_key));
    assert_eq!(world.queued(&endpoint, 2).await, ["1", "2"]);
    let ticket = world.webhooks.delete(&everybody(), &id).unwrap();
    world.durable(ticket).await;
    assert!(endpoint.is_removed());

    let world = world.crashed();
    assert!(world.webhooks.list_all().is_empty());
    assert!(world.broker.endpoint_ids().is_empty());
}

#[tokio::test]
async fn a_rotation_survives_a_crash_with_its_grace_period() {
    let world = World::new("webhooks.rotation_grace = '1d'");
    let (endpoint, old) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let made = world.webhooks.rotate_secret(&everybody(), &id).unwrap();
    world.durable(made.ticket).await;
    let (_, new) = made.value;
    let now = world.broker.clock.now().0;
    assert_ne!(old, new);
    assert_eq!(secrets(&endpoint, now), [&*new, &*old]);

    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    assert_eq!(secrets(&endpoint, now), [&*new, &*old]);
    assert_eq!(secrets(&endpoint, now + DAY + 1000), [&*new]);
}

/// Neither the store nor a log line nor an answer has a secret in clear.
#[tokio::test]
async fn nothing_secret_is_on_the_disk() {
    let world = World::new("");
    let (endpoint, first) = world.create(hook()).await;
    let made = world
        .webhooks
        .rotate_secret(&everybody(), &endpoint.id)
        .unwrap();
    world.durable(made.ticket).await;
    let (_, second) = made.value;
    let found = |text: &str| {
        let key = text.strip_prefix("whsec_").unwrap_or(text);
        files(world.directory.path())
            .iter()
            .any(|file| file.windows(key.len()).any(|it| it == key.as_bytes()))
    };
    assert!(found("example.com/hook"), "what is not secret is found so");
    for secret in [&*first, &*second, "geheim-7"] {
        assert!(!found(secret));
    }
    let backup = tempfile::tempdir().unwrap();
    world.broker.store().backup(backup.path()).unwrap();
    assert!(!backup.path().join("webhooks.key").exists());
    let shown = serde_json::to_string(&endpoint.definition().to_json(true)).unwrap();
    assert!(
        !shown.contains("geheim-7") && !format!("{:?}", endpoint.definition()).contains("geheim")
    );
}

fn files(directory: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.append(&mut files(&entry.path())),
            // One may go while the store cleans up.
            kind if kind.is_file() => all.extend(fs::read(entry.path())),
            _ => {}
        }
    }
    all
}

#[tokio::test]
async fn an_endpoint_whose_secret_is_lost_waits_for_another() {
    let world = World::new("");
    let (endpoint, secret) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let copy = world.copy();
    let key = copy.path().join("webhooks.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();

    let world = World::within(copy, "");
    let endpoint = world.endpoint(&id);
    assert!(reason(&endpoint).contains("rotate the secret"));
    assert!(endpoint.signers(0).secrets.is_empty());
    // Nothing is lost meanwhile, and nothing of what is sealed.
    world.publish("a", b"1").await;
    assert_eq!(endpoint.queue.len(), 1);
    world.webhooks.pause(&everybody(), &id, true).unwrap();
    world.webhooks.pause(&everybody(), &id, false).unwrap();
    let patch = object(json!({"qos": 2}));
    let refused = world.webhooks.redraft(&everybody(), &id, &patch);
    assert!(matches!(refused, Err(WebhookError::Conflict(_))));

    let copy = world.copy();
    fs::write(copy.path().join("webhooks.key"), kept).unwrap();
    let healed = World::within(copy, "");
    assert_eq!(secrets(&healed.endpoint(&id), 0), [&*secret]);

    let made = world.webhooks.rotate_secret(&everybody(), &id).unwrap();
    let (endpoint, new) = made.value;
    assert_eq!(endpoint.state(), State::Active);
    assert_eq!(secrets(&endpoint, 0), [&*new]);
}

#[tokio::test]
async fn a_disabled_endpoint_takes_nothing_and_keeps_what_it_has() {
    let world = World::new("");
    let (endpoint, _) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let mut changes = endpoint.changes();
    world.publish("a", b"1").await;
    world.webhooks.disable(&id, "it answered 410 Gone");
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(reason(&endpoint), "it answered 410 Gone");
    let event = world
        .broker
        .retained(&format!("$SYS/webhooks/{id}/disabled"));
    let event: Value = serde_json::from_slice(event.unwrap().payload()).unwrap();
    assert_eq!(event, json!({"id": &*id, "reason": "it answered 410 Gone"}));
    world.publish("a", b"2").await;
    assert!(matches!(
        world.webhooks.test(&everybody(), &id),
        Err(WebhookError::Conflict(_))
    ));

    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    assert_eq!(reason(&endpoint), "it answered 410 Gone");
    let made = world.webhooks.enable(&everybody(), &id).unwrap();
    world.durable(made.ticket).await;
    let topic = format!("$SYS/webhooks/{id}/disabled");
    assert!(world.broker.retained(&topic).is_none());
    world.publish("a", b"3").await;
    let ticket = world.webhooks.test(&everybody(), &id).unwrap();
    world.durable(ticket).await;
    let page = world.queued(&endpoint, 3).await;
    assert_eq!(&page[..2], ["1", "3"]);
    assert_eq!(
        serde_json::from_str::<Value>(&page[2]).unwrap(),
        json!({"test": true, "webhook": &*id})
    );
}

#[tokio::test]
async fn drafts_are_judged() {
    let world = World::new("webhooks.max_endpoints = 1");
    let draft = |fields: Value| world.webhooks.draft(&everybody(), &object(fields));
    let wrong = |fields: Value| match draft(fields) {
        Err(WebhookError::Invalid(errors)) => errors
            .into_iter()
            .map(|it| (it.field, it.detail))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let errors = wrong(json!({"url": "https://b/", "topics": ["a/#"], "reply_topic": "a/b"}));
    assert_eq!(errors[0].0, "reply_topic");
    assert!(errors[0].1.contains("without end"), "{errors:?}");
    let errors =
        wrong(json!({"url": "https://b/", "topics": ["a"], "secret": "x", "state": "active"}));
    let fields: Vec<&str> = errors.iter().map(|it| &*it.0).collect();
    assert_eq!(fields, ["secret", "state"]);

    let refused = world.webhooks.draft(&Principal::nobody(), &object(hook()));
    assert!(matches!(refused, Err(WebhookError::NotAuthorized(_))));

    let (endpoint, _) = world.create(hook()).await;
    let full = world.webhooks.create(draft(hook()).unwrap());
    assert!(matches!(full, Err(WebhookError::TooMany)));

    // Two changes at a time: the second did not know of the first.
    let redraft = |patch: Value| {
        let patch = object(patch);
        world.webhooks.redraft(&everybody(), &endpoint.id, &patch)
    };
    let (one, two) = (
        redraft(json!({"qos": 2})).unwrap(),
        redraft(json!({"timeout": "1s"})).unwrap(),
    );
    let replace = |draft| world.webhooks.replace(&everybody(), &endpoint.id, draft);
    replace(one).unwrap();
    assert!(matches!(replace(two), Err(WebhookError::Conflict(_))));
    assert_eq!(endpoint.definition().qos, QoS::ExactlyOnce);
}

/// A world with an endpoint that has the dead letters 1 to 4, of topics a/1 to a/4.
async fn with_dead_letters(toml: &str) -> (World, Arc<Endpoint>) {
    let world = World::new(toml);
    let (endpoint, _) = world.create(hook()).await;
    for number in 1..=4 {
        let topic = format!("a/{number}");
        world.publish(&topic, number.to_string().as_bytes()).await;
    }
    for (entry, status) in page(&endpoint, 4)
        .await
        .into_iter()
        .zip([500, 503, 500, 503])
    {
        let topic = format!("a/{}", entry.seq);
        world.kill_letter(&endpoint, entry, &topic, status).await;
    }
    (world, endpoint)
}

fn seqs(letters: &[(u64, DeadRecord)]) -> Vec<u64> {
    letters.iter().map(|it| it.0).collect()
}

#[tokio::test]
async fn dead_letters_are_found_discarded_and_put_back_over_crashes() {
    let (world, endpoint) = with_dead_letters("").await;
    let id = endpoint.id.clone();
    let every = Selection::default();
    let world = world.crashed();
    let all = |world: &World, selection: &Selection| {
        let letters = world
            .webhooks
            .dead_letters(&everybody(), &id, 0, 10, selection);
        seqs(&letters.unwrap())
    };
    assert_eq!(all(&world, &every), [1, 2, 3, 4]);
    let page = world.webhooks.dead_letters(&everybody(), &id, 1, 2, &every);
    assert_eq!(seqs(&page.unwrap()), [2, 3]);
    let unavailable = Selection {
        status: Some(503),
        ..Selection::default()
    };
    assert_eq!(all(&world, &unavailable), [2, 4]);

    let letter = world.webhooks.dead_letter(&everybody(), &id, 3).unwrap();
    assert_eq!(world.texts(&[letter.queued(3)]), ["3"]);
    let ticket = world.webhooks.discard(&everybody(), &id, 3).unwrap();
    world.durable(ticket).await;
    let again = world.webhooks.discard(&everybody(), &id, 3);
    assert!(matches!(again, Err(WebhookError::NoDeadLetter)));

    let replay = |world: &World, selection: &Selection, rate, dry_run| {
        let webhooks = &world.webhooks;
        webhooks
            .replay_dead(&everybody(), &id, selection, rate, dry_run)
            .unwrap()
    };
    let counted = replay(&world, &unavailable, None, true);
    assert_eq!((counted.matched, counted.done), (2, 0));
    assert!(world.endpoint(&id).take_revived().is_empty());
    let done = replay(&world, &unavailable, Some(2), false);
    assert_eq!((done.matched, done.done), (2, 2));
    world.durable(done.ticket).await;
    let revived = world.endpoint(&id).take_revived();
    let dues: Vec<u64> = revived.iter().map(|it| it.record.due_ms).collect();
    assert_eq!((revived[0].seq, revived[1].seq), (2, 4));
    assert_eq!(dues[1] - dues[0], 500, "two a second");

    let world = world.crashed();
    assert_eq!(all(&world, &every), [1]);
    assert_eq!(world.endpoint(&id).take_revived(), revived);
    let discarded = |dry_run| {
        let webhooks = &world.webhooks;
        webhooks
            .discard_all(&everybody(), &id, &every, dry_run)
            .unwrap()
    };
    assert_eq!((discarded(true).matched, discarded(true).done), (1, 0));
    let counts = discarded(false);
    world.durable(counts.ticket).await;
    assert_eq!((counts.matched, counts.done), (1, 1));

    let world = world.crashed();
    assert_eq!(all(&world, &every), [] as [u64; 0]);
    let left = world.queued(&world.endpoint(&id), 2).await;
    assert_eq!(left, ["2", "4"], "what was put back");
}

#[tokio::test]
async fn too_many_dead_letters_crowd_out_the_oldest() {
    let (world, endpoint) = with_dead_letters("webhooks.dead_letters_max = 2").await;
    assert_eq!(endpoint.dead.crowded_out(), 2);
    let id = endpoint.id.clone();
    let world = world.crashed_with("webhooks.dead_letters_max = 1");
    let endpoint = world.endpoint(&id);
    let every = Selection::default();
    let left = world
        .webhooks
        .dead_letters(&everybody(), &id, 0, 10, &every);
    assert_eq!(seqs(&left.unwrap()), [4]);
    assert_eq!(endpoint.queue.len(), 1);
}

const STREAM: &str = "[[stream]]\nname = 's'\nfilters = ['#']\n";

fn stream_replay(world: &World) -> StreamReplay {
    StreamReplay {
        stream: Some("s".to_owned()),
        topic: None,
        since_ms: None,
        until_ms: world.broker.clock.now().0,
        rate: RATE_MAX,
        queued: 0,
        after: None,
    }
}

/// Waits until a replay has ended.
async fn ended(endpoint: &Endpoint) -> ReplayProgress {
    loop {
        match endpoint.replay() {
            Some(progress) if !progress.is_running => return progress,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test]
async fn a_stream_is_sent_again() {
    let world = World::new(STREAM);
    for number in 0..1500 {
        let topic = if number % 3 == 0 { "b" } else { "a/x" };
        world.publish_soon(topic, number.to_string().as_bytes());
    }
    let (endpoint, _) = world.create(hook()).await;
    let (webhooks, id) = (&world.webhooks, &endpoint.id);
    let request = stream_replay(&world);
    assert_eq!(
        webhooks.count_stream(&everybody(), id, &request).unwrap(),
        1000
    );
    assert_eq!(endpoint.queue.len(), 0);
    let ticket = webhooks
        .replay_stream(&everybody(), id, request.clone())
        .unwrap();
    world.durable(ticket).await;
    let progress = ended(&endpoint).await;
    assert_eq!((progress.request.queued, progress.error), (1000, None));
    let page = world.queued(&endpoint, 1000).await;
    let expected: Vec<String> = (0..1500)
        .filter(|number| number % 3 != 0)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(page, expected);

    for (stream, expected) in [
        (Some("none"), "there is no stream \"none\"; there are s"),
        (None, ""),
    ] {
        let request = StreamReplay {
            stream: stream.map(str::to_owned),
            ..request.clone()
        };
        match webhooks.count_stream(&everybody(), id, &request) {
            Ok(count) => assert_eq!((count, expected), (1000, "")),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }
    let none = StreamReplay {
        until_ms: 1,
        ..request.clone()
    };
    assert_eq!(webhooks.count_stream(&everybody(), id, &none).unwrap(), 0);
    let other = StreamReplay {
        topic: Some("a/y".to_owned()),
        ..request
    };
    assert_eq!(webhooks.count_stream(&everybody(), id, &other).unwrap(), 0);
}

#[tokio::test]
async fn a_replay_goes_on_after_a_crash_and_can_be_cancelled() {
    let world = World::new(STREAM);
    for number in 0..40 {
        world.publish("a", number.to_string().as_bytes()).await;
    }
    let (endpoint, _) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let request = StreamReplay {
        rate: 10,
        ..stream_replay(&world)
    };
    let begin = |world: &World| {
        let webhooks = &world.webhooks;
        webhooks.replay_stream(&everybody(), &id, request.clone())
    };
    let ticket = begin(&world).unwrap();
    world.durable(ticket).await;
    assert!(matches!(begin(&world), Err(WebhookError::Conflict(_))));
    while endpoint.queue.page(0, 10, None).len() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    let before = endpoint.queue.len();
    assert!((4..40).contains(&before), "{before} before the crash");
    // The rate is that of the request still; nobody wants to wait for it.
    endpoint.replay.lock().as_mut().unwrap().is_running = false;
    let after = endpoint.replay().unwrap().request.after;
    assert!(after.is_some());
    let rest = StreamReplay {
        rate: RATE_MAX,
        after,
        ..request.clone()
    };
    world
        .webhooks
        .replay_stream(&everybody(), &id, rest)
        .unwrap();
    ended(&endpoint).await;
    let mut page = world.queued(&endpoint, endpoint.queue.len() as usize).await;
    // At least once: the last step before the crash may be there twice.
    page.dedup();
    let mut seen: Vec<u32> = page.iter().map(|it| it.parse().unwrap()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..40).collect::<Vec<u32>>());

    begin(&world).unwrap();
    let ticket = world.webhooks.cancel_replay(&everybody(), &id).unwrap();
    world.durable(ticket).await;
    assert_eq!(
        endpoint.replay().unwrap().error.as_deref(),
        Some("cancelled")
    );
    assert!(world.webhooks.cancel_replay(&everybody(), &id).is_err());
    let world = world.crashed();
    assert_eq!(world.endpoint(&id).replay(), None);
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        seq: u64::from(number),
        offset: u64::from(number),
        messages: 1,
        attempt: 1,
        at_ms: u64::MAX / 2 + u64::from(number),
        millis: 3,
        status: Some(200),
        error: None,
        excerpt: Some("ä".repeat(600).into()),
    }
}

#[tokio::test]
async fn attempts_are_remembered_up_to_a_number() {
    let mut world = World::new("webhooks.attempts_kept = 150");
    let (endpoint, _) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let mut next = 0;
    for round in 0..4 {
        let endpoint = world.endpoint(&id);
        for batch in 0..60 {
            for _ in 0..=batch % 7 {
                endpoint.attempts.record(attempt(next));
                next += 1;
            }
            world.webhooks.tick();
        }
        let keys = endpoint.attempts.keys();
        assert!(keys.len() < 60, "{} documents", keys.len());
        world.durable(world.broker.store().appended()).await;
        world = world.crashed();
        let listed = world.endpoint(&id).attempts.list(u64::MAX, 1000);
        let numbers: Vec<u64> = listed.iter().map(|it| it.1.seq).collect();
        let expected: Vec<u64> = (0..u64::from(next)).rev().take(150).collect();
        assert_eq!(numbers, expected, "round {round}");
        let excerpt = listed[0].1.excerpt.clone().unwrap();
        assert_eq!(excerpt.len(), EXCERPT_BYTES_MAX);
        let page = world.endpoint(&id).attempts.list(listed[9].0, 5);
        assert_eq!(page, listed[10..15]);
    }
}

const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn declared(name: &str, more: &str) -> String {
    format!("[[webhook]]\nname = '{name}'\nurl = 'https://example.com/'\ntopics = 'a/#'\n{more}\n")
}

#[tokio::test]
async fn the_configuration_declares_endpoints() {
    let one = declared("one", "");
    let two = declared("two", &format!("secret = '{SECRET}'"));
    let world = World::new(&format!("{one}{two}"));
    let (registered, _) = world.create(hook()).await;
    let id = registered.id.clone();
    let (first, second) = (world.endpoint("one"), world.endpoint("two"));
    assert_eq!(first.source, Source::Configuration);
    assert_eq!(secrets(&second, 0), [SECRET]);
    let made = secrets(&first, 0);
    world.publish("a", b"1").await;

    for refused in [
        world.webhooks.delete(&everybody(), "one").map(|_| ()),
        world
            .webhooks
            .redraft(&everybody(), "one", &Map::new())
            .map(|_| ()),
        world
            .webhooks
            .rotate_secret(&everybody(), "two")
            .map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(WebhookError::Conflict(why)) if why.contains("configuration"))
        );
    }
    world.webhooks.pause(&everybody(), "one", true).unwrap();
    let rotated = world.webhooks.rotate_secret(&everybody(), "one").unwrap();
    world.durable(rotated.ticket).await;

    // Changed, changed and ended by a reload.
    let two = declared("two", &format!("secret = '{OTHER}'\ntimeout = '3s'"));
    let mut changes = second.changes();
    world.reload(&two);
    assert!(first.is_removed() && !registered.is_removed());
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let now = world.broker.clock.now().0;
    assert_eq!(secrets(&second, now), [OTHER, SECRET]);
    assert_eq!(second.definition().timeout, Duration::from_secs(3));
    assert_eq!(second.queue.len(), 1);
    world.durable(world.broker.store().appended()).await;

    // Made anew by a restart, with nothing of before.
    let world = world.crashed_with(&format!("{one}{two}"));
    let first = world.endpoint("one");
    assert_eq!((first.state(), first.queue.len()), (State::Active, 0));
    assert_ne!(secrets(&first, 0), made);
    let second = world.endpoint("two");
    assert_eq!(secrets(&second, now), [OTHER, SECRET]);
    assert_eq!(second.queue.len(), 1);
    let updated = second.overview(0).updated_ms;

    // The same by a restart, and by a reload: nothing is written.
    let world = world.crashed();
    assert_eq!(world.endpoint("two").overview(0).updated_ms, updated);
    world.durable(world.broker.store().appended()).await;

    // Ended by a restart.
    let world = world.crashed_with("");
    let left: Vec<Box<str>> = world
        .webhooks
        .list_all()
        .iter()
        .map(|it| it.id.clone())
        .collect();
    assert_eq!(left, [id]);
}

/// A crash between the end of an endpoint and what its driver does last leaves documents without one.
#[tokio::test]
async fn what_belongs_to_no_endpoint_is_forgotten() {
    let world = World::new("");
    let (endpoint, _) = world.create(hook()).await;
    let id = endpoint.id.clone();
    world.webhooks.delete(&everybody(), &id).unwrap();
    let record = RetryRecord {
        attempts: 1,
        due_ms: 1,
        first_ms: 1,
        status: None,
        error: None,
        batch: None,
    };
    let (key, value) = (retry_key("one", 1), record.to_json());
    let ticket = endpoint.queue.keep(&[Change::Put {
        key: &key,
        value: &value,
        expires_ms: None,
    }]);
    world.durable(ticket).await;
    let world = world.crashed();
    world.durable(world.broker.store().appended()).await;
    let world = world.crashed_with(&declared("one", ""));
    assert!(world.endpoint("one").take_revived().is_empty());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new(&declared("aa", ""));
    let mut ids = vec!["aa".to_owned()];
    for _ in 0..4 {
        ids.push(world.create(hook()).await.0.id.to_string());
    }
    ids.sort_unstable();
    let list = |after: &str, max| {
        let found = world.webhooks.list(&everybody(), after, max);
        found.iter().map(|it| it.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("", 10), ids);
    assert_eq!(list(&ids[1], 2), ids[2..4]);
    assert_eq!(world.webhooks.list(&Principal::nobody(), "", 10).len(), 0);
    let foreign = world.webhooks.get(&Principal::nobody(), "aa");
    assert!(matches!(foreign, Err(WebhookError::NotFound)));
}
