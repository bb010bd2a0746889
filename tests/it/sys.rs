//! `$SYS/broker/…`: the figures that the broker publishes about itself, under Mosquitto's
//! well-known names.

use crate::harness::*;

/// Waits for a value under `name` that `accept` likes; values come at each interval.
async fn value(client: &mut Client, name: &str, accept: impl Fn(&str) -> bool) -> String {
    let topic = format!("$SYS/broker/{name}");
    loop {
        let text = client
            .take(&topic, |packet| match packet {
                Packet::Publish(publish) if publish.topic == topic => {
                    Some(publish.text().to_owned())
                }
                _ => None,
            })
            .await;
        if accept(&text) {
            return text;
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("a number, not {text:?}"))
}

async fn start() -> Broker {
    Broker::with(r#"sys.interval = "1s""#).await
}

/// Every well-known name is there for who subscribes to `$SYS/#`.
#[tokio::test]
async fn the_well_known_names_are_published() {
    let broker = start().await;
    let mut client = broker.client("a").await;
    client.subscribe_to("$SYS/#", 0).await;
    for name in [
        "version",
        "uptime",
        "clients/connected",
        "messages/received",
        "messages/sent",
        "bytes/received",
        "bytes/sent",
        "subscriptions/count",
        "retained messages/count",
    ] {
        value(&mut client, name, |text| !text.is_empty()).await;
    }
}

/// They are retained: a new subscription sees them at once.
#[tokio::test]
async fn the_figures_are_there_at_once() {
    let broker = start().await;
    let mut first = broker.client("first").await;
    first.subscribe_to("$SYS/broker/uptime", 0).await;
    first.receive().await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$SYS/broker/uptime", 0).await;
    assert!(second.receive().await.retain);
}

/// The version names the broker, and the uptime grows.
#[tokio::test]
async fn version_and_uptime() {
    let broker = start().await;
    let mut client = broker.client("a").await;
    client
        .subscribe(Subscribe::new([
            ("$SYS/broker/version", 0),
            ("$SYS/broker/uptime", 0),
        ]))
        .await;
    let version = value(&mut client, "version", |_| true).await;
    assert!(
        version.to_lowercase().contains("tidings") && version.contains(env!("CARGO_PKG_VERSION")),
        "{version:?}"
    );
    let seconds = |text: &str| number(text.split(' ').next().expect("split has a first part"));
    let first = value(&mut client, "uptime", |_| true).await;
    assert!(first.ends_with(" seconds"), "{first:?}");
    value(&mut client, "uptime", |text| {
        seconds(text) > seconds(&first)
    })
    .await;
}

/// Connected clients, subscriptions and retained messages are counted, up and down.
#[tokio::test]
async fn present_things_are_counted() {
    let broker = start().await;
    let mut client = broker.client("a").await;
    let names = [
        "clients/connected",
        "subscriptions/count",
        "retained messages/count",
    ];
    for name in names {
        client.subscribe_to(&format!("$SYS/broker/{name}"), 0).await;
    }
    let mut other = broker.client("b").await;
    value(&mut client, "clients/connected", |text| number(text) == 2).await;
    value(&mut client, "subscriptions/count", |text| number(text) == 3).await;
    other.subscribe_to("x", 1).await;
    other.subscribe_to("$share/g/x", 1).await;
    value(&mut client, "subscriptions/count", |text| number(text) == 5).await;
    let retained = number(&value(&mut client, "retained messages/count", |_| true).await);
    other
        .publish(Publish::new("kept", "x").qos(1).retain())
        .await;
    value(&mut client, "retained messages/count", |text| {
        number(text) == retained + 1
    })
    .await;
    other
        .publish(Publish::new("kept", "").qos(1).retain())
        .await;
    value(&mut client, "retained messages/count", |text| {
        number(text) == retained
    })
    .await;
    other.disconnect().await;
    value(&mut client, "clients/connected", |text| number(text) == 1).await;
    value(&mut client, "subscriptions/count", |text| number(text) == 3).await;
}

/// Traffic is counted both ways.
#[tokio::test]
async fn traffic_is_counted() {
    let broker = start().await;
    let mut client = broker.client("a").await;
    let names = [
        "messages/received",
        "messages/sent",
        "bytes/received",
        "bytes/sent",
    ];
    let mut before = Vec::new();
    for name in names {
        client.subscribe_to(&format!("$SYS/broker/{name}"), 0).await;
        before.push(number(&value(&mut client, name, |_| true).await));
    }
    let mut busy = broker.client("busy").await;
    busy.subscribe_to("t", 0).await;
    for _ in 0..50 {
        busy.publish_text("t", &"x".repeat(100), 0).await;
        busy.receive().await;
    }
    for (name, before) in names.into_iter().zip(before) {
        let more = if name.starts_with("bytes") {
            50 * 100
        } else {
            50
        };
        value(&mut client, name, |text| number(text) >= before + more).await;
    }
}

/// `#` does not include them. [MQTT-4.7.2-1]
#[tokio::test]
async fn the_figures_need_a_subscription_of_their_own() {
    let broker = start().await;
    let mut wild = broker.client("wild").await;
    wild.subscribe_to("#", 0).await;
    let mut client = broker.client("a").await;
    client.subscribe_to("$SYS/broker/uptime", 0).await;
    client.receive().await;
    client.receive().await;
    wild.expect_nothing().await;
    let mut late = broker.client("late").await;
    late.subscribe_to("+/broker/uptime", 0).await;
    late.expect_nothing().await;
}

/// An interval of 0 switches them off.
#[tokio::test]
async fn the_figures_can_be_switched_off() {
    let broker = Broker::with(r#"sys.interval = "0s""#).await;
    let mut client = broker.client("a").await;
    client.subscribe_to("$SYS/#", 0).await;
    client.expect_nothing().await;
}
