//! In the middle of a change: an endpoint that was stopped stays so, one that was started is, and
//! one that was deleted gets nothing any more.

use std::collections::BTreeSet;

use super::*;

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    paused: bool,
    disabled: bool,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State { disabled: true, .. } => "disabled",
            State { paused: true, .. } => "paused",
            _ => "active",
        }
    }

    /// What can be done so that it shows, and what the endpoint is then.
    fn changes(self) -> Vec<(&'static str, State)> {
        let paused = |paused| State { paused, ..self };
        let disabled = |disabled| State { disabled, ..self };
        match self.name() {
            "disabled" => vec![("enable", disabled(false))],
            "paused" => vec![("resume", paused(false)), ("disable", disabled(true))],
            _ => vec![("pause", paused(true)), ("disable", disabled(true))],
        }
    }
}

/// An endpoint that gets everything, to know when everybody would have.
struct Witness(Receiver);

impl Witness {
    async fn start() -> (Witness, ProcessBroker) {
        let receiver = Receiver::start().await;
        let broker = process(&format!(
            "{LOCAL}{}",
            endpoint("witness", &receiver.url(), "")
        ));
        (Witness(receiver), broker)
    }

    /// Publishes numbers, and waits until they are seen.
    async fn see(&mut self, broker: &ProcessBroker, numbers: Range<u32>) {
        publish_all(broker, "t", numbers.clone()).await;
        let mut missing: BTreeSet<u32> = numbers.collect();
        while !missing.is_empty() {
            missing.remove(&number(&self.0.request().await));
        }
    }
}

/// While deliveries run, an endpoint is stopped and started, and the broker is killed meanwhile. What
/// was answered is so afterwards; what is stopped sends nothing, and loses nothing that was for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_or_it_is_not() {
    let mut killer = Killer::new(66);
    let (mut witness, mut broker) = Witness::start().await;
    let mut receiver = Receiver::start().await;
    let (path, _) = register(&broker, json!({"url": receiver.url(), "topics": ["t"]})).await;
    let mut state = State {
        paused: false,
        disabled: false,
    };
    let (mut wanted, mut unwanted) = (BTreeSet::new(), BTreeSet::new());
    let mut delivered: BTreeSet<u32> = BTreeSet::new();
    let mut next = 0;
    for round in rounds(8) {
        publish_all(&broker, "t", next..next + 30).await;
        match state.disabled {
            true => unwanted.extend(next..next + 30),
            false => wanted.extend(next..next + 30),
        }
        next += 30;
        let (action, changed) = *killer.rng.pick(&state.changes());
        let asked = ("POST", format!("{path}/{action}"), Value::Null);
        let answer = killer.while_asked(&mut broker, asked).await;
        // What was answered has been seen.
        delivered.extend(receiver.arrived().iter().map(number));
        receiver = receiver.again().await;
        broker.start_again();

        let shown = done(&broker, "GET", &path, Value::Null).await;
        match answer {
            Some((200, _)) => assert_eq!(shown["state"], changed.name(), "round {round}"),
            Some(other) => panic!("round {round}: {other:?}"),
            None => {}
        }
        println!(
            "round {round}: {action} {state:?}, {} afterwards",
            shown["state"]
        );
        if shown["state"] == changed.name() {
            state = changed;
        }
        assert_eq!(shown["state"], state.name(), "round {round}: {action}");
        witness.see(&broker, next..next + 3).await;
        match state.disabled {
            true => unwanted.extend(next..next + 3),
            false => wanted.extend(next..next + 3),
        }
        next += 3;
        if state.name() != "active" {
            let sent: Vec<u32> = receiver.arrived().iter().map(number).collect();
            assert!(sent.is_empty(), "round {round}: {sent:?} while {state:?}");
        }
    }
    for action in ["enable", "resume"] {
        done(&broker, "POST", &format!("{path}/{action}"), Value::Null).await;
    }
    until_shown(&broker, &path, |shown| shown["queued"] == 0).await;
    delivered.extend(receiver.arrived().iter().map(number));
    let missing: Vec<&u32> = wanted.difference(&delivered).collect();
    assert!(missing.is_empty(), "{missing:?} are lost");
    let too_many: Vec<&u32> = unwanted.intersection(&delivered).collect();
    assert!(
        too_many.is_empty(),
        "{too_many:?} came while it was disabled"
    );
}

/// An endpoint is deleted while it has messages under way, waiting and dead. Once that was answered
/// it gets nothing more; if it is there still after a kill, it gets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_gets_nothing() {
    let mut killer = Killer::new(67);
    let (mut witness, mut broker) = Witness::start().await;
    let mut ended: Vec<Receiver> = Vec::new();
    let mut next = 0;
    for round in rounds(4) {
        let mut receiver = Receiver::start().await;
        let fields = json!({
            "url": receiver.url(),
            "topics": ["t"],
            "ordering": killer.rng.pick(&["none", "key", "fifo"]),
            "retry_schedule": ["20ms", "20ms", "20ms", "20ms", "20ms"],
        });
        let (path, _) = register(&broker, fields).await;
        let numbers: BTreeSet<u32> = (next..next + 30).collect();
        receiver.next([Act::Status(200), Act::Status(500), Act::Reset]);
        publish_all(&broker, "t", next..next + 30).await;
        next += 30;
        let mut delivered: BTreeSet<u32> = BTreeSet::new();
        for request in receiver.some(killer.rng.between(1, 10) as usize).await {
            delivered.insert(number(&request));
        }
        let asked = ("DELETE", path.clone(), Value::Null);
        let answer = killer.while_asked(&mut broker, asked).await;
        delivered.extend(receiver.arrived().iter().map(number));
        receiver = receiver.again().await;
        broker.start_again();

        let (status, shown) = ask(http(&broker), "GET", &path, Value::Null)
            .await
            .expect("an answer");
        match answer {
            Some((204, _)) => assert_eq!(status, 404, "round {round}: {shown}"),
            Some(other) => panic!("round {round}: {other:?}"),
            None => {}
        }
        witness.see(&broker, next..next + 3).await;
        next += 3;
        println!("round {round}: {answer:?}, then {status}");
        if status == 404 {
            assert!(
                receiver.arrived().is_empty(),
                "round {round}: it is deleted"
            );
            ended.push(receiver);
            continue;
        }
        until_shown(&broker, &path, |shown| shown["queued"] == 0).await;
        delivered.extend(receiver.arrived().iter().map(number));
        let missing: Vec<&u32> = numbers.difference(&delivered).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} are lost");
        done(&broker, "DELETE", &path, Value::Null).await;
        ended.push(receiver.again().await);
    }
    witness.see(&broker, next..next + 3).await;
    for receiver in &mut ended {
        assert!(receiver.arrived().is_empty(), "it is deleted");
    }
    let shown = done(&broker, "GET", "/v1/webhooks", Value::Null).await;
    let all = shown["webhooks"].as_array().expect("a list");
    assert_eq!(all.len(), 1, "the witness alone: {shown}");
}
