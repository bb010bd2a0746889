//! In the middle of a replay: each message that it means is delivered or still there to be replayed,
//! and nothing else suffers from it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A message of a batch: the identifier that it has in all requests and lists, and its payload.
fn events(request: &Request) -> Vec<(String, u32)> {
    let body = request.json();
    let events = body.as_array().expect("a batch").iter();
    let text = |event: &Value, name: &str| event[name].as_str().expect(name).to_owned();
    events
        .map(|event| {
            let number = text(event, "data").parse().expect("a number");
            (text(event, "id"), number)
        })
        .collect()
}

/// All dead letters, by the identifiers of their messages.
async fn letters(broker: &ProcessBroker, path: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = format!("{path}/dead-letters?limit=1000{cursor}");
        let page = done(broker, "GET", &page, Value::Null).await;
        for letter in page["dead_letters"].as_array().expect("a list") {
            let id = letter["message_id"].as_str().expect("an id");
            all.insert(id.to_owned(), letter.clone());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Which dead letters are meant. Times are all written alike, so they compare as text.
fn is_meant(selection: &Value, letter: &Value) -> bool {
    let fits = |name: &str, fits: &dyn Fn(&Value) -> bool| selection.get(name).is_none_or(fits);
    let last = letter["last_attempt"].as_str();
    fits("topic", &|topic| *topic == letter["topic"])
        && fits("status", &|status| *status == letter["status"])
        && fits("since", &|since| last >= since.as_str())
        && fits("until", &|until| last <= until.as_str())
}

/// Has messages become dead letters.
async fn make_letters(
    broker: &ProcessBroker,
    receiver: &Receiver,
    path: &str,
    (topic, status): (&str, u16),
    numbers: Range<u32>,
) {
    let before = until_shown(broker, path, |shown| {
        shown["queued"] == shown["dead_letters"]
    })
    .await["dead_letters"]
        .as_u64()
        .expect("a number");
    // Together in a few requests: of too many that fail, nobody sends another soon.
    done(broker, "POST", &format!("{path}/pause"), Value::Null).await;
    let all = before + u64::from(numbers.end - numbers.start);
    publish_all(broker, topic, numbers).await;
    receiver.always(Act::Status(status));
    done(broker, "POST", &format!("{path}/resume"), Value::Null).await;
    until_shown(broker, path, |shown| shown["dead_letters"] == all).await;
    receiver.always(Act::Status(200));
}

/// Whatever a replay of dead letters means is delivered, or it is a dead letter still; once it was
/// answered, it is delivered. Nothing else is touched, and what is done is not repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_dead_letter_is_lost() {
    let mut killer = Killer::new(63);
    let mut receiver = Receiver::start().await;
    let mut broker = process(LOCAL);
    let fields = json!({
        "url": receiver.url(),
        "topics": ["t/#"],
        "payload_mode": "batch",
        "retry_schedule": [],
    });
    let (path, _) = register(&broker, fields).await;
    let replay = format!("{path}/replay");
    let mut committed: BTreeSet<String> = BTreeSet::new();
    let mut next = 0;
    for round in rounds(4) {
        for group in [("t/a", 400), ("t/b", 422)] {
            let count = killer.rng.between(20, 600) as u32;
            make_letters(&broker, &receiver, &path, group, next..next + count).await;
            next += count;
        }
        for event in receiver.arrived().iter().flat_map(events) {
            assert!(!committed.contains(&event.0), "{event:?} is repeated");
        }
        let before = letters(&broker, &path).await;
        let times = |topic: &str| {
            let of_it = before.values().filter(|it| it["topic"] == topic);
            let times = of_it.map(|it| it["last_attempt"].as_str().expect("a time").to_owned());
            times.collect::<BTreeSet<String>>()
        };
        let mut body = match killer.rng.below(5) {
            0 => json!({}),
            1 => json!({"topic": "t/a"}),
            2 => json!({"status": 422}),
            3 => json!({"since": times("t/b").last(), "topic": "t/b"}),
            _ => json!({"until": times("t/a").last(), "status": 400}),
        };
        let meant: BTreeSet<&String> = before
            .iter()
            .filter(|(_, letter)| is_meant(&body, letter))
            .map(|(id, _)| id)
            .collect();
        println!(
            "round {round}: {body} means {} of {}",
            meant.len(),
            before.len()
        );
        body["source"] = "dead-letters".into();
        body["dry_run"] = true.into();
        let counted = done(&broker, "POST", &replay, body.clone()).await;
        assert_eq!(counted["matched"], meant.len(), "round {round}");

        body["dry_run"] = false.into();
        let live = publish_until_killed(&broker, "t/live", next, 50).await;
        let lives = next..next + 50;
        next += 50;
        let asked = ("POST", replay.clone(), body);
        let answer = killer.while_asked(&mut broker, asked).await;
        let acknowledged = live.await.expect("no panic");
        broker.start_again();

        let after = letters(&broker, &path).await;
        until_shown(&broker, &path, |shown| {
            shown["queued"] == shown["dead_letters"]
        })
        .await;
        let arrived: Vec<(String, u32)> = receiver.arrived().iter().flat_map(events).collect();
        for (id, number) in &arrived {
            assert!(
                !committed.contains(id),
                "round {round}: {number} is repeated"
            );
            assert!(
                meant.contains(id) || lives.contains(number),
                "round {round}: {number} was not asked for"
            );
        }
        let delivered: BTreeSet<String> = arrived.iter().map(|it| it.0.clone()).collect();
        match answer {
            Some((200, counts)) => {
                assert_eq!(
                    (&counts["matched"], &counts["queued"]),
                    (&json!(meant.len()), &json!(meant.len())),
                    "round {round}"
                );
                for &id in &meant {
                    assert!(delivered.contains(id), "round {round}: {id} is lost");
                    assert!(!after.contains_key(id), "round {round}: {id} is dead still");
                }
            }
            Some(other) => panic!("round {round}: {other:?}"),
            None => {}
        }
        for (id, letter) in &before {
            let is_there = after.get(id) == Some(letter);
            // Perhaps both: what was put back may be sent before the store has it.
            let is_right = is_there || meant.contains(id) && delivered.contains(id);
            assert!(is_right, "round {round}: {letter}, dead: {is_there}");
        }
        assert!(after.keys().all(|id| before.contains_key(id)));
        for number in acknowledged {
            let is_delivered = arrived.iter().any(|it| it.1 == number);
            assert!(is_delivered, "round {round}: {number} was acknowledged");
        }
        // Certain with the next that is acknowledged.
        committed.extend(delivered.into_iter().filter(|id| !after.contains_key(id)));
    }
}

/// A replay out of a stream that was asked for goes on over every kill until all of it is delivered,
/// and what is published meanwhile arrives in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_until_all_is_delivered() {
    const HISTORY: u32 = 60;
    const LIVE: u32 = 60;
    let mut killer = Killer::new(64);
    let mut receiver = Receiver::start().await;
    let stream = "[[stream]]\nname = \"all\"\nfilters = [\"t/#\"]\n";
    let mut broker = process(&format!("{LOCAL}{stream}"));
    publish_all(&broker, "t/history", 0..HISTORY).await;
    let fields = json!({
        "url": receiver.url(),
        "topics": ["t/#"],
        "ordering": "fifo",
        "retry_schedule": ["20ms", "20ms", "20ms", "20ms"],
    });
    let (path, _) = register(&broker, fields).await;
    let replay = format!("{path}/replay");
    let body = |dry_run: bool| {
        json!({"source": "stream", "stream": "all", "topic": "t/history", "rate_limit": 30,
               "dry_run": dry_run})
    };
    let began = Instant::now();
    let counted = done(&broker, "POST", &replay, body(true)).await;
    killer.took = Some(began.elapsed());
    assert_eq!(counted["matched"], HISTORY);

    let mut seen = Fifo::default();
    let mut is_begun = false;
    let mut acknowledged: Vec<u32> = Vec::new();
    for round in rounds(5) {
        let live = publish_until_killed(&broker, "t/live", round * LIVE, LIVE).await;
        receiver.next([Act::Status(503), Act::Status(200), Act::Reset]);
        if is_begun {
            for _ in 0..killer.rng.between(1, 20) {
                seen.see(&receiver.request().await);
            }
            broker.kill();
        } else {
            let asked = ("POST", replay.clone(), body(false));
            // First while it is asked, then once it is answered.
            let answer = match round {
                0 | 1 => killer.while_asked(&mut broker, asked).await,
                _ => killer.once_answered(&mut broker, asked).await,
            };
            match answer {
                Some((202, _)) => is_begun = true,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        acknowledged.extend(live.await.expect("no panic"));
        broker.start_again();
        let shown = done(&broker, "GET", &path, Value::Null).await;
        println!("round {round}: begun: {is_begun}, {}", shown["replay"]);
        match &shown["replay"] {
            // It was never begun, or is queued in full.
            Value::Null => {}
            replay => {
                let is_done = replay["queued"] == HISTORY;
                assert!(is_done || replay["running"] == true, "{replay}");
                is_begun = true;
            }
        }
    }
    if !is_begun {
        done(&broker, "POST", &replay, body(false)).await;
    }
    let missing = |seen: &Fifo| {
        !(0..HISTORY).all(|it| seen.has("t/history", it))
            || !acknowledged.iter().all(|&it| seen.has("t/live", it))
    };
    while missing(&seen) {
        seen.see(&receiver.request().await);
    }
}

/// One that was ended stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_cancelled_does_not_go_on() {
    let mut killer = Killer::new(65);
    let mut receiver = Receiver::start().await;
    let stream = "[[stream]]\nname = \"all\"\nfilters = [\"t\"]\n";
    let mut broker = process(&format!("{LOCAL}{stream}"));
    publish_all(&broker, "t", 0..200).await;
    let (path, _) = register(&broker, json!({"url": receiver.url(), "topics": ["t"]})).await;
    let replay = format!("{path}/replay");
    for _ in rounds(2) {
        let body = json!({"source": "stream", "stream": "all", "rate_limit": 20});
        done(&broker, "POST", &replay, body).await;
        receiver.some(killer.rng.between(1, 8) as usize).await;
        let cancel = ("DELETE", replay.clone(), Value::Null);
        let answer = killer.once_answered(&mut broker, cancel).await;
        assert_eq!(answer, Some((204, Value::Null)));
        broker.start_again();
        let shown = done(&broker, "GET", &path, Value::Null).await;
        assert_eq!(shown["replay"], Value::Null);
    }
}
