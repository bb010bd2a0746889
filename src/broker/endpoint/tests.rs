//! Endpoints' queues over a store whose disk is as slow as a test wants it, and over crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use tidings_protocol::mqtt::{Properties, QoS, Version};

use super::*;
use crate::broker::stats::Drop as Reason;
use crate::broker::tests::kit::{
    Client, Setup, crashed, drops, principal, publication, slow_broker,
};
use crate::broker::{Broker, Publication};
use crate::store::SlowStore;

fn open(broker: &Broker, filters: &[&str], qos: QoS) -> Arc<EndpointQueue> {
    let filters: Vec<String> = filters.iter().map(|&it| it.to_owned()).collect();
    broker
        .open_endpoint("hook", &filters, qos, &principal("owner"))
        .0
}

fn publish(broker: &Broker, topic: &str, publication: Publication<'_>) -> usize {
    let published = broker
        .batch()
        .publish_one(&principal("publisher"), topic, publication);
    published.expect("accepted").matched
}

fn started() -> (&'static Broker, Arc<SlowStore>, Arc<EndpointQueue>) {
    let (broker, store) = slow_broker();
    let queue = open(broker, &["a/+", "a/b"], QoS::AtLeastOnce);
    (broker, store, queue)
}

fn texts(broker: &Broker, entries: &[Queued]) -> Vec<String> {
    let read = broker.read_queued(entries).into_iter();
    read.map(|it| {
        let it = it.expect("it is there");
        format!("{} {}", it.topic(), String::from_utf8_lossy(&it.payload))
    })
    .collect()
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_entry_is_seen_once_it_is_durable_and_wakes_whoever_asked() {
    let (broker, store, queue) = started();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert_eq!(
        publish(broker, "a/b", publication(QoS::AtLeastOnce, b"1")),
        1
    );
    assert_eq!(publish(broker, "b", publication(QoS::AtLeastOnce, b"2")), 0);
    assert!(queue.page(0, 10, Some(&waker)).is_empty());
    assert_eq!((queue.len(), woken.0.load(Ordering::SeqCst)), (1, 0));
    store.commit();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let page = queue.page(0, 10, Some(&waker));
    assert_eq!(
        texts(broker, &page),
        ["a/b 1"],
        "once, though two filters match"
    );
    assert!(queue.page(page[0].seq, 10, None).is_empty());
}

#[test]
fn qos_0_is_kept_like_any_other_unless_the_endpoint_asks_for_qos_0() {
    let (broker, store, _) = started();
    publish(broker, "a/b", publication(QoS::AtMostOnce, b"1"));
    publish(broker, "a/b", publication(QoS::ExactlyOnce, b"2"));
    let queue = open(broker, &["a/b"], QoS::AtMostOnce).clone();
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"3"));
    store.commit();
    let page = queue.page(0, 10, None);
    let qos: Vec<QoS> = page.iter().map(|it| it.qos).collect();
    assert_eq!(qos, [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::AtMostOnce]);
}

#[test]
fn what_is_done_in_any_order_is_gone_after_a_crash_and_nothing_else_is() {
    let (broker, store, queue) = started();
    for text in ["0", "1", "2", "3"] {
        publish(broker, "a/b", publication(QoS::AtMostOnce, text.as_bytes()));
    }
    store.commit();
    let page = queue.page(0, 10, None);
    queue.done(
        &[page[2], page[0]],
        &[Change::Put {
            key: "webhook/hook/retry/2",
            value: b"{}",
            expires_ms: None,
        }],
    );
    assert_eq!(queue.len(), 2);
    let (_, recovered) = store.crashed(store.appends().0);
    assert_eq!(recovered.documents.len(), 1, "in the same append");
    let (broker, store) = crashed(&store, store.appends().0);
    assert_eq!(broker.endpoint_ids(), ["hook"]);
    let queue = open(broker, &["a/b", "c"], QoS::AtLeastOnce);
    assert_eq!(texts(broker, &queue.page(0, 10, None)), ["a/b 1", "a/b 3"]);
    assert_eq!((queue.len(), queue.bytes()), (2, 8));
    // And goes on, with other filters.
    publish(broker, "c", publication(QoS::AtMostOnce, b"4"));
    assert_eq!(
        publish(broker, "a/x", publication(QoS::AtMostOnce, b"5")),
        0
    );
    store.commit();
    let page = queue.page(0, 10, None);
    assert_eq!(texts(broker, &page), ["a/b 1", "a/b 3", "c 4"]);
    assert!(page.windows(2).all(|two| two[0].seq < two[1].seq));
}

