//! What a broker takes over from the one before, and what the two must not mix up: cases that
//! random histories do not meet, with a store whose disk is as slow as the case wants it.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use tidings_protocol::mqtt::{QoS, RetainHandling, SubscriptionOptions, Version};

use super::kit::{Client, FAREWELL, Setup, crashed, options, publication, slow_broker};
use crate::broker::link::Waiting;
use crate::broker::outbox::Outbox;
use crate::broker::{Broker, Ending, Publication, STRIPES};
use crate::store::{SlowStore, Store};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn all_appends(store: &SlowStore) -> usize {
    store.appends().0
}

fn persistent(broker: &'static Broker, id: &str) -> Client<'static> {
    Client::connect(broker, id, Setup::persistent(Version::V5))
}

fn clean(broker: &'static Broker, id: &str) -> Client<'static> {
    Client::connect(broker, id, Setup::new(Version::V5))
}
/// Messages of QoS 2 wait for the store. A receiver's task that looks between the delivery and the
/// moment when there is a ticket to wait for is woken all the same.
#[test]
fn who_looks_for_a_held_message_too_early_is_woken() {
    let (broker, store) = slow_broker();
    let receiver = persistent(broker, "receiver");
    receiver.subscribe("t", QoS::ExactlyOnce);
    store.commit();
    let bell = Arc::new(Bell::default());
    let (session, epoch) = (Arc::clone(&receiver.session), receiver.epoch);
    let waker = Waker::from(bell.clone());
    store.before_append(move || {
        let mut out = Outbox::default();
        let waiting = broker.collect(&session, epoch, &mut out, &waker);
        assert_eq!(waiting, Ok(Waiting::default()));
        assert!(out.is_empty());
    });
    let mut publisher = clean(broker, "publisher");
    publisher.publish("t", QoS::ExactlyOnce, "held");
    let waker = Waker::from(bell.clone());
    let collect = |out: &mut Outbox| {
        broker
            .collect(&receiver.session, receiver.epoch, out, &waker)
            .expect("still connected");
    };
    assert!(bell.rings() > 0, "nobody says that there is a ticket now");
    let before = bell.rings();
    let mut out = Outbox::default();
    collect(&mut out);
    assert!(out.is_empty(), "it was sent before the store had it");
    store.commit();
    assert!(bell.rings() > before, "nobody says that the store has it");
    collect(&mut out);
    assert!(!out.is_empty());
}

/// A page that was asked for by a connection that is gone does not keep the next one waiting.
#[test]
fn a_page_that_comes_after_a_takeover_is_asked_for_again() {
    let (broker, store) = slow_broker();
    let first = persistent(broker, "receiver");
    first.subscribe("t", QoS::AtLeastOnce);
    first.close(Ending::Lost);
    let mut publisher = clean(broker, "publisher");
    for number in 0..3 {
        publisher.publish("t", QoS::AtLeastOnce, &number.to_string());
    }
    store.commit();
    let (broker, _store) = crashed(&store, all_appends(&store));
    let old = persistent(broker, "receiver");
    let mut out = Outbox::default();
    let waiting = broker.collect(&old.session, old.epoch, &mut out, Waker::noop());
    assert!(waiting.expect("connected").page);
    let mut new = persistent(broker, "receiver");
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let waiting = broker.collect(&new.session, new.epoch, &mut out, &waker);
    assert!(!waiting.expect("connected").page, "one at a time");
    broker.load_page(&old.session, old.epoch);
    assert_eq!(bell.rings(), 1);
    assert_eq!(new.payloads(), ["0", "1", "2"]);
}

/// Large messages are read back a few at a time: what is ready to be sent is bounded in bytes, not
/// in messages alone.
#[test]
fn a_page_of_large_messages_is_a_small_one() {
    let (broker, store) = slow_broker();
    let first = persistent(broker, "receiver");
    first.subscribe("t", QoS::AtLeastOnce);
    first.close(Ending::Lost);
    let mut publisher = clean(broker, "publisher");
    let payload = vec![7; 200_000];
    for _ in 0..100 {
        publisher
            .publish_run("t", &[publication(QoS::AtLeastOnce, &payload)])
            .expect("accepted");
    }
    store.commit();
    let (broker, _store) = crashed(&store, all_appends(&store));
    assert_eq!(broker.stats.held_bytes.get(), 0);
    let setup = Setup::persistent(Version::V5).window(1);
    let mut client = Client::connect(broker, "receiver", setup);
    for _ in 0..100 {
        let got = client.messages();
        assert_eq!(got.len(), 1);
        let held = broker.stats.held_bytes.get();
        assert!(held < 2_000_000, "{held} bytes in memory");
        client.complete(&got[0]);
    }
    assert!(client.messages().is_empty());
    assert_eq!(broker.stats.queued_bytes.get(), 0);
    assert_eq!(broker.stats.held_bytes.get(), 0);
}

/// A message that goes from a session that is not kept to one that is, is kept for it: whoever had
/// it in the store before may be done with it.
#[test]
fn what_is_passed_on_to_a_session_that_is_kept_is_kept_for_it() {
    let (broker, store) = slow_broker();
    let mut other = persistent(broker, "other");
    other.subscribe("t", QoS::AtLeastOnce);
    let member = clean(broker, "member");
    member.subscribe("$share/g/t", QoS::AtLeastOnce);
    let heir = persistent(broker, "heir");
    heir.subscribe("$share/g/t", QoS::AtLeastOnce);
    heir.close(Ending::Lost);
    let mut publisher = clean(broker, "publisher");
    publisher.publish("t", QoS::AtLeastOnce, "job");
    store.commit();
    assert_eq!(other.drain().len(), 1);
    other.collect();
    store.commit();
    member.close(Ending::Lost);
    store.commit();
    assert_eq!(persistent(broker, "heir").payloads(), ["job"]);
    let (broker, _store) = crashed(&store, all_appends(&store));
    assert_eq!(persistent(broker, "heir").payloads(), ["job"]);
}

/// No Local withholds what a session published itself, not what somebody published before a
/// restart whose session had the same number.
#[test]
fn numbers_of_sessions_that_published_are_not_used_again() {
    let (broker, store) = slow_broker();
    let mut publisher = clean(broker, "publisher");
    publisher.retain("t", b"kept").expect("accepted");
    let (broker, _store) = crashed(&store, all_appends(&store));
    for id in ["a", "b", "c"] {
        let mut client = clean(broker, id);
        let no_local = SubscriptionOptions {
            no_local: true,
            ..options(QoS::AtLeastOnce)
        };
        client.subscribe_with("t", no_local, 0);
        assert_eq!(client.payloads(), ["kept"], "{id}");
    }
}

/// Retained Messages that a subscription is still to receive are not forgotten when it is made
/// again in a way that asks for no more of them.
#[test]
fn subscribing_again_does_not_end_a_replay() {
    for handling in [RetainHandling::SendIfNew, RetainHandling::DoNotSend] {
        let (broker, store) = slow_broker();
        let mut publisher = clean(broker, "publisher");
        for number in 0..10 {
            publisher
                .retain(&format!("t/{number}"), b"x")
                .expect("accepted");
        }
        let setup = Setup::persistent(Version::V5).window(2);
        let mut client = Client::connect(broker, "c", setup);
        client.subscribe("t/#", QoS::AtLeastOnce);
        assert_eq!(client.messages().len(), 2);
        let again = SubscriptionOptions {
            retain_handling: handling,
            ..options(QoS::AtLeastOnce)
        };
        client.subscribe_with("t/#", again, 0);
        let (broker, _store) = crashed(&store, all_appends(&store));
        let mut client = Client::connect(broker, "c", setup);
        let mut topics: Vec<String> = client.drain().into_iter().map(|m| m.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        assert_eq!(topics.len(), 10);
    }
}

/// A will is in the store until its message is: a crash at any moment of a takeover has it
/// published after all, or again.
#[test]
fn no_crash_loses_a_will() {
    let takeover = |broker: &'static Broker| {
        persistent(broker, "mortal");
    };
    let clean_takeover = |broker: &'static Broker| {
        clean(broker, "mortal");
    };
    for (setup, end) in [
        (Setup::persistent(Version::V5), &takeover as &dyn Fn(_)),
        (Setup::persistent(Version::V5), &clean_takeover),
        (Setup::new(Version::V5), &takeover),
    ] {
        let (broker, store) = slow_broker();
        let witness = persistent(broker, "witness");
        witness.subscribe("will", QoS::AtLeastOnce);
        witness.close(Ending::Lost);
        Client::connect(
            broker,
            "mortal",
            Setup {
                will: true,
                ..setup
            },
        );
        let from = all_appends(&store);
        end(broker);
        for count in from..=all_appends(&store) {
            let (broker, _store) = crashed(&store, count);
            let mut witness = persistent(broker, "witness");
            let wills = witness.drain().len();
            assert!(wills > 0, "lost after {count} of {from} and more");
        }
    }
}

/// What expires is forgotten by memory and store together: nobody can set another one in between.
#[test]
fn a_retained_message_that_expires_is_cleared_under_its_topic() {
    use tidings_protocol::mqtt::{PropertiesBuilder, Property};

    let (broker, store) = slow_broker();
    let mut publisher = clean(broker, "publisher");
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::MessageExpiryInterval(0));
    let expires = Publication {
        retain: true,
        properties: properties.as_properties(),
        ..publication(QoS::AtLeastOnce, b"x")
    };
    publisher.publish_run("t", &[expires]).expect("accepted");
    let now = broker.clock.now();
    while broker.clock.advance() <= now {
        std::hint::spin_loop();
    }
    let stripe = broker.hasher.hash_one("t") as usize % STRIPES;
    let locked = Arc::new(AtomicUsize::new(0));
    let seen = locked.clone();
    store.before_append(move || {
        let free = broker.topics[stripe].try_lock().is_some();
        seen.store(1 + usize::from(free), Ordering::Relaxed);
    });
    broker.tick();
    assert_eq!(locked.load(Ordering::Relaxed), 1, "nothing, or unlocked");
}

