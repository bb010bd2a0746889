//! Replays over a store whose disk is as slow as a test wants it, and over crashes.

mod crashes;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_protocol::mqtt::{QoS, ReasonCode, RetainHandling, SubscriptionOptions, Version};

use crate::broker::feed::WindowConfig;
use crate::broker::stats::Drop as Reason;
use crate::broker::tests::kit::{
    Client, FAREWELL, GOODBYE, Received, Setup, crashed, drops, options, principal, publication,
    restored_with, slow_broker,
};
use crate::broker::{Broker, Ending};
use crate::config::StreamConfig;
use crate::store::{Recovered, SlowStore, Store, Ticket};

const ALL: &str = "$replay/earliest/s/#";

fn stream(messages_max: u64) -> StreamConfig {
    StreamConfig {
        name: "all".to_owned(),
        filters: vec!["s/#".to_owned()],
        qos0: true,
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 30,
        max_messages: messages_max,
    }
}

fn start_feeds(broker: &Broker, messages_max: u64) {
    let windows = WindowConfig {
        age: Duration::from_secs(300),
        bytes_max: 1 << 20,
        count_max: 3,
    };
    broker.start_feeds(&[stream(messages_max)], windows);
}

fn started() -> (&'static Broker, Arc<SlowStore>) {
    let (broker, store) = slow_broker();
    start_feeds(broker, 100_000);
    (broker, store)
}

/// The same broker after a crash that the first `count` appends survived.
fn again(store: &SlowStore, count: usize) -> (&'static Broker, Arc<SlowStore>) {
    let (broker, store) = crashed(store, count);
    start_feeds(broker, 100_000);
    (broker, store)
}

fn say(broker: &Broker, topic: &str, qos: QoS, payload: &str) -> Ticket {
    let publication = publication(qos, payload.as_bytes());
    let published = broker
        .batch()
        .publish_one(&principal("publisher"), topic, publication);
    published.expect("accepted").ticket
}

fn say_numbers(broker: &Broker, range: std::ops::Range<usize>, qos: QoS) {
    range.for_each(|number| {
        say(broker, "s/a", qos, &number.to_string());
    });
}

/// Collects and completes until there is nothing more, however often the disk has to be waited for.
fn drain(client: &mut Client<'_>, store: &SlowStore) -> Vec<Received> {
    let mut all = Vec::new();
    loop {
        store.commit();
        let mut got = client.drain();
        if got.is_empty() && store.appends().0 == store.appends().1 {
            return all;
        }
        all.append(&mut got);
    }
}

