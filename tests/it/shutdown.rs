//! The end of the broker: every client is told, wills are sent, and it does not take for ever.

use crate::harness::*;

/// Version 5 clients get 0x8B Server shutting down, version 3 clients a close.
#[tokio::test]
async fn clients_are_told() {
    let broker = Broker::start().await;
    let mut clients = Vec::new();
    for (number, version) in Version::ALL.into_iter().cycle().take(9).enumerate() {
        clients.push(
            broker
                .connect(Connect::new(version, &format!("client {number}")))
                .await,
        );
    }
    let shutdown = tokio::spawn(broker.shutdown());
    for mut client in clients {
        client.expect_refused(Reason::SERVER_SHUTTING_DOWN).await;
    }
    shutdown.await.expect("the broker ends");
}

/// After its end nobody is accepted any more.
#[tokio::test]
async fn nobody_is_accepted_afterwards() {
    let broker = Broker::start().await;
    let address = broker.address;
    broker.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// What was acknowledged before is delivered to who is connected, before the end.
#[tokio::test]
async fn messages_on_their_way_are_written_before_the_end() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..100 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    let shutdown = tokio::spawn(broker.shutdown());
    for number in 0..100 {
        assert_eq!(subscriber.expect_publish().await.text(), number.to_string());
    }
    subscriber
        .expect_disconnect(Reason::SERVER_SHUTTING_DOWN)
        .await;
    shutdown.await.expect("the broker ends");
}

/// A client that reads nothing does not hold up the end beyond the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_client_does_not_hold_up_the_end() {
    let broker = Broker::with(r#"mqtt.shutdown_deadline = "1s""#).await;
    let mut stuck = broker.client("stuck").await;
    stuck.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    let payload = vec![0; 1 << 20];
    for id in 1..=20 {
        publisher
            .send(Publish::new("t", &payload).qos(1).id(id))
            .await;
        publisher.expect_puback(id).await;
    }
    let half_open = broker.open(Version::V5).await;
    tokio::time::timeout(DEADLINE, broker.shutdown())
        .await
        .expect("the broker ends in time");
    drop((stuck, half_open));
}

/// Two brokers live in one process and know nothing of each other; the end of one is not the
/// other's.
#[tokio::test]
async fn brokers_in_one_process_are_independent() {
    let first = Broker::start().await;
    let second = Broker::start().await;
    let mut here = first.client("same").await;
    let mut there = second.client("same").await;
    here.subscribe_to("#", 1).await;
    there.publish(Publish::new("t", "x").qos(1).retain()).await;
    here.expect_nothing().await;
    let shutdown = tokio::spawn(second.shutdown());
    there.expect_disconnect(Reason::SERVER_SHUTTING_DOWN).await;
    shutdown.await.expect("the second ends");
    here.publish_text("t", "still here", 1).await;
    here.receive_exactly("t", "still here").await;
}

/// SIGTERM and SIGINT end the process gracefully: clients are told, the exit code is 0.
#[tokio::test]
async fn signals_end_the_process_gracefully() {
    for signal in ["TERM", "INT"] {
        let mut broker = ProcessBroker::start(&[]);
        let mut new = broker.connect(Connect::v5("new")).await;
        let mut old = broker.connect(Connect::v311("old")).await;
        broker.signal(signal);
        new.expect_disconnect(Reason::SERVER_SHUTTING_DOWN).await;
        old.expect_closed().await;
        assert!(broker.wait().success(), "after SIG{signal}");
    }
}
