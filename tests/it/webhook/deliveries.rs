//! What is delivered, and what an answer does.

use super::*;

/// A message of any QoS is POSTed once, and not again.
#[tokio::test]
async fn a_message_is_posted_once() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, "headers = { \"X-Shop\" = \"1\" }").await;
    let mut publisher = broker.client("publisher").await;
    for qos in 0..3 {
        let text = format!("qos {qos}");
        publisher.publish_text("t/a", &text, qos).await;
    }
    publisher.publish_text("u", "not for it", 1).await;
    publisher.publish_text("t", "last", 1).await;
    let requests = receiver.some(4).await;
    let mut got = texts(&requests);
    got.sort_unstable();
    assert_eq!(got, ["last", "qos 0", "qos 1", "qos 2"]);
    let request = &requests[0];
    assert_eq!((&*request.method, &*request.target), ("POST", "/hook?a=b"));
    assert_eq!(request.header("host"), receiver.address.to_string());
    assert_eq!(request.header("x-shop"), "1");
    assert_eq!(request.attempt(), 1);
    assert!(request.header("user-agent").starts_with("Tidings/"));
    assert!(request.header("webhook-id").starts_with("msg_"));
    broker.shutdown().await;
    assert!(receiver.arrived().is_empty(), "each once");
}

/// Standard Webhooks: every attempt is signed, with its own time, under the same id.
#[tokio::test]
async fn every_attempt_is_signed() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut receiver = Receiver::start().await;
    receiver.next([Act::Status(500), Act::Status(400), Act::Reset]);
    let fields = format!("secret = \"{SECRET}\"\n{QUICK}");
    let broker = broker(&receiver, &fields).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    let requests = receiver.some(4).await;
    let secret: Secret = SECRET.parse().expect("a secret");
    let public = standardwebhooks::Webhook::new(SECRET).expect("a secret");
    for (index, request) in requests.iter().enumerate() {
        assert_eq!(request.attempt(), index as u32 + 1);
        let id = request.header("webhook-id");
        assert_eq!(id, requests[0].header("webhook-id"));
        let timestamp = request
            .header("webhook-timestamp")
            .parse()
            .expect("seconds");
        let signature = request.header("webhook-signature");
        assert!(secret.verify_v1(id, timestamp, &request.body, signature));
        let headers = request.headers.iter().map(|(name, value)| {
            let name = http::HeaderName::try_from(name).expect("a name");
            (name, http::HeaderValue::try_from(value).expect("a value"))
        });
        let verified = public.verify(&request.body, &headers.collect());
        assert!(verified.is_ok(), "{verified:?}");
        assert_eq!(request.data(), "hello");
    }
}

/// Whatever else an endpoint does with it, a message is tried again.
#[tokio::test]
async fn every_failure_is_tried_again() {
    let acts = [
        Act::Reset,
        Act::Close,
        Act::Garbage,
        Act::Drip,
        Act::Hang,
        Act::Status(304),
        Act::Status(401),
        Act::Status(501),
        Act::Status(503),
    ];
    let mut receiver = Receiver::start().await;
    let count = acts.len();
    receiver.next(acts);
    let broker = broker(&receiver, &format!("timeout = \"300ms\"\n{QUICK}")).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    let attempts: Vec<u32> = receiver
        .some(count + 1)
        .await
        .iter()
        .map(Request::attempt)
        .collect();
    assert_eq!(attempts, (1..=count as u32 + 1).collect::<Vec<_>>());
}

/// A redirect is a failure; nobody is asked at the place that it names.
#[tokio::test]
async fn redirects_are_not_followed() {
    let mut receiver = Receiver::start().await;
    let mut other = Receiver::start().await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}\r\n", other.url());
        receiver.next([Act::Answer(status, location, Vec::new())]);
    }
    let broker = broker(&receiver, QUICK).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    assert_eq!(receiver.some(6).await[5].attempt(), 6);
    broker.shutdown().await;
    assert!(other.arrived().is_empty());
    assert_eq!(other.connections(), 0);
}

