//! Subscriptions, Shared Subscriptions among them.

use std::collections::BTreeSet;

use super::*;

/// Subscriptions are there with their options, those that were ended are not, and a session that
/// ended with its connection is gone.
#[tokio::test]
async fn subscriptions_survive_with_their_options() {
    let mut broker = durable("fsync").await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    for subscription in [
        Subscription::new("plain", 2),
        Subscription::new("at-most/1", 1),
        Subscription::new("local", 1).no_local(),
        Subscription::new("as-published", 1).retain_as_published(),
        Subscription::new("new/#", 1).retain_handling(1),
        Subscription::new("gone", 1),
        Subscription::new("changed", 0),
        Subscription::new("changed", 2),
    ] {
        client.subscribe_with(subscription).await;
    }
    assert_eq!(client.unsubscribe(&["gone"]).await, [Reason::SUCCESS]);
    let mut old = broker.connect(Connect::v311("three").persistent()).await;
    old.subscribe_to("three/+", 1).await;
    let mut passing = broker.connect(Connect::v5("passing")).await;
    passing.subscribe_to("plain", 1).await;
    broker.restart().await;

    let mut client = back(&broker, Connect::v5("a")).await;
    let mut old = back(&broker, Connect::v311("three")).await;
    let passing = broker.connect(Connect::v5("passing").resume()).await;
    assert!(!passing.connack.session_present);
    let mut publisher = broker.client("publisher").await;
    for (topic, qos) in [
        ("plain", 2),
        ("at-most/1", 1),
        ("local", 1),
        ("as-published", 1),
        ("new/x", 1),
        ("changed", 2),
    ] {
        publisher
            .publish(Publish::new(topic, "x").qos(2).retain())
            .await;
        let publish = client.receive_exactly(topic, "x").await;
        assert_eq!(
            (publish.qos, publish.retain),
            (qos, topic == "as-published")
        );
    }
    publisher.publish_text("gone", "x", 1).await;
    publisher.publish_text("three/x", "x", 2).await;
    assert_eq!(old.receive_exactly("three/x", "x").await.qos, 1);
    // Its own messages are withheld still, and its subscription is not a new one.
    client.publish_text("local", "own", 1).await;
    client
        .subscribe_with(Subscription::new("new/#", 1).retain_handling(1))
        .await;
    client.expect_nothing().await;
    old.expect_nothing().await;
    assert_eq!(
        client.unsubscribe(&["plain", "gone"]).await,
        [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]
    );
}

/// SUBACK and UNSUBACK are promises: what they say is so after a SIGKILL behind them.
#[tokio::test]
async fn suback_and_unsuback_hold_after_a_sigkill() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("ends", 1).await;
            client.subscribe_to("stays", 1).await;
            client.unsubscribe(&["ends"]).await;
            client.subscribe_to("last", 1).await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            for topic in ["ends", "stays", "last"] {
                client.publish_text(topic, "x", 1).await;
            }
            for topic in ["stays", "last"] {
                client.receive_exactly(topic, "x").await;
            }
            client.expect_nothing().await;
            client.unsubscribe(&["stays", "last"]).await;
        }
    }
}

/// A session that was thrown away with a clean start does not come back.
#[tokio::test]
async fn what_a_clean_start_threw_away_is_gone() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("t", 1).await;
            client.disconnect().await;
            let mut publisher = broker.client("publisher").await;
            publisher.publish_text("t", "gone", 1).await;
            let client = broker.broker.connect(Connect::new(version, &id)).await;
            client.disconnect().await;
            broker.restart();
            let mut client = broker.begin(version, &id).await;
            client.expect_nothing().await;
        }
    }
}

/// The members of a group are its members still, and take turns.
#[tokio::test]
async fn members_of_a_group_take_turns_after_a_restart() {
    let mut broker = durable("fsync").await;
    for connect in [Connect::v5("a"), Connect::v5("b"), Connect::v311("c")] {
        absent(&broker, connect, "$share/g/t/#", 1).await;
    }
    broker.restart().await;
    let mut publisher = broker.client("publisher").await;
    publish_all(
        &mut publisher,
        numbers(0..30).map(|text| Publish::new("t/x", text).qos(1)),
    )
    .await;
    broker.restart().await;
    let mut all = BTreeSet::new();
    for connect in [Connect::v5("a"), Connect::v5("b"), Connect::v311("c")] {
        let mut client = back(&broker, connect).await;
        for _ in 0..10 {
            let publish = client.receive().await;
            assert!(all.insert(publish.text().to_owned()), "{publish:?} twice");
        }
        client.expect_nothing().await;
    }
}

/// What a session had from Shared Subscriptions before the restart goes to another member of the
/// same group when it ends. [MQTT-4.8.2-5]
#[tokio::test]
async fn messages_of_a_group_are_passed_on_after_a_restart() {
    let mut broker = durable("fsync").await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    for filter in ["$share/g/jobs/+", "$share/h/work/#", "own"] {
        client.subscribe_to(filter, 2).await;
    }
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..4 {
        let qos = 1 + number % 2;
        for topic in ["jobs/x", "work/x/y", "own"] {
            publisher
                .publish_text(topic, &number.to_string(), qos)
                .await;
        }
    }
    let mut jobs = begin(&broker, Connect::v5("jobs")).await;
    jobs.subscribe_to("$share/g/jobs/+", 2).await;
    let mut work = begin(&broker, Connect::v311("work")).await;
    work.subscribe_to("$share/h/work/#", 1).await;
    broker.restart().await;
    let mut jobs = back(&broker, Connect::v5("jobs")).await;
    let work = back(&broker, Connect::v311("work")).await;
    work.disconnect().await;
    broker.client("a").await.disconnect().await;
    for number in 0..4 {
        let publish = jobs.receive_exactly("jobs/x", &number.to_string()).await;
        assert_eq!((publish.qos, publish.dup), (1 + number % 2, false));
    }
    jobs.expect_nothing().await;
    // And stays there, over another restart.
    broker.restart().await;
    let mut work = back(&broker, Connect::v311("work")).await;
    for number in 0..4 {
        let publish = work.receive_exactly("work/x/y", &number.to_string()).await;
        assert_eq!(publish.qos, 1);
    }
    work.expect_nothing().await;
    let mut jobs = back(&broker, Connect::v5("jobs")).await;
    jobs.expect_nothing().await;
}
