//! Dead letters: found, discarded, put back.

use super::*;

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
