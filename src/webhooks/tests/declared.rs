//! Endpoints of the configuration, at starts and reloads.

use super::*;

const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

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
