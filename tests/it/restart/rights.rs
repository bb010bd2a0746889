//! Rights that changed while the broker was down.

use tempfile::TempDir;

use super::*;
use crate::harness::credentials::user;

fn with_users(users: &[(&str, &str)], rules: &[(&str, &str)]) -> (TempDir, String) {
    let directory = scratch();
    write_users(directory.path(), users);
    (directory, rights(rules))
}

fn write_users(directory: &std::path::Path, users: &[(&str, &str)]) {
    let lines: String = users
        .iter()
        .map(|(name, password)| user(name, password))
        .collect();
    std::fs::write(directory.join("users"), lines).expect("the password file is written");
}

/// Users and the topics that each of them may do everything with.
fn rights(rules: &[(&str, &str)]) -> String {
    let rules: String = rules
        .iter()
        .map(|(user, topics)| {
            format!(
                "[[access.rule]]\nuser = '{user}'\n\
                 allow = ['publish', 'subscribe', 'receive']\ntopics = [{topics}]\n"
            )
        })
        .collect();
    format!("access.password_file = '{{dir}}/users'\n{rules}")
}

fn alice(id: &str) -> Connect {
    Connect::v5(id).username("alice").password("wonderland")
}

fn bob(id: &str) -> Connect {
    Connect::v5(id).username("bob").password("builder")
}

const BOTH: [(&str, &str); 2] = [("alice", "wonderland"), ("bob", "builder")];

/// Rights count as they are at the start: a subscription that is not allowed any more is gone, and
/// queued messages that may not be received are not delivered.
#[tokio::test]
async fn rights_that_were_withdrawn_count_after_a_restart() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    let mut client = begin(&broker, alice("a")).await;
    for filter in ["public/#", "secret/#", "#"] {
        client.subscribe_to(filter, 1).await;
    }
    client.disconnect().await;
    let mut publisher = broker.connect(bob("publisher")).await;
    for (topic, text) in [("public/x", "1"), ("secret/x", "2"), ("public/y", "3")] {
        publisher.publish_text(topic, text, 1).await;
    }
    broker.stop().await;
    let fewer = rights(&[("alice", "'public/#'"), ("bob", "'#'")]);
    broker.start_again_with(&fewer).await;
    let mut publisher = broker.connect(bob("publisher")).await;
    publisher.publish_text("secret/x", "4", 1).await;
    publisher.publish_text("public/x", "5", 1).await;
    let mut client = back(&broker, alice("a")).await;
    for (topic, text) in [("public/x", "1"), ("public/y", "3"), ("public/x", "5")] {
        client.receive_exactly(topic, text).await;
    }
    expect_empty_queue_under(&mut client, "public").await;
    client.disconnect().await;
    // What was taken away stays away, also when the right is given back.
    broker.stop().await;
    broker.start_again_with(&settings).await;
    let mut publisher = broker.connect(bob("publisher")).await;
    publisher.publish_text("secret/x", "6", 1).await;
    publisher.publish_text("public/x", "7", 1).await;
    let mut client = back(&broker, alice("a")).await;
    client.receive_exactly("public/x", "7").await;
    assert_eq!(
        client.unsubscribe(&["secret/#", "#", "public/#"]).await,
        [
            Reason::NO_SUBSCRIPTION_EXISTED,
            Reason::NO_SUBSCRIPTION_EXISTED,
            Reason::SUCCESS
        ]
    );
    client.expect_nothing().await;
}

/// The sessions of a user who is not there any more are ended: what they had from Shared
/// Subscriptions goes to other members, and their wills are not published.
#[tokio::test]
async fn sessions_of_users_who_are_gone_are_ended() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    let will = Will::new("will", "gone").qos(1).delay(1000);
    let mut gone = begin(&broker, alice("a").will(will)).await;
    gone.subscribe_to("$share/g/jobs/#", 1).await;
    gone.subscribe_to("own", 1).await;
    gone.lose().await;
    let mut publisher = broker.connect(bob("publisher")).await;
    for number in 0..3 {
        publisher
            .publish_text("jobs/x", &number.to_string(), 1)
            .await;
    }
    publisher.publish_text("own", "x", 1).await;
    let mut heir = begin(&broker, bob("b")).await;
    heir.subscribe_to("$share/g/jobs/#", 1).await;
    heir.subscribe_to("will", 1).await;
    heir.disconnect().await;
    broker.stop().await;
    write_users(broker.directory(), &BOTH[1..]);
    broker.start_again().await;
    let mut heir = back(&broker, bob("b")).await;
    for number in 0..3 {
        heir.receive_exactly("jobs/x", &number.to_string()).await;
    }
    expect_empty_queue(&mut heir).await;
    heir.disconnect().await;
    broker.stop().await;
    write_users(broker.directory(), &BOTH);
    broker.start_again().await;
    let mut client = begin(&broker, alice("a")).await;
    client.expect_nothing().await;
    let mut heir = back(&broker, bob("b")).await;
    expect_empty_queue(&mut heir).await;
}

/// A session stays its user's: nobody else gets it after a restart either.
#[tokio::test]
async fn a_session_belongs_to_its_user_after_a_restart() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    begin(&broker, alice("a")).await.disconnect().await;
    broker.restart().await;
    let (mut other, connack) = Client::attempt(broker.address, bob("a").persistent()).await;
    assert!(connack.reason.is_error(), "{connack:?}");
    other.expect_closed().await;
    back(&broker, alice("a")).await.disconnect().await;
}
