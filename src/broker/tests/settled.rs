//! Messages that all their receivers have acknowledged before the store had them: their publishers
//! need not wait for the disk any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use tidings_protocol::mqtt::{QoS, Version};

use super::kit::{Client, Setup, principal, publication, slow_broker};
use crate::broker::{Bell, Broker, Message, Publication, RouteCache, Run};

#[derive(Default)]
struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Rung>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes one message; answers it, and whether its publisher was told since.
fn publish(broker: &Broker, publication: Publication<'_>) -> (Arc<Message>, impl Fn() -> bool) {
    let bell = Arc::new(Bell::default());
    let rung = Arc::new(Rung::default());
    bell.watch(&Waker::from(Arc::clone(&rung)));
    let mut batch = broker.batch();
    let route = batch
        .route(&principal("publisher"), "t", &mut RouteCache::default())
        .expect("allowed");
    let run = Run {
        topic: "t",
        publications: &[publication],
        publisher: 1_000,
        publisher_is_kept: false,
        bell: Some(&bell),
    };
    batch.publish(&route, &run).expect("accepted");
    let message = Arc::clone(batch.message(0).expect("somebody keeps it"));
    (message, move || rung.0.load(Ordering::Relaxed))
}

fn receiver(broker: &'static Broker, id: &str) -> Client<'static> {
    let receiver = Client::connect(broker, id, Setup::persistent(Version::V5));
    receiver.subscribe("t", QoS::AtLeastOnce);
    receiver
}

fn acknowledge_all(receiver: &mut Client<'_>) {
    for message in receiver.messages() {
        receiver.complete(&message);
    }
}

#[test]
fn the_last_acknowledgement_settles_a_message_without_the_disk() {
    let (broker, store) = slow_broker();
    let mut receivers = [receiver(broker, "a"), receiver(broker, "b")];
    let (_, durable) = store.appends();
    let (message, told) = publish(broker, publication(QoS::AtLeastOnce, b"x"));
    assert!(!message.is_settled());
    acknowledge_all(&mut receivers[0]);
    assert!(
        !message.is_settled() && !told(),
        "b has not acknowledged it"
    );
    acknowledge_all(&mut receivers[1]);
    assert!(message.is_settled() && told());
    assert_eq!(store.appends().1, durable, "the disk did nothing");
}

#[test]
fn what_somebody_else_needs_is_not_settled_by_its_receivers() {
    let (broker, _) = slow_broker();
    let mut here = receiver(broker, "here");
    let retained = Publication {
        retain: true,
        ..publication(QoS::AtLeastOnce, b"retained")
    };
    let (message, told) = publish(broker, retained);
    acknowledge_all(&mut here);
    assert!(
        !message.is_settled() && !told(),
        "it is the Retained Message"
    );

    receiver(broker, "away").close(super::kit::GOODBYE);
    let (message, told) = publish(broker, publication(QoS::AtLeastOnce, b"for both"));
    acknowledge_all(&mut here);
    assert!(!message.is_settled() && !told(), "somebody is away");
}