/// Many Retained Messages of QoS 2 do not wait for the disk one by one.
#[test]
fn a_replay_of_qos_2_waits_for_the_disk_by_the_window() {
    let (broker, store) = slow_broker();
    let mut publisher = clean(broker, "publisher");
    for number in 0..100 {
        let topic = format!("t/{number:02}");
        let retained = Publication {
            retain: true,
            ..publication(QoS::ExactlyOnce, b"x")
        };
        publisher
            .publish_run(&topic, &[retained])
            .expect("accepted");
    }
    let setup = Setup::persistent(Version::V5).window(50);
    let mut client = Client::connect(broker, "c", setup);
    client.subscribe("t/#", QoS::ExactlyOnce);
    store.commit();
    let mut commits = 0;
    let mut topics = Vec::new();
    while topics.len() < 100 {
        assert!(client.collect().is_empty(), "sent before the store had it");
        store.commit();
        commits += 1;
        for message in client.messages() {
            topics.push(message.topic.clone());
            client.complete(&message);
        }
    }
    assert!(commits <= 4, "{commits} commits");
    assert!(topics.is_sorted());
}

/// What a session had from several Shared Subscriptions before the restart goes to the groups that
/// it came from, even where another one matches the same topic.
#[test]
fn messages_of_two_groups_go_back_to_both() {
    let (broker, store) = slow_broker();
    let mut both = persistent(broker, "both");
    for (filter, identifier) in [("$share/a/t/#", 1), ("$share/b/t/+", 2)] {
        both.subscribe_with(filter, options(QoS::AtLeastOnce), identifier);
    }
    let mut publisher = clean(broker, "publisher");
    publisher.publish("t/x", QoS::AtLeastOnce, "first");
    publisher.publish("t/x", QoS::AtLeastOnce, "second");
    let got = both.messages();
    assert_eq!(got.len(), 4);
    // Of the first one, the copy of group b is complete.
    let done = got
        .iter()
        .find(|m| m.text() == "first" && m.identifiers == [2]);
    both.complete(done.expect("each group has a copy"));
    both.close(Ending::Lost);
    let (broker, _store) = crashed(&store, all_appends(&store));
    let mut a = persistent(broker, "a");
    a.subscribe("$share/a/t/#", QoS::AtLeastOnce);
    let mut b = persistent(broker, "b");
    b.subscribe("$share/b/t/+", QoS::AtLeastOnce);
    persistent(broker, "both").close(FAREWELL);
    assert_eq!(a.payloads(), ["first", "second"]);
    assert_eq!(b.payloads(), ["second"]);
}

/// CONNACK says that the session before is gone, so it waits until the store says so too.
#[test]
fn a_clean_start_waits_for_the_end_of_the_session_before() {
    let (broker, store) = slow_broker();
    let first = persistent(broker, "c");
    first.subscribe("t", QoS::AtLeastOnce);
    first.close(Ending::Lost);
    store.commit();
    let second = clean(broker, "c");
    let count = second.ticket.max(store.durable()).0;
    let count = usize::try_from(count).expect("a count of appends");
    let (broker, _store) = crashed(&store, count);
    assert!(!persistent(broker, "c").present);
}