fn texts(received: &[Received]) -> Vec<&str> {
    received.iter().map(Received::text).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

const KINDS: [fn(Version) -> Setup; 2] = [Setup::new, Setup::persistent];

#[test]
fn what_was_comes_first_and_then_what_comes() {
    for (version, granted) in [
        (Version::V31, QoS::AtMostOnce),
        (Version::V311, QoS::AtLeastOnce),
        (Version::V5, QoS::ExactlyOnce),
    ] {
        for setup in KINDS {
            let (broker, store) = started();
            for (index, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .into_iter()
                .enumerate()
            {
                say_numbers(broker, 10 * index..10 * (index + 1), qos);
            }
            let mut client = Client::connect(broker, "c", setup(version).window(7));
            client.subscribe(ALL, granted);
            assert_eq!(client.payloads(), [""; 0], "nothing is durable yet");
            let mut got = drain(&mut client, &store);
            say_numbers(broker, 30..40, QoS::ExactlyOnce);
            got.append(&mut drain(&mut client, &store));
            assert_eq!(texts(&got), numbers(0..40), "{version:?} {granted:?}");
            for (index, message) in got.iter().enumerate() {
                let published = (index / 10).min(2) as u8;
                assert_eq!(message.qos, published.min(granted.as_u8()));
                assert!(message.topic == "s/a" && !message.dup && !message.retain);
            }
            assert_eq!(drops(broker), []);
        }
    }
}

#[test]
fn a_session_takes_in_no_more_than_a_page_beyond_what_it_can_send() {
    const COUNT: usize = 5_000;
    for setup in KINDS {
        for (limit, most) in [(1_000_000, 1500), (50, 50)] {
            let store = Arc::new(SlowStore::new());
            let broker = restored_with(store.clone(), Recovered::default(), |limits| {
                limits.queue_messages_max = limit;
            });
            start_feeds(broker, 100_000);
            say_numbers(broker, 0..COUNT, QoS::AtLeastOnce);
            let mut client = Client::connect(broker, "c", setup(Version::V5).window(10));
            client.subscribe(ALL, QoS::AtLeastOnce);
            for _ in 0..10 {
                store.commit();
                for message in client.messages() {
                    client.complete(&message);
                }
                let waits = client.session.lock().outgoing.len();
                assert!(waits <= most, "{waits} of {most}");
            }
            client.close(FAREWELL);
            let mut client = Client::connect(broker, "c", Setup::new(Version::V5));
            client.subscribe(ALL, QoS::AtLeastOnce);
            assert!(texts(&drain(&mut client, &store)) == numbers(0..COUNT));
            assert_eq!(broker.stats.dropped_for(Reason::QueueFull), 0);
        }
    }
}

#[test]
fn who_comes_back_goes_on_where_it_was() {
    for crash in [false, true] {
        let (mut broker, mut store) = started();
        say_numbers(broker, 0..3000, QoS::AtLeastOnce);
        let setup = Setup::persistent(Version::V311).window(100);
        let mut client = Client::connect(broker, "c", setup);
        client.subscribe(ALL, QoS::AtLeastOnce);
        let (mut seen, mut order) = (HashSet::new(), Vec::new());
        for round in 0.. {
            store.commit();
            let got = client.messages();
            if got.is_empty() && store.appends().0 == store.appends().1 {
                break;
            }
            for message in &got {
                if seen.insert(message.text().to_owned()) {
                    order.push(message.text().to_owned());
                } else {
                    assert!(message.dup, "{message:?}");
                }
                client.complete(message);
            }
            if round % 5 == 2 {
                if crash {
                    (broker, store) = again(&store, store.appends().0);
                } else {
                    client.close(Ending::Lost);
                    let queued = client.session.lock().outgoing.len();
                    say(broker, "s/a", QoS::AtLeastOnce, &format!("away {round}"));
                    store.commit();
                    assert_eq!(client.session.lock().outgoing.len(), queued);
                }
                client = Client::connect(broker, "c", setup);
                assert!(client.present);
            }
        }
        order.retain(|text| !text.starts_with("away"));
        assert!(order == numbers(0..3000), "crash: {crash}");
        assert_eq!(drops(broker), []);
    }
}

#[test]
fn subscribing_again_begins_again_unless_no_history_is_wanted() {
    let (broker, store) = started();
    say_numbers(broker, 0..5, QoS::AtLeastOnce);
    let mut client = Client::connect(broker, "c", Setup::persistent(Version::V5));
    client.subscribe(ALL, QoS::AtLeastOnce);
    assert_eq!(texts(&drain(&mut client, &store)), numbers(0..5));
    client.subscribe(ALL, QoS::AtLeastOnce);
    assert_eq!(texts(&drain(&mut client, &store)), numbers(0..5));
    for retain_handling in [RetainHandling::SendIfNew, RetainHandling::DoNotSend] {
        let options = SubscriptionOptions {
            retain_handling,
            ..options(QoS::ExactlyOnce)
        };
        assert_eq!(
            client.subscribe_with(ALL, options, 7),
            ReasonCode::GrantedQoS2
        );
        assert!(drain(&mut client, &store).is_empty());
    }
    say(broker, "s/b", QoS::ExactlyOnce, "5");
    let got = drain(&mut client, &store);
    assert_eq!((got[0].qos, &*got[0].identifiers), (2, &[7][..]));

    // Another place to begin at is another subscription.
    client.subscribe("$replay/1h/s/b", QoS::AtLeastOnce);
    assert_eq!(texts(&drain(&mut client, &store)), ["5"]);
    assert_eq!(client.unsubscribe(ALL), ReasonCode::Success);
    assert_eq!(client.unsubscribe(ALL), ReasonCode::NoSubscriptionExisted);
    say(broker, "s/b", QoS::AtLeastOnce, "6");
    assert_eq!(texts(&drain(&mut client, &store)), ["6"], "once");
    assert_eq!(client.unsubscribe("$replay/1h/s/b"), ReasonCode::Success);
    say(broker, "s/b", QoS::AtLeastOnce, "7");
    assert!(drain(&mut client, &store).is_empty());
    let (broker, store) = again(&store, store.appends().0);
    let mut client = Client::connect(broker, "c", Setup::persistent(Version::V5));
    assert!(client.present && drain(&mut client, &store).is_empty());
}

#[test]
fn a_place_to_begin_at_is_found_after_a_restart_too() {
    let (broker, store) = started();
    say_numbers(broker, 0..5, QoS::AtLeastOnce);
    store.commit();
    let client = Client::connect(broker, "c", Setup::persistent(Version::V5));
    for filter in ["$replay/1h/s/a", "$replay/latest/s/#", "$replay/0.3/s/+"] {
        client.subscribe(filter, QoS::AtLeastOnce);
    }
    // Nothing was collected: the disk has not been asked yet where an hour ago is.
    let (broker, store) = again(&store, store.appends().0);
    say_numbers(broker, 5..6, QoS::AtLeastOnce);
    let mut client = Client::connect(broker, "c", Setup::persistent(Version::V5));
    let mut got = drain(&mut client, &store);
    got.sort_by_key(|it| it.text().to_owned());
    let from = |first: usize| numbers(first..6);
    let offsets_from_one = from(3);
    let mut expected = [from(0), from(5), offsets_from_one].concat();
    expected.sort();
    assert_eq!(texts(&got), expected);
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let store = Arc::new(SlowStore::new());
    let broker = restored_with(store, Recovered::default(), |limits| {
        limits.replays_per_session_max = 2;
    });
    start_feeds(broker, 10);
    let client = Client::connect(broker, "c", Setup::new(Version::V5));
    let refused = |filter: &str| client.subscribe_with(filter, options(QoS::AtMostOnce), 0);
    for (filter, reason) in [
        (
            "$replay/earliest/t",
            ReasonCode::ImplementationSpecificError,
        ),
        (
            "$replay/earliest/#",
            ReasonCode::ImplementationSpecificError,
        ),
        (
            "$replay/earliest/$SYS/#",
            ReasonCode::ImplementationSpecificError,
        ),
        ("$replay/yesterday/s/a", ReasonCode::TopicFilterInvalid),
        ("$replay/10/s/a", ReasonCode::TopicFilterInvalid),
        ("$replay/10m", ReasonCode::TopicFilterInvalid),
        ("$share/g/$replay/10m/s/a", ReasonCode::TopicFilterInvalid),
        ("$replay/10m/$share/g/s/a", ReasonCode::TopicFilterInvalid),
        ("$replay/10m/s/a", ReasonCode::Success),
        ("$replay/11m/s/a", ReasonCode::Success),
        ("$replay/12m/s/a", ReasonCode::QuotaExceeded),
        ("$replay/10m/s/a", ReasonCode::Success),
        ("s/a", ReasonCode::Success),
    ] {
        assert_eq!(refused(filter), reason, "{filter}");
    }
    let readings = client.session.lock().readings.len();
    assert_eq!(readings, 2);
}

/// The User Properties that tell of a gap.
fn gap(oldest: u64, lost: Option<u64>) -> Vec<String> {
    let lost = lost.map(|lost| format!("UserProperty(\"tidings-gap-lost\", \"{lost}\")"));
    let oldest = format!("UserProperty(\"tidings-gap-oldest\", \"0.{oldest}\")");
    [oldest].into_iter().chain(lost).collect()
}

#[test]
fn who_was_away_too_long_is_told() {
    for crash in [false, true] {
        let (broker, store) = slow_broker();
        start_feeds(broker, 3);
        let setup = Setup::persistent(Version::V5);
        let mut client = Client::connect(broker, "c", setup);
        client.subscribe("$replay/latest/s/#", QoS::AtLeastOnce);
        say_numbers(broker, 0..1, QoS::AtLeastOnce);
        let got = drain(&mut client, &store);
        assert!(got[0].properties.is_empty());
        client.close(GOODBYE);
        say_numbers(broker, 1..11, QoS::AtLeastOnce);
        store.commit();
        broker.trim_feeds();
        let (broker, store) = match crash {
            true => {
                let (broker, store) = crashed(&store, store.appends().0);
                start_feeds(broker, 3);
                (broker, store)
            }
            false => (broker, store),
        };
        let mut client = Client::connect(broker, "c", setup);
        assert!(client.present);
        let got = drain(&mut client, &store);
        assert_eq!(texts(&got), numbers(8..11));
        let lost = (!crash).then_some(7);
        // Offsets begin with 1.
        assert_eq!(got[0].properties, gap(9, lost));
        assert!(got[1].properties.is_empty());
        assert_eq!(drops(broker), [(Reason::StreamGap, lost.unwrap_or(1))]);
        // It is told with a message that is kept like any other.
        client.close(GOODBYE);
        let mut client = Client::connect(broker, "c", setup);
        assert!(drain(&mut client, &store).is_empty());
    }
}

#[test]
fn a_cursor_of_another_log_is_told_of_a_gap() {
    let (broker, store) = started();
    say_numbers(broker, 0..2, QoS::AtLeastOnce);
    store.commit();
    for version in [Version::V311, Version::V5] {
        let mut client = Client::connect(broker, "c", Setup::persistent(version));
        client.subscribe("$replay/7.1/s/#", QoS::AtLeastOnce);
        let got = drain(&mut client, &store);
        assert_eq!(texts(&got), numbers(0..2));
        let told = version.is_v5();
        assert_eq!(got[0].properties.is_empty(), !told);
        client.close(FAREWELL);
    }
}

#[test]
fn no_local_leaves_out_what_the_session_published() {
    let (broker, store) = started();
    let mut client = Client::connect(broker, "c", Setup::new(Version::V5));
    let options = SubscriptionOptions {
        no_local: true,
        ..options(QoS::AtLeastOnce)
    };
    client.subscribe_with(ALL, options, 0);
    client.publish("s/a", QoS::AtLeastOnce, "own");
    say(broker, "s/a", QoS::AtLeastOnce, "another's");
    assert_eq!(texts(&drain(&mut client, &store)), ["another's"]);
}

/// What the stream gives up between the moment in which it is read and that in which it is queued may
/// be gone from the log: it is written again.
#[test]
fn what_is_given_up_while_it_is_read_is_delivered_all_the_same() {
    let (broker, store) = slow_broker();
    start_feeds(broker, 3);
    say_numbers(broker, 0..3, QoS::AtLeastOnce);
    store.commit();
    // After a restart the messages are on the disk alone.
    let (broker, store) = crashed(&store, store.appends().0);
    start_feeds(broker, 3);
    let setup = Setup::persistent(Version::V5);
    let client = Client::connect(broker, "c", setup);
    client.subscribe(ALL, QoS::AtLeastOnce);
    let noop = std::task::Waker::noop();
    assert!(broker.pull(&client.session, client.epoch, noop));
    let reading = client.session.lock().take_reading().expect("on the disk");
    let read = broker.read_page(reading);

    say_numbers(broker, 3..6, QoS::AtLeastOnce);
    store.commit();
    broker.trim_feeds();
    {
        let mut batch = broker.batch();
        let mut cx = batch.context();
        let mut state = client.session.lock();
        broker.take_in_page(&client.session, &mut state, read, &mut cx);
    }
    // Nothing was sent: the queue is all there is.
    let (broker, store) = crashed(&store, store.appends().0);
    start_feeds(broker, 3);
    let mut client = Client::connect(broker, "c", setup);
    assert_eq!(texts(&drain(&mut client, &store)), numbers(0..6));
    assert_eq!(drops(broker), []);
}

#[test]
fn a_stream_that_is_not_configured_any_more_is_waited_for() {
    let (broker, store) = started();
    say_numbers(broker, 0..2, QoS::AtLeastOnce);
    let setup = Setup::persistent(Version::V5);
    let mut client = Client::connect(broker, "c", setup);
    client.subscribe(ALL, QoS::AtLeastOnce);
    assert_eq!(texts(&drain(&mut client, &store)), numbers(0..2));
    let (broker, store) = crashed(&store, store.appends().0);
    let mut client = Client::connect(broker, "c", setup);
    assert!(client.present);
    assert!(drain(&mut client, &store).is_empty());
    let (broker, store) = again(&store, store.appends().0);
    say_numbers(broker, 2..4, QoS::AtLeastOnce);
    let mut client = Client::connect(broker, "c", setup);
    assert_eq!(texts(&drain(&mut client, &store)), numbers(2..4));
}
