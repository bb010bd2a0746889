//! What cannot be replayed, and what may not be.

use super::*;
use crate::harness::credentials::user;

async fn refusal(client: &mut Client, filter: &str) -> (Reason, String) {
    let mut subscribe = Subscribe::new([(filter, 1)]);
    subscribe.packet_id = client.fresh_id();
    let id = subscribe.packet_id;
    client.send(subscribe).await;
    let suback = client.expect_suback(id).await;
    let why = property!(suback.properties, ReasonString).unwrap_or_default();
    (suback.reasons[0], why)
}

/// The Reason Code says what kind of mistake it is, the Reason String what to do.
#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let settings = format!("limits.replays_per_session_max = 2\n{STREAM}");
    let broker = Broker::with(&settings).await;
    let mut client = broker.client("five").await;
    let mut old = broker.connect(Connect::v311("three")).await;
    let refused = [
        (
            "$replay/1h/t",
            Reason::IMPLEMENTATION_SPECIFIC,
            "[[stream]]",
        ),
        (
            "$replay/1h/#",
            Reason::IMPLEMENTATION_SPECIFIC,
            "[[stream]]",
        ),
        ("$replay/soon/s/a", Reason::TOPIC_FILTER_INVALID, "earliest"),
        ("$replay/10/s/a", Reason::TOPIC_FILTER_INVALID, "unit"),
        ("$replay/1h", Reason::TOPIC_FILTER_INVALID, "$replay/10m/"),
        (
            "$share/g/$replay/1h/s/a",
            Reason::TOPIC_FILTER_INVALID,
            "cannot be shared",
        ),
    ];
    for (filter, reason, words) in refused {
        let (code, why) = refusal(&mut client, filter).await;
        assert_eq!(code, reason, "{filter}");
        assert!(why.contains(words), "{filter}: {why:?}");
        let (code, why) = refusal(&mut old, filter).await;
        assert_eq!((code, &*why), (Reason::UNSPECIFIED_ERROR, ""), "{filter}");
    }
    client.subscribe_to("$replay/1h/s/a", 1).await;
    client.subscribe_to("$replay/2h/s/a", 1).await;
    let (code, why) = refusal(&mut client, "$replay/3h/s/a").await;
    assert_eq!(code, Reason::QUOTA_EXCEEDED);
    assert!(why.contains("at most 2"), "{why:?}");

    // One that does not want to be told, and one that cannot be told so much [MQTT-3.9.2-1].
    for property in [
        Property::RequestProblemInformation(0),
        Property::MaximumPacketSize(40),
    ] {
        let connect = Connect::v5("curt").property(property);
        let mut curt = broker.connect(connect).await;
        let refused = refusal(&mut curt, "$replay/1h/t").await;
        assert_eq!(refused, (Reason::IMPLEMENTATION_SPECIFIC, String::new()));
    }
}

/// The rights are those to what is replayed, and are asked for each message.
#[tokio::test]
async fn rules_are_those_of_the_inner_filter() {
    let directory = scratch();
    let users = user("alice", "wonderland") + &user("bob", "builder");
    std::fs::write(directory.path().join("passwd"), users).expect("written");
    let rule = |user, what, topics| {
        format!("[[access.rule]]\nuser = '{user}'\n{what}\ntopics = ['{topics}']\n")
    };
    let settings = format!(
        "access.password_file = '{{dir}}/passwd'\n{STREAM}{}{}{}",
        rule("*", "allow = ['publish', 'subscribe', 'receive']", "s/b/#"),
        rule(
            "alice",
            "allow = ['publish', 'subscribe', 'receive']",
            "s/#"
        ),
        rule("alice", "deny = ['receive']", "s/secret"),
    );
    let broker = Broker::within(directory, &settings).await;
    let connect = |id: &str, user: &str, password: &str| {
        let connect = Connect::v5(id).username(user).password(password);
        broker.connect(connect)
    };
    let mut alice = connect("a", "alice", "wonderland").await;
    for (topic, text) in [("s/a", "1"), ("s/secret", "2"), ("s/b/x", "3")] {
        alice.publish_text(topic, text, 1).await;
    }
    alice.subscribe_to(ALL, 1).await;
    let got = receive(&mut alice, 2).await;
    assert_eq!((got[0].text(), got[1].text()), ("1", "3"));
    let mut bob = connect("b", "bob", "builder").await;
    assert_eq!(refusal(&mut bob, ALL).await.0, Reason::NOT_AUTHORIZED);
    // Not even whether there is a stream is told.
    let elsewhere = refusal(&mut bob, "$replay/1h/t").await.0;
    assert_eq!(elsewhere, Reason::NOT_AUTHORIZED);
    bob.subscribe_to("$replay/earliest/s/b/#", 1).await;
    assert_eq!(receive(&mut bob, 1).await[0].text(), "3");
}
