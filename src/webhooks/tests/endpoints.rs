//! Endpoints that are registered: made, changed, stopped, ended, over crashes and lost keys.

use super::*;

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
    let topic = format!("$SYS/webhooks/{id}/disabled");
    assert!(world.broker.retained(&topic).is_none());
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

/// A change that cannot be kept is not made: nobody signs with a secret that was shown to nobody.
#[tokio::test]
async fn what_cannot_be_kept_is_not_changed() {
    let world = World::new("");
    let (endpoint, _) = world.create(hook()).await;
    let id = endpoint.id.clone();
    let copy = world.copy();
    fs::write(copy.path().join("webhooks.key"), [7; 31]).unwrap();
    let world = World::within(copy, "");
    let endpoint = world.endpoint(&id);
    let before = reason(&endpoint);
    let rotated = world.webhooks.rotate_secret(&everybody(), &id);
    assert!(matches!(rotated, Err(WebhookError::Vault(_))));
    assert_eq!(reason(&endpoint), before);
    assert_eq!(secrets(&endpoint, 0), [""; 0]);
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
    // Its headers are lost, and what is queued does not leave without them.
    assert_eq!(endpoint.state(), State::Paused);
    let topic = format!("$SYS/webhooks/{id}/disabled");
    assert!(world.broker.retained(&topic).is_none());
    let patch = object(json!({"headers": {"Authorization": "Bearer again"}}));
    world.webhooks.redraft(&everybody(), &id, &patch).unwrap();
    world.webhooks.pause(&everybody(), &id, false).unwrap();
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
    world.durable(world.broker.store().appended()).await;
    assert!(matches!(
        world.webhooks.test(&everybody(), &id),
        Err(WebhookError::Conflict(_))
    ));

    let world = world.crashed();
    let endpoint = world.endpoint(&id);
    assert_eq!(reason(&endpoint), "it answered 410 Gone");
    let topic = format!("$SYS/webhooks/{id}/disabled");
    assert!(
        world.broker.retained(&topic).is_some(),
        "still told after a restart"
    );
    let made = world.webhooks.enable(&everybody(), &id).unwrap();
    world.durable(made.ticket).await;
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
