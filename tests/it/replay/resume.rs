//! Sessions that come back to their replays.

use super::*;
use crate::http::send;

/// Nothing is queued while the client is away, and it goes on with the next message.
#[tokio::test]
async fn a_client_that_comes_back_goes_on() {
    for version in VERSIONS {
        // MQTT 3.1 has no flag for it in CONNACK.
        let can_tell = version != Version::V31;
        let mut broker = Broker::with(STREAM).await;
        let mut publisher = broker.client("publisher").await;
        publish(&mut publisher, "s/a", 0..60).await;
        let connect = || Connect::new(version, "c").persistent();
        let mut client = broker.connect(connect()).await;
        client.subscribe_to(ALL, 1).await;
        receive_numbers(&mut client, 0..60).await;
        // What it has acknowledged is taken in by then.
        client.fence().await;
        client.lose().await;
        publish(&mut publisher, "s/a", 60..90).await;
        let mut client = broker.connect(connect()).await;
        assert_eq!(client.connack.session_present, can_tell);
        receive_numbers(&mut client, 60..90).await;
        client.fence().await;
        client.disconnect().await;
        publish(&mut publisher, "s/a", 90..100).await;
        publisher.disconnect().await;
        broker.restart().await;
        let mut client = broker.connect(connect()).await;
        assert_eq!(client.connack.session_present, can_tell);
        receive_numbers(&mut client, 90..100).await;
    }
}

/// Waits until the stream has given up all before this message.
async fn oldest_is(broker: &Broker, oldest: &str) -> String {
    loop {
        let target = "/v1/messages?topic=s/%23&since=earliest&limit=1";
        let page = send(broker.http, "GET", target, "", b"").await.json().await;
        let first = &page["messages"][0];
        if first["payload"] == oldest {
            return first["id"].as_str().expect("an id").to_owned();
        }
    }
}

/// What the stream has given up meanwhile is told with the next message, to those who can be told.
#[tokio::test]
async fn who_was_away_too_long_is_told() {
    let broker = Broker::with(&format!("{STREAM}max_messages = 3\n")).await;
    let mut publisher = broker.client("publisher").await;
    let connect = || Connect::v5("five").persistent();
    let mut client = broker.connect(connect()).await;
    client.subscribe_to("$replay/latest/s/#", 1).await;
    publisher.publish_text("s/a", "0", 1).await;
    receive_numbers(&mut client, 0..1).await;
    client.fence().await;
    client.lose().await;
    let mut old = broker.connect(Connect::v311("three").persistent()).await;
    old.subscribe_to("$replay/latest/s/+", 1).await;
    old.fence().await;
    old.lose().await;
    for number in 1..10 {
        let publish = Publish::new("s/a", number.to_string()).qos(1);
        let publish = publish.property(Property::UserProperty("mine".into(), "x".into()));
        publisher.publish(publish).await;
    }
    let id = oldest_is(&broker, "7").await;
    let mut client = broker.connect(connect()).await;
    let got = receive_numbers(&mut client, 7..10).await;
    assert_eq!(
        user_properties(&got[0].properties),
        [
            ("mine", "x"),
            ("tidings-gap-oldest", &id),
            ("tidings-gap-lost", "6")
        ]
    );
    assert_eq!(user_properties(&got[1].properties), [("mine", "x")]);
    let mut old = broker.connect(Connect::v311("three").persistent()).await;
    receive_numbers(&mut old, 7..10).await;
    let metrics = send(broker.http, "GET", "/metrics", "", b"").await;
    let metrics = String::from_utf8(metrics.body().await).expect("text");
    let line = metrics.lines().find(|line| line.contains("stream_gap"));
    let line = line.expect("it is counted");
    // Of the second nobody knows how many would have been for it: that is one gap.
    assert!(line.ends_with(" 7"), "{line}");
}
