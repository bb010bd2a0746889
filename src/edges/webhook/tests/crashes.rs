//! What a crash leaves, at every moment at which it can come.

use std::time::Duration;

use super::kit::Disk;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A retry that is due in an hour is so after a restart: neither earlier nor from the beginning.
#[tokio::test(start_paused = true)]
async fn retries_survive_with_their_due_times() {
    let settings = endpoint("hook", "retry_schedule = [\"100s\", \"100s\", \"100s\"]");
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, |_| Reply::Status(500));
    world.publish("x");
    disk.commit();
    let first = world.call().await;
    world.until("it is kept", |_| disk.has_more()).await;
    world.stop().await;

    let disk = disk.crashed(disk.appends());
    let mut world = World::over(&disk, &settings, |_| Reply::Status(200));
    assert!(world.within(75 * SECOND).await.is_empty(), "not yet due");
    let second = world.call().await;
    assert_eq!((&second.id, second.attempt), (&first.id, 2));
    assert!(second.at <= 121 * SECOND, "{:?}", second.at);
    disk.commit();
    world.until_empty("hook").await;

    let disk = disk.crashed(disk.appends());
    let left = disk.documents();
    assert!(left.iter().all(|key| !key.contains("/retry/")), "{left:?}");
    let mut world = World::over(&disk, &settings, |_| Reply::Status(200));
    assert!(world.within(1_000 * SECOND).await.is_empty());
}

/// Nothing leaves the machine before it is durable; what was answered and committed is not repeated;
/// what was not, is.
#[tokio::test(start_paused = true)]
async fn only_what_is_committed_is_done() {
    let settings = endpoint("hook", "");
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, |_| Reply::Status(200));
    world.publish("0");
    assert!(world.within(10 * SECOND).await.is_empty());
    let published = disk.appends();
    disk.commit();
    assert_eq!(world.call().await.data(), ["0"]);
    world.until_empty("hook").await;
    let done = disk.appends();
    assert!(done > published);

    let lost = disk.crashed(published);
    let mut again = World::over(&lost, &settings, |_| Reply::Status(200));
    assert_eq!(
        again.call().await.data(),
        ["0"],
        "its success was not committed"
    );

    let kept = disk.crashed(done);
    let mut over = World::over(&kept, &settings, |_| Reply::Status(200));
    assert!(over.within(100 * SECOND).await.is_empty());
}

/// A dead letter is one after a crash, and its message is not sent again by itself.
#[tokio::test(start_paused = true)]
async fn dead_letters_survive() {
    let settings = endpoint("hook", "retry_schedule = []");
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, |_| Reply::Status(400));
    for index in 0..3 {
        world.publish(&index.to_string());
    }
    disk.commit();
    world.some(3).await;
    let hook = world.endpoint("hook");
    world.until("they are dead", |_| hook.dead.len() == 3).await;

    let disk = disk.crashed(disk.appends());
    let mut world = World::over(&disk, &settings, |_| Reply::Status(200));
    let hook = world.endpoint("hook");
    assert_eq!((hook.dead.len(), hook.queue.len()), (3, 3));
    assert!(world.within(100 * SECOND).await.is_empty());
    world.publish("3");
    disk.commit();
    assert_eq!(world.call().await.data(), ["3"]);
}

/// The order of fifo holds across a crash after whichever append.
#[tokio::test(start_paused = true)]
async fn fifo_holds_across_any_crash() {
    let settings = endpoint(
        "hook",
        "ordering = \"fifo\"\nretry_schedule = [\"10s\", \"10s\"]",
    );
    let fails = |call: &Call| match call.attempt {
        1 if ["1", "3"].contains(&&*call.data()[0]) => Reply::Status(500),
        _ => Reply::Status(200),
    };
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, fails);
    for index in 0..5 {
        world.publish(&index.to_string());
    }
    disk.commit();
    let published = disk.appends();
    let calls = world.some(7).await;
    assert_eq!(texts(&calls), ["0", "1", "1", "2", "3", "3", "4"]);
    world.until_empty("hook").await;
    for survived in published..=disk.appends() {
        let disk = disk.crashed(survived);
        let mut world = World::over(&disk, &settings, fails);
        let queued = world.endpoint("hook").queue.len();
        let mut got = texts(&world.within(1_000 * SECOND).await);
        got.dedup();
        let expected: Vec<String> = (5 - queued..5).map(|index| index.to_string()).collect();
        assert_eq!(got, expected, "after {survived} appends");
    }
}

