//! Feeds over a store whose disk is as slow as a test wants it, and over crashes.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tidings_protocol::mqtt::QoS;

use super::*;
use crate::broker::tests::kit::{crashed, principal, publication, slow_broker};
use crate::broker::{Broker, Publication};
use crate::config::StreamConfig;
use crate::store::SlowStore;

fn windows() -> WindowConfig {
    WindowConfig {
        age: Duration::from_secs(300),
        bytes_max: 1 << 20,
        count_max: 3,
    }
}

fn stream(name: &str, filter: &str) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        filters: vec![filter.to_owned()],
        qos0: true,
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 30,
        max_messages: 1000,
    }
}

fn started(streams: &[StreamConfig]) -> (&'static Broker, Arc<SlowStore>) {
    let (broker, store) = slow_broker();
    broker.start_feeds(streams, windows());
    (broker, store)
}

/// The same broker after a crash that all appends survived.
fn again(store: &SlowStore, streams: &[StreamConfig]) -> (&'static Broker, Arc<SlowStore>) {
    let (broker, store) = crashed(store, store.appends().0);
    broker.start_feeds(streams, windows());
    (broker, store)
}

fn publish(broker: &Broker, topic: &str, publication: Publication<'_>) -> usize {
    let published = broker
        .batch()
        .publish_one(&principal("publisher"), topic, publication);
    published.expect("accepted").matched
}

fn say(broker: &Broker, topic: &str, payload: &str) -> usize {
    publish(
        broker,
        topic,
        publication(QoS::AtLeastOnce, payload.as_bytes()),
    )
}

fn open(broker: &Broker, filters: &[&str], start: Start) -> OpenReader {
    broker
        .open_reader(&principal("reader"), filters, start)
        .expect("a reader")
}

/// Everything there is for a reader, and the gaps before it.
fn read(broker: &Broker, reader: &mut Reader) -> (Vec<String>, Vec<Gap>) {
    let (mut texts, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let mut events = Vec::new();
        let next = broker.read_events(reader, Waker::noop(), 1000, &mut events);
        match next {
            Next::Events => {}
            Next::Page => broker.load_events(reader, &mut events),
            Next::Gap(gap) => gaps.push(gap),
            Next::Waiting | Next::Failed => return (texts, gaps),
        }
        let text = |event: &Arc<Event>| String::from_utf8_lossy(event.message.payload()).into();
        texts.extend(events.iter().map(text));
    }
}

fn texts(broker: &Broker, reader: &mut Reader) -> Vec<String> {
    let (texts, gaps) = read(broker, reader);
    assert_eq!(gaps, []);
    texts
}

fn cursor(broker: &Broker, reader: &Reader) -> Start {
    Start::After(Cursor {
        epoch: broker.log_epoch(),
        offset: reader.cursor(),
    })
}

#[test]
fn a_message_is_visible_once_it_is_durable_and_not_before() {
    let (broker, store) = started(&[]);
    let mut reader = open(broker, &["a/#"], Start::Latest).reader;
    assert_eq!(say(broker, "a/1", "one"), 1);
    assert_eq!(say(broker, "b", "not for it"), 0);
    assert!(texts(broker, &mut reader).is_empty());
    store.commit();
    assert_eq!(texts(broker, &mut reader), ["one"]);
    assert!(texts(broker, &mut reader).is_empty());
}

#[test]
fn a_reader_that_comes_back_has_missed_nothing() {
    let (broker, store) = started(&[]);
    let mut reader = open(broker, &["a"], Start::Latest).reader;
    say(broker, "a", "1");
    store.commit();
    assert_eq!(texts(broker, &mut reader), ["1"]);
    let cursor = cursor(broker, &reader);
    drop(reader);
    say(broker, "a", "2");
    store.commit();
    let opened = open(broker, &["a"], cursor);
    assert_eq!(opened.gap, None);
    let mut reader = opened.reader;
    say(broker, "a", "3");
    store.commit();
    assert_eq!(texts(broker, &mut reader), ["2", "3"]);
}

