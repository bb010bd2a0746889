//! CONNECT and CONNACK: what a client is told when it comes, in every version.

use crate::harness::*;

/// A version 5 client gets CONNACK with reason code 0, no session, and what the broker can do.
#[tokio::test]
async fn v5_connects_and_learns_what_the_broker_offers() {
    let broker = Broker::start().await;
    let client = broker.client("a").await;
    assert!(!client.connack.session_present);
    assert_eq!(property!(client.connack.properties, AssignedClientIdentifier), None);
}
