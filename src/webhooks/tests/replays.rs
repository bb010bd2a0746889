//! Messages of a stream that are sent again.

use super::*;

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

/// One that is ended in the middle of a step is not kept by that step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_cancelled_does_not_come_back() {
    let world = World::new(STREAM);
    for number in 0..40 {
        world.publish_soon("a", number.to_string().as_bytes());
    }
    let request = StreamReplay {
        rate: 100,
        ..stream_replay(&world)
    };
    // Each at another moment of its first step.
    for delay in 0..50 {
        let (endpoint, _) = world.create(hook()).await;
        let (webhooks, id) = (&world.webhooks, &endpoint.id);
        let begun = webhooks.replay_stream(&everybody(), id, request.clone());
        world.durable(begun.unwrap()).await;
        while endpoint.queue.is_empty() {
            std::hint::spin_loop();
        }
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_micros(10 * delay) {
            std::hint::spin_loop();
        }
        webhooks.cancel_replay(&everybody(), id).unwrap();
    }
    // Durable behind all that was cancelled.
    world.publish("a", b"last").await;
    let world = world.crashed();
    for endpoint in world.webhooks.list_all() {
        assert_eq!(endpoint.replay(), None);
    }
}