#[test]
fn a_window_and_its_cursors_outlive_a_crash() {
    let (broker, store) = started(&[]);
    let mut reader = open(broker, &["b", "a"], Start::Latest).reader;
    let before = cursor(broker, &reader);
    say(broker, "a", "1");
    store.commit();
    assert_eq!(texts(broker, &mut reader), ["1"]);
    let after = cursor(broker, &reader);

    let (broker, store) = again(&store, &[]);
    say(broker, "b", "2");
    store.commit();
    for (start, expected) in [(before, vec!["1", "2"]), (after, vec!["2"])] {
        let opened = open(broker, &["a", "b"], start);
        assert_eq!(opened.gap, None);
        let mut reader = opened.reader;
        assert_eq!(texts(broker, &mut reader), expected);
    }
}

#[test]
fn a_cursor_of_another_log_or_from_before_the_window_is_told_of_a_gap() {
    let (broker, store) = started(&[stream("other", "other")]);
    say(broker, "other", "before the window");
    let _keeper = open(broker, &["a"], Start::Latest).reader;
    say(broker, "a", "1");
    store.commit();
    let foreign = Start::After(Cursor {
        epoch: broker.log_epoch() + 1,
        offset: Offset(1),
    });
    let early = Start::After(Cursor {
        epoch: broker.log_epoch(),
        offset: Offset(0),
    });
    for start in [foreign, early] {
        let OpenReader {
            gap, mut reader, ..
        } = open(broker, &["a"], start);
        let oldest = gap.expect("something may be missing").oldest;
        assert!(oldest.is_some());
        assert_eq!(texts(broker, &mut reader), ["1"]);
    }
}

#[test]
fn a_stream_replays_from_its_start_a_time_or_a_cursor_and_narrower_filters() {
    let streams = [stream("all", "s/#")];
    let (broker, store) = started(&streams);
    for (topic, text) in [("s/a", "1"), ("s/b", "2"), ("s/a", "3")] {
        assert_eq!(say(broker, topic, text), 0, "a stream is no subscriber");
    }
    store.commit();
    let mut all = open(broker, &["s/#"], Start::Earliest).reader;
    assert_eq!(texts(broker, &mut all), ["1", "2", "3"]);
    let mut some = open(broker, &["s/a"], Start::Earliest).reader;
    assert_eq!(texts(broker, &mut some), ["1", "3"]);
    let now = broker.clock.advance();
    assert!(
        texts(
            broker,
            &mut open(broker, &["s/#"], Start::Since(now.0 + 1)).reader
        )
        .is_empty()
    );

    // The times of before are on the disk alone.
    let (broker, store) = again(&store, &streams);
    say(broker, "s/a", "4");
    store.commit();
    assert_eq!(
        texts(broker, &mut open(broker, &["s/#"], Start::Since(1)).reader).len(),
        4
    );
    let mut rest = open(broker, &["s/a"], cursor(broker, &all)).reader;
    assert_eq!(texts(broker, &mut rest), ["4"]);
}

#[test]
fn of_the_streams_that_have_it_the_one_that_reaches_back_furthest_is_read() {
    let short = || StreamConfig {
        max_messages: 2,
        ..stream("short", "#")
    };
    let (broker, store) = started(&[short(), stream("long", "a/#"), stream("other", "b")]);
    for payload in ["1", "2", "3", "4"] {
        say(broker, "a/b", payload);
        store.commit();
    }
    broker.trim_feeds();
    let mut reader = open(broker, &["a/b"], Start::Earliest).reader;
    assert_eq!(texts(broker, &mut reader), ["1", "2", "3", "4"]);
    let mut reader = open(broker, &["#"], Start::Earliest).reader;
    let (left, _) = read(broker, &mut reader);
    assert_eq!(left, ["3", "4"], "only one has that");
}

