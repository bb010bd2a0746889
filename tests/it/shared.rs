//! Shared Subscriptions: each message to one member of the group, in every version.

use std::collections::BTreeMap;

use crate::harness::*;

/// Publishes `count` numbered messages and returns who received which.
async fn distribute(
    publisher: &mut Client,
    members: &mut [Client],
    count: usize,
    qos: u8,
) -> Vec<Vec<String>> {
    for number in 0..count {
        publisher.publish_text("t", &number.to_string(), qos).await;
    }
    let mut received = Vec::new();
    for member in members {
        member.fence().await;
        let mut mine = Vec::new();
        member.send(Packet::PingReq).await;
        while let Packet::Publish(publish) = member.next().await {
            member.acknowledge(&publish).await;
            mine.push(publish.text().to_owned());
        }
        received.push(mine);
    }
    received
}

async fn members(
    broker: &Broker,
    version: Version,
    filter: &str,
    qos: u8,
    count: usize,
) -> Vec<Client> {
    let mut members = Vec::new();
    for number in 0..count {
        let mut member = broker
            .connect(Connect::new(version, &format!("member {number}")))
            .await;
        member.subscribe_to(filter, qos).await;
        members.push(member);
    }
    members
}

/// Each message goes to one member, and to all of them in turn.
#[tokio::test]
async fn messages_are_shared_in_turn() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    for version in Version::ALL {
        for qos in 0..=2 {
            let mut members = members(&broker, version, "$share/group/t", qos, 3).await;
            let received = distribute(&mut publisher, &mut members, 30, qos).await;
            let mut all: Vec<usize> = received
                .iter()
                .flatten()
                .map(|text| text.parse().expect("a number"))
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..30).collect::<Vec<_>>());
            assert!(
                received.iter().all(|mine| mine.len() == 10),
                "round robin: {received:?}"
            );
            for member in members {
                member.disconnect().await;
            }
        }
    }
}

/// Each group gets each message, and so does each ordinary subscription. [MQTT-4.8.2-1]
#[tokio::test]
async fn groups_and_ordinary_subscriptions_are_independent() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    let mut ordinary = broker.client("ordinary").await;
    ordinary.subscribe_to("t", 1).await;
    let mut first = broker.client("first").await;
    first.subscribe_to("$share/one/t", 1).await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$share/two/+", 1).await;
    let mut third = broker.client("third").await;
    third.subscribe_to("$share/one/+", 1).await;
    publisher.publish_text("t", "x", 1).await;
    // The third is in a group of the same name, but a Shared Subscription is its name and its
    // filter.
    for client in [&mut ordinary, &mut first, &mut second, &mut third] {
        client.receive_exactly("t", "x").await;
        client.expect_nothing().await;
    }
}

/// Within a group each member has the QoS that it was granted. [MQTT-4.8.2-3]
#[tokio::test]
async fn each_member_has_its_own_qos() {
    let broker = Broker::start().await;
    let mut members = Vec::new();
    for qos in 0..=2 {
        let mut member = broker.client(&format!("member {qos}")).await;
        member.subscribe_to("$share/group/t", qos).await;
        members.push(member);
    }
    let mut publisher = broker.client("publisher").await;
    for _ in 0..6 {
        publisher.publish_text("t", "x", 2).await;
    }
    for (qos, member) in members.iter_mut().enumerate() {
        for _ in 0..2 {
            assert_eq!(usize::from(member.receive_exactly("t", "x").await.qos), qos);
        }
        member.expect_nothing().await;
    }
}

/// A new Shared Subscription gets no retained messages, whatever its Retain Handling.
#[tokio::test]
async fn shared_subscriptions_get_no_retained_messages() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    for handling in 0..=1 {
        client
            .subscribe_with(Subscription::new("$share/group/t", 1).retain_handling(handling))
            .await;
        client.expect_nothing().await;
    }
}

/// Names of groups that the standard does not allow are refused, each for itself. [MQTT-4.8.2-1]
/// [MQTT-4.8.2-2]
#[tokio::test]
async fn invalid_share_names_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let filters = [
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//t",
        "$share/+/t",
        "$share/#/t",
        "$share/g+/t",
        "$share/a#b/t",
        "$share/g/a#",
    ];
    for filter in filters {
        let reasons = client.subscribe(Subscribe::new([(filter, 1)])).await;
        assert_eq!(reasons, [Reason::TOPIC_FILTER_INVALID], "{filter:?}");
    }
}

