//! The three qualities of service, both ways.

use crate::harness::*;

/// Every version receives what every version publishes, at each QoS, with the handshake that belongs to it.
#[tokio::test]
async fn each_qos_crosses_between_all_versions() {
    let broker = Broker::start().await;
    for from in Version::ALL {
        for to in Version::ALL {
            for qos in 0..=2 {
                let mut subscriber = broker.connect(Connect::new(to, "subscriber")).await;
                subscriber.subscribe_to("t/#", qos).await;
                let mut publisher = broker.connect(Connect::new(from, "publisher")).await;
                publisher.publish_text("t/x", "hello", qos).await;
                let publish = subscriber.receive_exactly("t/x", "hello").await;
                assert_eq!((publish.qos, publish.dup, publish.retain), (qos, false, false), "{from:?} to {to:?}");
                subscriber.expect_nothing().await;
            }
        }
    }
}