#[test]
fn the_oldest_go_and_slow_readers_are_told() {
    let streams = [StreamConfig {
        max_messages: 3,
        ..stream("short", "s")
    }];
    let (broker, store) = started(&streams);
    let mut slow = open(broker, &["s"], Start::Earliest).reader;
    (0..10).for_each(|n| {
        say(broker, "s", &n.to_string());
    });
    store.commit();
    broker.trim_feeds();
    let (left, gaps) = read(broker, &mut slow);
    assert_eq!(left, ["7", "8", "9"]);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].lost, Some(7));

    let (broker, _store) = again(&store, &streams);
    let mut reader = open(broker, &["s"], Start::Earliest).reader;
    assert_eq!(texts(broker, &mut reader), ["7", "8", "9"]);
}

#[test]
fn windows_are_bounded() {
    let (broker, _store) = started(&[]);
    let _readers: Vec<_> = ["a", "b", "c", "a"]
        .iter()
        .map(|filter| open(broker, &[filter], Start::Latest))
        .collect();
    let refused = broker.open_reader(&principal("reader"), &["d"], Start::Latest);
    assert_eq!(refused.err(), Some(ReaderError::TooMany));
}

/// Publishers on several threads, readers that leave and come back with their cursor: everything
/// once, in the order of each publisher.
#[test]
fn nothing_is_lost_or_doubled_over_reconnects_under_load() {
    let (broker, store) = started(&[stream("all", "load/#")]);
    const EACH: usize = 2_000;
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            std::thread::spawn(move || {
                let topic = format!("load/{publisher}");
                (0..EACH).for_each(|n| {
                    say(broker, &topic, &format!("{publisher}:{n}"));
                });
            })
        })
        .collect();
    let committing = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            while Arc::strong_count(&store) > 0 && !broker.is_stopping() {
                store.commit();
                std::thread::yield_now();
            }
        })
    };
    for filter in ["load/#", "load/+"] {
        let mut got = Vec::new();
        let mut start = Start::Earliest;
        while got.len() < 3 * EACH {
            let opened = open(broker, &[filter], start);
            assert_eq!(opened.gap, None);
            let mut reader = opened.reader;
            for _ in 0..5 {
                let mut events = Vec::new();
                match broker.read_events(&mut reader, Waker::noop(), 500, &mut events) {
                    Next::Page => broker.load_events(&mut reader, &mut events),
                    Next::Events => {}
                    Next::Waiting => std::thread::yield_now(),
                    other => panic!("{other:?}"),
                }
                for event in &events {
                    let text = String::from_utf8_lossy(event.message.payload());
                    let (publisher, n) = text.split_once(':').expect("as it was published");
                    let parse = |part: &str| part.parse::<usize>().expect("a number");
                    got.push((parse(publisher), parse(n)));
                }
            }
            start = cursor(broker, &reader);
        }
        assert_eq!(got.iter().collect::<HashSet<_>>().len(), 3 * EACH);
        for publisher in 0..3 {
            let of = got.iter().filter(|it| it.0 == publisher).map(|it| it.1);
            assert!(of.eq(0..EACH), "in the order of publisher {publisher}");
        }
    }
    publishers
        .into_iter()
        .for_each(|it| it.join().expect("it published"));
    broker.stop();
    committing.join().expect("it committed");
}

/// What a filter would have matched before a stream had it was not kept, and nobody is told otherwise.
#[test]
fn a_stream_that_got_another_filter_does_not_vouch_for_the_time_before() {
    let (broker, store) = started(&[stream("all", "a")]);
    let begun = broker.clock.now();
    say(broker, "a", "1");
    say(broker, "b", "2");
    store.commit();
    let opened = open(broker, &["a"], Start::Since(begun.0 + 1_000));
    assert_eq!(opened.gap, None);
    let wider = StreamConfig {
        filters: vec!["a".to_owned(), "b".to_owned()],
        ..stream("all", "a")
    };
    let (broker, store) = again(&store, std::slice::from_ref(&wider));
    let mut opened = open(broker, &["b"], Start::Since(begun.0));
    assert!(opened.gap.is_some());
    assert!(texts(broker, &mut opened.reader).is_empty());
    // Nor does that change when it starts again as it is.
    let (broker, _store) = again(&store, &[wider]);
    assert!(open(broker, &["b"], Start::Since(begun.0)).gap.is_some());
}