/// No Local on a Shared Subscription is a protocol error. [MQTT-3.8.3-4]
#[tokio::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let mut subscribe = Subscribe::new([Subscription::new("$share/group/t", 1).no_local()]);
    subscribe.packet_id = 1;
    client.send(subscribe).await;
    client.expect_disconnect(Reason::PROTOCOL_ERROR).await;
}

/// Wildcards work behind the group's name, and the Subscription Identifier comes along.
#[tokio::test]
async fn shared_subscriptions_have_wildcards_and_identifiers() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .subscribe(Subscribe::new([("$share/group/a/+/#", 2)]).identifier(9))
        .await;
    client.publish_text("a/b/c/d", "x", 1).await;
    let publish = client.receive_exactly("a/b/c/d", "x").await;
    assert_eq!(subscription_identifiers(&publish.properties), [9]);
    client.publish_text("b/b", "x", 1).await;
    client.expect_nothing().await;
}

/// Who leaves the group, by UNSUBSCRIBE or for good, leaves its share to the others.
#[tokio::test]
async fn members_that_leave_get_nothing() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    let mut members = members(&broker, Version::V5, "$share/group/t", 1, 3).await;
    members.pop().expect("three").disconnect().await;
    let mut stays = members.pop().expect("two");
    let mut leaves = members.pop().expect("one");
    assert_eq!(
        leaves.unsubscribe(&["t"]).await,
        [Reason::NO_SUBSCRIPTION_EXISTED]
    );
    assert_eq!(
        leaves.unsubscribe(&["$share/group/t"]).await,
        [Reason::SUCCESS]
    );
    for number in 0..6 {
        publisher.publish_text("t", &number.to_string(), 1).await;
        stays.receive_exactly("t", &number.to_string()).await;
    }
    leaves.expect_nothing().await;
}

/// A member that is away does not hold messages back from one that is there.
#[tokio::test]
async fn messages_go_to_members_that_are_connected() {
    let broker = Broker::start().await;
    let mut away = broker.connect(Connect::v5("away").persistent()).await;
    away.subscribe_to("$share/group/t", 1).await;
    away.disconnect().await;
    let mut here = broker.client("here").await;
    here.subscribe_to("$share/group/t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..6 {
        publisher.publish_text("t", &number.to_string(), 1).await;
        here.receive_exactly("t", &number.to_string()).await;
    }
    let mut away = broker.connect(Connect::v5("away").persistent()).await;
    assert!(away.connack.session_present);
    away.expect_nothing().await;
}

/// When nobody is there, a persistent session keeps the messages; each is delivered once.
#[tokio::test]
async fn messages_wait_when_all_members_are_away() {
    let broker = Broker::start().await;
    for name in ["one", "two"] {
        let mut member = broker.connect(Connect::v5(name).persistent()).await;
        member.subscribe_to("$share/group/t", 1).await;
        member.disconnect().await;
    }
    let mut publisher = broker.client("publisher").await;
    for number in 0..10 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for name in ["one", "two"] {
        let mut member = broker.connect(Connect::v5(name).persistent()).await;
        // They took turns.
        for _ in 0..5 {
            let publish = member.receive().await;
            *count.entry(publish.text().to_owned()).or_default() += 1;
        }
        member.expect_nothing().await;
    }
    assert_eq!(count.len(), 10, "{count:?}");
}

/// A member whose window is full is passed over while another can take the message.
#[tokio::test]
async fn members_that_cannot_take_a_message_are_passed_over() {
    let broker = Broker::start().await;
    let mut full = broker
        .connect(Connect::v5("full").property(Property::ReceiveMaximum(1)))
        .await;
    full.subscribe_to("$share/group/t", 1).await;
    let mut free = broker.client("free").await;
    free.subscribe_to("$share/group/t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..10 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    let held = full.expect_publish().await;
    for _ in 0..9 {
        assert_ne!(free.receive().await.text(), held.text());
    }
    free.expect_nothing().await;
    full.acknowledge(&held).await;
    full.expect_nothing().await;
}

/// A QoS 1 message that a member never acknowledged goes to another when that member's session
/// ends.
#[tokio::test]
async fn unacknowledged_qos_1_goes_to_another_member() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut first = broker.connect(Connect::new(version, "first")).await;
        first.subscribe_to("$share/group/t", 1).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "job", 1).await;
        first.expect_publish().await;
        let mut second = broker.connect(Connect::new(version, "second")).await;
        second.subscribe_to("$share/group/t", 1).await;
        first.lose().await;
        second.receive_exactly("t", "job").await;
        second.expect_nothing().await;
        second.disconnect().await;
    }
}