/// Of what was sent together, nothing is separated by a crash.
#[tokio::test(start_paused = true)]
async fn a_batch_stays_together_across_a_crash() {
    let settings = endpoint(
        "hook",
        "payload_mode = \"batch\"\nretry_schedule = [\"10s\"]",
    );
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, |_| Reply::Status(500));
    for index in 0..7 {
        world.publish(&index.to_string());
    }
    disk.commit();
    let first = world.call().await;
    assert_eq!(first.data().len(), 7);
    world.until("it is kept", |_| disk.has_more()).await;

    let disk = disk.crashed(disk.appends());
    let mut world = World::over(&disk, &settings, |_| Reply::Status(200));
    let again = world.call().await;
    assert_eq!(
        (&again.id, again.data(), again.attempt),
        (&first.id, first.data(), 2)
    );
}

/// Other fields take effect at once: another order too, without losing or repeating anything.
#[tokio::test(start_paused = true)]
async fn settings_change_under_way() {
    let settings = |fields: &str| endpoint("hook", fields);
    let retrying = "retry_schedule = [\"30s\"]\n";
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings(retrying), |call| {
        match (call.attempt, call.data()[0].parse::<u32>().unwrap()) {
            (1, 0..5) => Reply::Status(500),
            _ => Reply::Late(SECOND),
        }
    });
    for index in 0..40 {
        world.publish(&index.to_string());
    }
    disk.commit();
    let mut got = texts(&world.within(SECOND / 2).await);
    let reload = |world: &World, fields: &str| {
        let sources = crate::config::Sources::new().file("settings", settings(fields));
        let config = crate::config::Config::load(&sources).expect("in order");
        world.webhooks.reload(&config);
        disk.commit();
    };
    for ordering in ["fifo", "key", "none"] {
        reload(&world, &format!("{retrying}ordering = \"{ordering}\""));
        got.extend(texts(&world.within(3 * SECOND).await));
        disk.commit();
    }
    got.extend(texts(&world.within(200 * SECOND).await));
    disk.commit();
    world.until_empty("hook").await;
    let mut expected: Vec<String> = (0..40).map(|index| index.to_string()).collect();
    expected.extend((0..5).map(|index| index.to_string()));
    expected.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, expected);
}

/// After a crash, too, a topic waits for its first message that is to be tried again, and no other
/// topic does.
#[tokio::test(start_paused = true)]
async fn keys_hold_across_a_crash() {
    let settings = endpoint(
        "hook",
        "ordering = \"key\"\nretry_schedule = [\"100s\"]\nmax_in_flight = 8",
    );
    let fails = |call: &Call| match (call.attempt, &*call.data()[0]) {
        (1, "t/0 0") => Reply::Status(500),
        _ => Reply::Status(200),
    };
    let disk = Disk::new();
    let mut world = World::over(&disk, &settings, fails);
    for index in 0..3 {
        for topic in ["t/0", "t/1"] {
            world.publish_to(topic, &format!("{topic} {index}"));
        }
    }
    disk.commit();
    assert_eq!(world.some(4).await.len(), 4);
    world.until("it is kept", |_| disk.has_more()).await;
    world.stop().await;

    let disk = disk.crashed(disk.appends());
    let mut world = World::over(&disk, &settings, fails);
    world.publish_to("t/1", "t/1 3");
    disk.commit();
    assert_eq!(texts(&world.within(70 * SECOND).await), ["t/1 3"]);
    let late = texts(&world.within(70 * SECOND).await);
    assert_eq!(late, ["t/0 0", "t/0 1", "t/0 2"]);
}