/// Of a body without end as much is read as may be, and then the connection is left.
#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let mut receiver = Receiver::start().await;
    receiver.next([Act::Endless]);
    let broker = broker(&receiver, "max_in_flight = 1").await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "first", 1).await;
    assert_eq!(receiver.request().await.data(), "first");
    publisher.publish_text("t", "second", 1).await;
    let second = receiver.request().await;
    assert_eq!((second.data().as_str(), second.connection), ("second", 1));
}

/// An endpoint that is not there is found once it is.
#[tokio::test]
async fn an_endpoint_may_come_later() {
    let gone = Receiver::start().await;
    let (address, url) = (gone.address, gone.url());
    drop(gone);
    let patient = format!("retry_schedule = [{}]", vec!["\"300ms\""; 60].join(", "));
    let broker = Broker::with(&settings(&url, &patient)).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    until(broker.http, "/v1/webhooks/hook/attempts", |shown| {
        shown.contains("no connection").then_some(())
    })
    .await;
    let mut receiver = Receiver::at(&address.to_string()).await;
    let request = receiver.request().await;
    assert_eq!(request.data(), "hello");
    assert!(request.attempt() > 1);
}

/// Connections are kept, and one that ends is replaced.
#[tokio::test]
async fn connections_are_kept() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, &format!("max_in_flight = 1\n{QUICK}")).await;
    let mut publisher = broker.client("publisher").await;
    for index in 0..20 {
        publisher.publish_text("t", &index.to_string(), 1).await;
        let request = receiver.request().await;
        assert_eq!((request.data(), request.connection), (index.to_string(), 0));
    }
    let closing = Act::Answer(200, "connection: close\r\n".to_owned(), Vec::new());
    receiver.next([closing, Act::Status(200), Act::Close]);
    for connection in [0, 1, 1] {
        publisher.publish_text("t", "x", 1).await;
        let request = receiver.request().await;
        assert_eq!((request.attempt(), request.connection), (1, connection));
    }
    let again = receiver.request().await;
    assert_eq!((again.attempt(), again.connection), (2, 2));
}

/// As many requests side by side as are allowed, once the endpoint has shown that it can.
#[tokio::test]
async fn requests_are_made_side_by_side() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, "max_in_flight = 5").await;
    let mut publisher = broker.client("publisher").await;
    for index in 0..20 {
        publisher.publish_text("t", &index.to_string(), 1).await;
    }
    receiver.some(20).await;
    receiver.always(Act::Wait);
    for index in 0..20 {
        publisher.publish_text("t", &index.to_string(), 1).await;
    }
    receiver.some(5).await;
    assert!(receiver.arrived().is_empty());
    receiver.release(3);
    receiver.some(3).await;
    assert!(receiver.arrived().is_empty());
    receiver.release(1_000);
    receiver.some(12).await;
}

#[tokio::test]
async fn ipv6_is_spoken() {
    let mut receiver = Receiver::at("[::1]:0").await;
    let broker = broker(&receiver, "").await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    let request = receiver.request().await;
    assert_eq!(request.header("host"), receiver.address.to_string());
}

/// The way of a payload that is no text, in every mode: verifiers read bodies as UTF-8.
#[tokio::test]
async fn bodies_are_text_in_every_mode() {
    for (mode, content_type) in [
        ("raw", "application/json"),
        (
            "cloudevents-structured",
            "application/cloudevents+json; charset=utf-8",
        ),
        (
            "cloudevents-binary",
            "application/cloudevents+json; charset=utf-8",
        ),
        ("batch", "application/cloudevents-batch+json; charset=utf-8"),
    ] {
        let mut receiver = Receiver::start().await;
        let broker = broker(&receiver, &format!("payload_mode = \"{mode}\"")).await;
        let mut publisher = broker.client("publisher").await;
        publisher
            .publish(Publish::new("t", [0xFF, 0x00]).qos(1))
            .await;
        let request = receiver.request().await;
        assert_eq!(request.header("content-type"), content_type, "{mode}");
        let text = String::from_utf8(request.body).expect("UTF-8");
        assert!(text.contains("\"/wA=\""), "{mode}: {text}");
    }
}