/// A QoS 2 message whose delivery has begun stays with its member, which completes it when it
/// returns. [MQTT-4.8.2-4]
#[tokio::test]
async fn qos_2_in_progress_is_completed_by_the_same_member() {
    let broker = Broker::start().await;
    let mut first = broker.connect(Connect::v5("first").persistent()).await;
    first.subscribe_to("$share/group/t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "job", 2).await;
    let publish = first.expect_publish().await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$share/group/t", 2).await;
    first.lose().await;
    second.expect_nothing().await;
    let mut first = broker.connect(Connect::v5("first").persistent()).await;
    let again = first.receive_exactly("t", "job").await;
    assert_eq!((again.packet_id, again.dup), (publish.packet_id, true));
    second.expect_nothing().await;
}

/// And when that member's session ends, nobody else may get it. [MQTT-4.8.2-5]
#[tokio::test]
async fn qos_2_in_progress_never_goes_to_another_member() {
    let broker = Broker::start().await;
    let mut first = broker.client("first").await;
    first.subscribe_to("$share/group/t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "job", 2).await;
    let publish = first.expect_publish().await;
    first
        .send(Packet::PubRec(Ack::new(publish.packet_id)))
        .await;
    first.expect_pubrel(publish.packet_id).await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$share/group/t", 2).await;
    first.lose().await;
    publisher.publish_text("t", "next", 2).await;
    second.receive_exactly("t", "next").await;
    second.expect_nothing().await;
}

/// Nor before its PUBREC: it may have been received all the same. [MQTT-4.8.2-5]
#[tokio::test]
async fn qos_2_that_was_sent_never_goes_to_another_member() {
    let broker = Broker::start().await;
    let mut first = broker.client("first").await;
    first.subscribe_to("$share/group/t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "job", 2).await;
    first.expect_publish().await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$share/group/t", 2).await;
    first.send(Disconnect::new(Reason::SUCCESS)).await;
    first.wait_until_closed().await;
    publisher.publish_text("t", "next", 2).await;
    second.receive_exactly("t", "next").await;
    second.expect_nothing().await;
}

/// A message that a member refused is over: nobody else gets it. [MQTT-4.8.2-6]
#[tokio::test]
async fn a_refused_message_goes_to_nobody_else() {
    let broker = Broker::start().await;
    let mut first = broker.client("first").await;
    first.subscribe_to("$share/group/t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 1).await;
    publisher.publish_text("t", "2", 2).await;
    let one = first.expect_publish().await;
    let two = first.expect_publish().await;
    let mut second = broker.client("second").await;
    second.subscribe_to("$share/group/t", 2).await;
    first
        .send(Packet::PubAck(
            Ack::new(one.packet_id).reason(Reason::IMPLEMENTATION_SPECIFIC),
        ))
        .await;
    first
        .send(Packet::PubRec(
            Ack::new(two.packet_id).reason(Reason::IMPLEMENTATION_SPECIFIC),
        ))
        .await;
    first.fence().await;
    first.lose().await;
    publisher.publish_text("t", "next", 2).await;
    second.receive_exactly("t", "next").await;
    second.expect_nothing().await;
}

/// A persistent member keeps its place in the group.
#[tokio::test]
async fn a_persistent_member_keeps_its_share() {
    let broker = Broker::start().await;
    let mut member = broker.connect(Connect::v311("member").persistent()).await;
    member.subscribe_to("$share/group/t", 2).await;
    member.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "waiting", 2).await;
    let mut member = broker.connect(Connect::v311("member").persistent()).await;
    assert!(member.connack.session_present);
    member.receive_exactly("t", "waiting").await;
    publisher.publish_text("t", "live", 2).await;
    member.receive_exactly("t", "live").await;
    member.expect_nothing().await;
}
