//! Messages that were on their way, in either direction.

use super::*;

/// What was sent and not acknowledged is sent again: with DUP, the same Packet Identifiers, in the
/// same order, before what was never sent, which has no DUP; but a broker that was killed does not
/// know what it sent, so that all may be a repetition. [MQTT-4.4.0-1] [MQTT-3.3.1-1]
/// [MQTT311-4.4.0-1] [MQTT311-3.3.1-1]
#[tokio::test]
async fn what_was_sent_is_sent_again_with_dup() {
    for version in VERSIONS {
        for kill in [false, true] {
            let broker = ProcessBroker::start(&["mqtt.inflight_max=3"]);
            let mut broker = Mortal { broker, kill };
            let mut client = broker.begin(version, "a").await;
            client.subscribe_to("t", 2).await;
            let mut publisher = broker.client("publisher").await;
            for number in 0..6 {
                let text = number.to_string();
                publisher.publish_text("t", &text, 1 + number % 2).await;
            }
            let mut sent = Vec::new();
            for _ in 0..3 {
                sent.push(client.expect_publish().await);
            }
            client.expect_nothing().await;
            broker.restart();
            let mut client = broker.back(version, "a").await;
            for before in sent {
                assert!(!before.dup);
                let again = client.expect_publish().await;
                assert_eq!(again, before.clone().dup());
            }
            client.expect_nothing().await;
            broker.restart();
            let mut client = broker.back(version, "a").await;
            for number in 0..6 {
                let publish = client.receive_exactly("t", &number.to_string()).await;
                assert_eq!(publish.dup, kill || number < 3, "{publish:?}");
            }
            client.expect_nothing().await;
        }
    }
}

/// A QoS 2 message that was received before is not delivered again when it is sent again, and its
/// PUBREL is answered as if nothing had happened. [MQTT-4.3.3-10] [MQTT-4.3.3-11]
#[tokio::test]
async fn qos_2_from_a_client_goes_on() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let (from, to) = (format!("from {version:?}"), format!("to {version:?}"));
            let mut receiver = broker.begin(version, &to).await;
            receiver.subscribe_to("t", 2).await;
            receiver.disconnect().await;
            let mut publisher = broker.begin(version, &from).await;
            let message = Publish::new("t", "once").qos(2).id(77);
            publisher.send(message.clone()).await;
            publisher.expect_pubrec(77).await;
            let released = Publish::new("t", "released").qos(2).id(78);
            publisher.send(released.clone()).await;
            publisher.expect_pubrec(78).await;
            publisher.send(Packet::PubRel(Ack::new(78))).await;
            publisher.expect_pubcomp(78).await;
            broker.restart();
            let mut publisher = broker.back(version, &from).await;
            publisher.send(message.dup()).await;
            let pubrec = publisher.expect_pubrec(77).await;
            assert!(!pubrec.reason.is_error(), "{pubrec:?}");
            publisher.send(Packet::PubRel(Ack::new(77))).await;
            let pubcomp = publisher.expect_pubcomp(77).await;
            assert_eq!(pubcomp.reason, Reason::SUCCESS);
            // Identifiers that were released are free for other messages.
            for id in [77, 78] {
                let next = Publish::new("t", format!("next {id}")).qos(2).id(id);
                publisher.publish(next).await;
            }
            publisher.disconnect().await;
            let mut receiver = broker.back(version, &to).await;
            for text in ["once", "released", "next 77", "next 78"] {
                receiver.receive_exactly("t", text).await;
            }
            expect_empty_queue(&mut receiver).await;
            receiver.unsubscribe(&["t"]).await;
        }
    }
}

/// A QoS 2 message whose PUBREC came is not sent again: PUBREL is, until PUBCOMP comes.
/// [MQTT-4.3.3-4] [MQTT-4.4.0-1]
#[tokio::test]
async fn qos_2_to_a_client_goes_on() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("t", 2).await;
            let mut publisher = broker.client("publisher").await;
            for text in ["0", "1", "2"] {
                publisher.publish_text("t", text, 2).await;
            }
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(client.expect_publish().await.packet_id);
            }
            // PUBREL is the answer to a PUBREC that is kept. The one in the middle is received.
            client.send(Packet::PubRec(Ack::new(ids[1]))).await;
            client.expect_pubrel(ids[1]).await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            let first = client.expect_publish().await;
            assert_eq!((first.packet_id, first.dup), (ids[0], true));
            client.expect(Packet::PubRel(Ack::new(ids[1]))).await;
            let last = client.expect_publish().await;
            assert_eq!((last.packet_id, last.dup), (ids[2], true));
            client.send(Packet::PubComp(Ack::new(ids[1]))).await;
            for publish in [first, last] {
                client.acknowledge(&publish).await;
            }
            settle(&mut client).await;
            client.disconnect().await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            expect_empty_queue(&mut client).await;
        }
    }
}

/// What was acknowledged to its publisher is there after a SIGKILL, whatever came to the receiver.
#[tokio::test]
async fn a_sigkill_loses_nothing_that_was_acknowledged() {
    for durability in DURABLE {
        let mut broker = Mortal::start(durability, true);
        let mut client = broker.begin(Version::V5, "a").await;
        client.subscribe_to("t", 2).await;
        client.disconnect().await;
        let mut seen = 0;
        for round in 0..3 {
            let mut publisher = broker.client("publisher").await;
            for number in 0..20 {
                let text = (20 * round + number).to_string();
                publisher.publish_text("t", &text, 1 + number % 2).await;
            }
            broker.restart();
            // Half of them, completely.
            let mut client = broker.back(Version::V5, "a").await;
            for _ in 0..10 {
                let publish = client.receive().await;
                assert_eq!(publish.text(), seen.to_string());
                seen += 1;
            }
            settle(&mut client).await;
            client.disconnect().await;
            broker.restart();
        }
        let mut client = broker.back(Version::V5, "a").await;
        for number in seen..60 {
            let publish = client.receive().await;
            assert_eq!(publish.text(), number.to_string());
        }
        expect_empty_queue(&mut client).await;
    }
}