/// What an endpoint answers is published, with the Correlation Data of the message.
#[tokio::test]
async fn answers_are_published() {
    let mut receiver = Receiver::start().await;
    let json = "content-type: application/json\r\n".to_owned();
    receiver.always(Act::Answer(200, json, b"{\"ok\":true}".to_vec()));
    let broker = broker(&receiver, "reply_topic = \"replies\"").await;
    let mut client = broker.client("client").await;
    client.subscribe_to("replies", 1).await;
    let mut question = Publish::new("t", "question").qos(1);
    question
        .properties
        .push(Property::CorrelationData(b"42".to_vec()));
    client.publish(question).await;
    assert_eq!(receiver.request().await.data(), "question");
    let reply = client.receive().await;
    assert_eq!(
        (&*reply.topic, &*reply.payload),
        ("replies", &b"{\"ok\":true}"[..])
    );
    let content_type = property!(reply.properties, ContentType);
    assert_eq!(content_type.as_deref(), Some("application/json"));
    let correlation = property!(reply.properties, CorrelationData);
    assert_eq!(correlation.as_deref(), Some(&b"42"[..]));
    assert_eq!(user_properties(&reply.properties), [("webhook", "hook")]);
}

/// What happens to webhooks can be seen from outside.
#[tokio::test]
async fn deliveries_are_counted() {
    let mut receiver = Receiver::start().await;
    receiver.next([Act::Status(500)]);
    let broker = broker(&receiver, QUICK).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "hello", 1).await;
    receiver.some(2).await;
    let metrics = until(broker.http, "/metrics", |shown| {
        let is_done = shown.contains("tidings_webhook_messages_delivered_total 1");
        is_done.then(|| shown.to_owned())
    })
    .await;
    for line in [
        "tidings_webhook_endpoints{state=\"active\"} 1",
        "tidings_webhook_attempts_total{result=\"delivered\"} 1",
        "tidings_webhook_attempts_total{result=\"refused\"} 1",
        "tidings_webhook_attempt_seconds_count 2",
        "tidings_webhook_attempts_in_flight 0",
    ] {
        assert!(
            metrics.lines().any(|it| it == line),
            "{line} is not in\n{metrics}"
        );
    }
}

/// Ten endpoints that say nothing and ten that are not there: the one that answers gets everything.
#[tokio::test]
async fn dead_endpoints_hold_up_nobody() {
    let (hanging, gone) = (Receiver::start().await, Receiver::start().await);
    hanging.always(Act::Hang);
    let mut live = Receiver::start().await;
    let few = "webhooks.concurrency = 24\n".to_owned();
    let mut settings = few + &settings(&live.url(), "");
    for index in 0..10 {
        let fields = "max_in_flight = 1000";
        settings += &endpoint(&format!("hanging-{index}"), &hanging.url(), fields);
        settings += &endpoint(&format!("gone-{index}"), &gone.url(), fields);
    }
    drop(gone);
    let broker = Broker::with(&settings).await;
    let mut publisher = broker.client("publisher").await;
    let mut got = Vec::new();
    for round in 0..5 {
        for index in 0..40 {
            publisher
                .publish_text("t", &format!("{round} {index}"), 1)
                .await;
        }
        got.extend(texts(&live.some(40).await));
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 200);
}

/// A retry whose time has not come is not made by a restart, and one whose time has come is.
#[tokio::test]
async fn retries_survive_a_restart() {
    let mut receiver = Receiver::start().await;
    receiver.next([Act::Status(500), Act::Status(500)]);
    let fields = "retry_schedule = [\"50ms\", \"1h\"]";
    let mut broker = broker(&receiver, fields).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "first", 1).await;
    let attempts: Vec<u32> = receiver
        .some(2)
        .await
        .iter()
        .map(Request::attempt)
        .collect();
    assert_eq!(attempts, [1, 2]);
    publisher.publish_text("t", "second", 1).await;
    assert_eq!(receiver.request().await.data(), "second");
    broker.restart().await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "third", 1).await;
    assert_eq!(
        receiver.request().await.data(),
        "third",
        "and nothing before it"
    );
    let answer = send(broker.http, "GET", "/v1/webhooks/hook", "", b"").await;
    let shown = answer.json().await;
    assert_eq!(shown["retrying"], 1, "{shown}");
}