/// Its other receivers having acknowledged it does not make it needless.
#[test]
fn a_message_that_everybody_else_has_acknowledged_is_kept() {
    let (broker, store, queue) = started();
    let mut client = Client::connect(broker, "client", Setup::persistent(Version::V5));
    client.subscribe("a/b", QoS::AtLeastOnce);
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"1"));
    client.drain();
    store.commit();
    assert_eq!(texts(broker, &queue.page(0, 10, None)), ["a/b 1"]);
}

#[test]
fn a_full_queue_takes_no_more_and_counts_it() {
    let (broker, store) = {
        let store = Arc::new(SlowStore::new());
        let recovered = crate::store::Recovered::default();
        let broker = crate::broker::tests::kit::restored_with(store.clone(), recovered, |limits| {
            limits.queue_messages_max = 2;
        });
        (broker, store)
    };
    let queue = open(broker, &["a"], QoS::AtLeastOnce);
    for _ in 0..3 {
        publish(broker, "a", publication(QoS::AtLeastOnce, b"x"));
    }
    store.commit();
    assert_eq!(drops(broker), [(Reason::QueueFull, 1)]);
    let page = queue.page(0, 10, None);
    assert_eq!(page.len(), 2);
    queue.done(&page[..1], &[]);
    publish(broker, "a", publication(QoS::AtLeastOnce, b"y"));
    assert_eq!(queue.len(), 2);
}

#[test]
fn messages_of_the_log_and_of_ones_own_are_queued_behind_the_others() {
    let (broker, store, queue) = started();
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"1"));
    store.commit();
    let page = queue.page(0, 10, None);
    queue
        .enqueue(&[(page[0].offset, page[0].size)])
        .expect("taken");
    broker
        .publish_to(&queue, "$SYS/test", Properties::EMPTY, b"hello")
        .expect("taken");
    store.commit();
    let page = queue.page(0, 10, None);
    assert_eq!(texts(broker, &page), ["a/b 1", "a/b 1", "$SYS/test hello"]);
    assert_eq!(page[0].offset, page[1].offset);
    queue.done(&page, &[]);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert!(queue.page(0, 10, None).is_empty());
}

#[test]
fn what_is_removed_takes_nothing_any_more_and_is_gone_after_a_crash() {
    let (broker, store, queue) = started();
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"1"));
    broker.remove_endpoint("hook");
    assert_eq!(
        publish(broker, "a/b", publication(QoS::AtLeastOnce, b"2")),
        0
    );
    store.commit();
    assert_eq!((queue.len(), queue.page(0, 10, None).len()), (0, 0));
    let (broker, _) = crashed(&store, store.appends().0);
    assert!(broker.endpoint_ids().is_empty());
}

/// A message for a thousand endpoints to which nothing may be sent costs their share of the append.
#[test]
fn the_store_wakes_no_queue_that_nobody_waits_for() {
    let (broker, store, queue) = started();
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"1"));
    assert_eq!(store.registered(), 0);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(queue.page(0, 10, Some(&waker)).is_empty());
    assert_eq!(store.registered(), 1);
    store.commit();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"2"));
    assert_eq!(store.registered(), 0, "it was woken, and did not ask again");
    store.commit();
    let page = queue.page(0, 10, Some(&waker));
    assert_eq!(texts(broker, &page), ["a/b 1", "a/b 2"]);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

/// What came while somebody waited is at hand; the store says the same of it.
#[test]
fn what_was_waited_for_is_what_the_store_has() {
    let (broker, store, queue) = started();
    let waker = Waker::from(Arc::new(Woken::default()));
    let mut after = 0;
    for round in 0..20_u8 {
        assert!(queue.page(after, 10, Some(&waker)).is_empty());
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        for index in 0..=round % 3 {
            let mut message = publication(qos[usize::from(index)], b"x");
            message.retain = round % 4 == 0;
            publish(broker, "a/b", message);
        }
        store.commit();
        let page = queue.page(after, 10, None);
        assert_eq!(page.len(), usize::from(round % 3) + 1);
        // At hand only once.
        assert_eq!(page, queue.page(after, 10, None));
        after = page.last().map_or(after, |last| last.seq);
    }
}

/// What the store does not take is in no queue.
#[test]
fn what_cannot_be_appended_is_not_counted() {
    let (broker, store, queue) = started();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(queue.page(0, 10, Some(&waker)).is_empty());
    store.refuse(1);
    let refused = broker.batch().publish_one(
        &principal("publisher"),
        "a/b",
        publication(QoS::AtLeastOnce, b"1"),
    );
    assert!(refused.is_err());
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    store.refuse(1);
    assert!(queue.enqueue(&[(crate::store::Offset(1), 10)]).is_err());
    publish(broker, "a/b", publication(QoS::AtLeastOnce, b"2"));
    assert_eq!(queue.len(), 1);
    store.commit();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(texts(broker, &queue.page(0, 10, None)), ["a/b 2"]);
}
