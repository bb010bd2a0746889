//! Who is let in, and what they may do: passwords, SCRAM-SHA-256, re-authentication, and the rules.

use crate::harness::credentials::{METHOD, Scram, user, user_without_scram};
use crate::harness::*;

/// A broker with the users alice (password "wonderland"), bob ("builder") and carol ("carols", no
/// SCRAM), and these further settings.
async fn broker_with_users(settings: &str) -> Broker {
    let directory = scratch();
    let users = [
        user("alice", "wonderland"),
        user("bob", "builder"),
        user_without_scram("carol", "carols"),
    ]
    .concat();
    std::fs::write(directory.path().join("users"), users).expect("the password file is written");
    Broker::within(
        directory,
        &format!("access.password_file = '{{dir}}/users'\n{settings}"),
    )
    .await
}

/// Rules in the order of `(user, effect and actions, topics)`.
fn rules(rules: &[(&str, &str, &str)]) -> String {
    let one = |(user, what, topics): &(&str, &str, &str)| {
        format!("[[access.rule]]\nuser = '{user}'\n{what}\ntopics = [{topics}]\n")
    };
    rules.iter().map(one).collect()
}

const ALL: &str = "allow = ['publish', 'subscribe', 'receive']";

fn alice(connect: Connect) -> Connect {
    connect.username("alice").password("wonderland")
}

fn bob(connect: Connect) -> Connect {
    connect.username("bob").password("builder")
}

/// The right password lets in, in every version.
#[tokio::test]
async fn the_right_password_lets_in() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    for version in Version::ALL {
        let mut client = broker.connect(alice(Connect::new(version, "a"))).await;
        client.subscribe_to("t", 1).await;
        client.publish_text("t", "x", 1).await;
        client.receive_exactly("t", "x").await;
        broker.connect(bob(Connect::new(version, "b"))).await;
        broker
            .connect(
                Connect::new(version, "c")
                    .username("carol")
                    .password("carols"),
            )
            .await;
    }
}

/// A wrong one does not, and nothing tells whether the user exists. [MQTT-3.1.4-2]
/// [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
#[tokio::test]
async fn wrong_credentials_are_refused() {
    let broker = broker_with_users("").await;
    for (name, password) in [
        ("alice", "Wonderland"),
        ("alice", ""),
        ("nobody", "wonderland"),
        ("", "wonderland"),
        ("Alice", "wonderland"),
    ] {
        for (version, reason) in [
            (Version::V5, Reason::BAD_USER_NAME_OR_PASSWORD),
            (Version::V311, Reason(4)),
            (Version::V31, Reason(4)),
        ] {
            let mut client = broker.open(version).await;
            client
                .send(Connect::new(version, "a").username(name).password(password))
                .await;
            client.expect_connack_refusal(reason).await;
        }
    }
    let mut client = broker.open(Version::V5).await;
    client.send(Connect::v5("a").username("alice")).await;
    client
        .expect_connack_refusal(Reason::BAD_USER_NAME_OR_PASSWORD)
        .await;
}

/// Once there are users, nobody comes in without a name, unless that is configured.
#[tokio::test]
async fn anonymous_clients_are_refused_where_there_are_users() {
    let broker = broker_with_users("").await;
    for (version, reason) in [
        (Version::V5, Reason::NOT_AUTHORIZED),
        (Version::V311, Reason(5)),
        (Version::V31, Reason(5)),
    ] {
        let mut client = broker.open(version).await;
        client.send(Connect::new(version, "a")).await;
        client.expect_connack_refusal(reason).await;
    }
    let broker = broker_with_users("access.allow_anonymous = true").await;
    broker.client("a").await;
}

/// A client that is refused takes nothing over from the one that owns the session.
#[tokio::test]
async fn a_refused_client_takes_nothing_over() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    let mut owner = broker
        .connect(alice(Connect::v5("a").persistent()).will(Will::new("will", "x")))
        .await;
    owner.subscribe_to("t", 1).await;
    owner.subscribe_to("will", 1).await;
    for connect in [
        Connect::v5("a"),
        Connect::v5("a").username("alice").password("wrong"),
        Connect::v311("a"),
    ] {
        let mut client = broker.open(connect.version).await;
        client.send(connect).await;
        client.wait_until_closed().await;
    }
    owner.publish_text("t", "x", 1).await;
    owner.receive_exactly("t", "x").await;
    owner.expect_nothing().await;
}

/// From the first user on nothing is allowed but what a rule allows.
#[tokio::test]
async fn without_rules_users_may_do_nothing() {
    let broker = broker_with_users("").await;
    let mut client = broker.connect(alice(Connect::v5("a"))).await;
    assert_eq!(
        client
            .subscribe(Subscribe::new([("t", 0), ("$share/g/t", 1)]))
            .await,
        [Reason::NOT_AUTHORIZED; 2]
    );
    for qos in 1..=2 {
        assert_eq!(
            client.publish(Publish::new("t", "x").qos(qos)).await,
            Reason::NOT_AUTHORIZED
        );
    }
}

/// A publish that is not allowed is refused as far as its version has words, and goes nowhere.
/// [MQTT311-3.3.5-2]
#[tokio::test]
async fn forbidden_publishes_are_refused() {
    let broker = broker_with_users(&rules(&[
        ("*", ALL, "'#'"),
        ("bob", "deny = ['publish']", "'secret/#'"),
    ]))
    .await;
    let mut witness = broker.connect(alice(Connect::v5("witness"))).await;
    witness.subscribe_to("#", 2).await;
    let mut client = broker.connect(bob(Connect::v5("b"))).await;
    for topic in ["secret", "secret/x"] {
        for qos in 1..=2 {
            let reason = client
                .publish(Publish::new(topic, "x").qos(qos).retain())
                .await;
            assert_eq!(reason, Reason::NOT_AUTHORIZED);
        }
    }
    client.publish_text("public", "fine", 2).await;
    witness.receive_exactly("public", "fine").await;
    for version in Version::ALL {
        // QoS 0 in all versions, and all of it in version 3, has no answer that could say no: it is
        // either acknowledged like any other or ends the connection, but it never arrives.
        for qos in 0..=2 {
            let mut client = broker.connect(bob(Connect::new(version, "b"))).await;
            client
                .send(Publish::new("secret/x", "x").qos(qos).id(1))
                .await;
            client.send(Disconnect::new(Reason::SUCCESS)).await;
            client.wait_until_closed().await;
        }
    }
    witness.expect_nothing().await;
    let mut late = broker.connect(alice(Connect::v5("late"))).await;
    late.subscribe_to("#", 1).await;
    late.expect_nothing().await;
}

/// A subscription that is not allowed is refused in SUBACK, and delivers nothing.
#[tokio::test]
async fn forbidden_subscriptions_are_refused() {
    let settings = rules(&[("alice", ALL, "'#'"), ("bob", ALL, "'public/#', 'x/+/y'")]);
    let broker = broker_with_users(&settings).await;
    let mut publisher = broker.connect(alice(Connect::v5("publisher"))).await;
    publisher
        .publish(Publish::new("secret", "kept").qos(1).retain())
        .await;
    for (version, refusal) in [
        (Version::V5, Reason::NOT_AUTHORIZED),
        (Version::V311, Reason(0x80)),
        (Version::V31, Reason(0x80)),
    ] {
        let mut client = broker.connect(bob(Connect::new(version, "b"))).await;
        let filters = [
            ("public/a", Reason(1)),
            ("public/#", Reason(1)),
            ("public/+/b", Reason(1)),
            ("x/+/y", Reason(1)),
            ("x/1/y", Reason(1)),
            ("$share/g/public/a", Reason(1)),
            ("#", refusal),
            ("+/a", refusal),
            ("x/#", refusal),
            ("secret", refusal),
            ("$share/g/secret", refusal),
            ("$share/g/#", refusal),
            ("$SYS/#", refusal),
        ];
        let reasons = client
            .subscribe(Subscribe::new(filters.map(|(filter, _)| (filter, 1))))
            .await;
        assert_eq!(reasons, filters.map(|(_, reason)| reason));
        publisher.publish_text("secret", "x", 1).await;
        client.expect_nothing().await;
        publisher.publish_text("x/1/y", "fine", 1).await;
        client.receive_exactly("x/1/y", "fine").await;
    }
}

/// What may not be received is kept from a wider subscription, live and retained, alone and shared.
#[tokio::test]
async fn forbidden_messages_are_not_delivered() {
    let settings = rules(&[
        ("*", ALL, "'#'"),
        ("bob", "deny = ['receive']", "'secret/#'"),
    ]);
    let broker = broker_with_users(&settings).await;
    let mut publisher = broker.connect(alice(Connect::v5("publisher"))).await;
    publisher
        .publish(Publish::new("secret/kept", "x").qos(1).retain())
        .await;
    publisher
        .publish(Publish::new("public/kept", "x").qos(1).retain())
        .await;
    let mut client = broker.connect(bob(Connect::v5("b").persistent())).await;
    client.subscribe_to("#", 1).await;
    client.receive_exactly("public/kept", "x").await;
    client.subscribe_to("$share/g/#", 1).await;
    publisher.publish_text("secret/live", "x", 1).await;
    client.expect_nothing().await;
    client.disconnect().await;
    publisher.publish_text("secret/queued", "x", 1).await;
    publisher.publish_text("secret", "x", 1).await;
    let mut client = broker.connect(bob(Connect::v5("b").persistent())).await;
    assert!(client.connack.session_present);
    client.expect_nothing().await;
}

/// A subscription that could never deliver is not granted. (A grant that means nothing is a lie.)
#[tokio::test]
async fn subscriptions_that_could_never_deliver_are_refused() {
    let settings = rules(&[
        ("*", ALL, "'#'"),
        ("bob", "deny = ['receive']", "'secret/#'"),
    ]);
    let broker = broker_with_users(&settings).await;
    let mut client = broker.connect(bob(Connect::v5("b"))).await;
    let reasons = client
        .subscribe(Subscribe::new([("secret/#", 1), ("secret/a", 1), ("#", 1)]))
        .await;
    assert_eq!(
        reasons,
        [Reason::NOT_AUTHORIZED, Reason::NOT_AUTHORIZED, Reason(1)]
    );
}

/// `%u` and `%c` stand for the user name and the Client Identifier.
#[tokio::test]
async fn rules_may_name_the_user_and_the_client() {
    let settings = rules(&[("*", ALL, "'user/%u/#', 'client/%c'")]);
    let broker = broker_with_users(&settings).await;
    let mut client = broker.connect(alice(Connect::v5("device"))).await;
    let reasons = client
        .subscribe(Subscribe::new([
            ("user/alice/x", 1),
            ("client/device", 1),
            ("user/bob/x", 1),
            ("client/other", 1),
            ("user/+/x", 1),
        ]))
        .await;
    let no = Reason::NOT_AUTHORIZED;
    assert_eq!(reasons, [Reason(1), Reason(1), no, no, no]);
    client.publish_text("user/alice/x", "x", 1).await;
    client.receive_exactly("user/alice/x", "x").await;
    assert_eq!(
        client.publish(Publish::new("user/bob/x", "x").qos(1)).await,
        no
    );
}

/// A Client Identifier that looks like a wildcard or a path matches nothing. (CVE-2017-7650.)
#[tokio::test]
async fn client_identifiers_cannot_smuggle_wildcards() {
    let settings = rules(&[("*", ALL, "'client/%c/#', 'own/%c'")]);
    let broker = broker_with_users(&settings).await;
    let mut publisher = broker.connect(bob(Connect::v5("victim"))).await;
    for id in ["#", "+", "victim/#", "+/x", "../victim", "a#", "a/+"] {
        let mut client = broker.connect(alice(Connect::v5(id))).await;
        let filters = [
            "client/#",
            "client/+/#",
            "client/victim/#",
            "own/#",
            "own/+",
            "own/victim",
        ];
        let reasons = client
            .subscribe(Subscribe::new(filters.map(|filter| (filter, 1))))
            .await;
        assert_eq!(reasons, [Reason::NOT_AUTHORIZED; 6], "as {id:?}");
        publisher.publish_text("own/victim", "x", 1).await;
        client.expect_nothing().await;
        if !id.contains('#') && !id.contains('+') {
            assert_eq!(
                client
                    .publish(Publish::new(&format!("own/{id}"), "x").qos(1))
                    .await,
                Reason::NOT_AUTHORIZED
            );
        }
    }
}

/// A Will goes only where its client may publish.
#[tokio::test]
async fn a_forbidden_will_is_never_published() {
    let settings = rules(&[("alice", ALL, "'#'"), ("bob", ALL, "'public/#'")]);
    let broker = broker_with_users(&settings).await;
    let mut witness = broker.connect(alice(Connect::v5("witness"))).await;
    witness.subscribe_to("#", 1).await;
    for version in Version::ALL {
        let mut client = broker.open(version).await;
        client
            .send(bob(Connect::new(version, "b")).will(Will::new("secret", "x").retain()))
            .await;
        // Refused at once, or let in without its Will.
        if client.expect_connack().await.reason == Reason::SUCCESS {
            client.lose().await;
        }
        broker
            .connect(bob(Connect::new(version, "b")).will(Will::new("public/will", "x")))
            .await
            .lose()
            .await;
        witness.receive_exactly("public/will", "x").await;
    }
    witness.expect_nothing().await;
}

/// Nobody publishes what looks like it came from the broker itself.
#[tokio::test]
async fn nobody_publishes_to_sys() {
    let broker = Broker::with(r#"sys.interval = "0s""#).await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("$SYS/#", 1).await;
    let mut client = broker.client("a").await;
    for qos in 1..=2 {
        let reason = client
            .publish(Publish::new("$SYS/broker/uptime", "fake").qos(qos).retain())
            .await;
        assert!(reason.is_error(), "{reason:?}");
    }
    witness.expect_nothing().await;
    let mut late = broker.client("late").await;
    late.subscribe_to("$SYS/#", 1).await;
    late.expect_nothing().await;
}

// Enhanced authentication.

fn method(name: &str) -> Property {
    Property::AuthenticationMethod(name.to_owned())
}

fn auth(reason: Reason, data: Vec<u8>) -> Auth {
    Auth {
        reason,
        properties: vec![method(METHOD), Property::AuthenticationData(data)],
    }
}

/// The data of an AUTH or CONNACK of this exchange, whose method must be repeated. [MQTT-4.12.0-5]
fn data(properties: &[Property]) -> Vec<u8> {
    assert_eq!(
        property!(properties, AuthenticationMethod).as_deref(),
        Some(METHOD)
    );
    property!(properties, AuthenticationData).expect("authentication data")
}

fn scram_connect(id: &str, first: Vec<u8>) -> Connect {
    Connect::v5(id)
        .property(method(METHOD))
        .property(Property::AuthenticationData(first))
}

/// Connects as the user, up to the CONNACK.
async fn scram(broker: &Broker, id: &str, user: &str, password: &str) -> (Client, ConnAck, Scram) {
    let mut client = broker.open(Version::V5).await;
    let (mut scram, first) = Scram::begin(user, password);
    client.send(scram_connect(id, first).persistent()).await;
    let challenge = client.expect_auth().await;
    assert_eq!(
        challenge.reason,
        Reason::CONTINUE_AUTHENTICATION,
        "[MQTT-4.12.0-2]"
    );
    let answer = scram.answer(&data(&challenge.properties));
    client
        .send(auth(Reason::CONTINUE_AUTHENTICATION, answer))
        .await;
    let connack = client.expect_connack().await;
    (client, connack, scram)
}

/// The whole exchange: challenge, proof, and the broker's own proof in CONNACK.
/// [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1]
#[tokio::test]
async fn scram_lets_in_and_proves_the_broker() {
    let broker = broker_with_users(&rules(&[("alice", ALL, "'%u/#'")])).await;
    let (mut client, connack, scram) = scram(&broker, "a", "alice", "wonderland").await;
    assert_eq!(connack.reason, Reason::SUCCESS);
    assert!(scram.server_is_genuine(&data(&connack.properties)));
    client.subscribe_to("alice/#", 1).await;
    client.publish_text("alice/x", "x", 1).await;
    client.receive_exactly("alice/x", "x").await;
}

/// A client may leave the first message out of CONNECT and send it when it is asked.
#[tokio::test]
async fn scram_may_begin_without_data_in_connect() {
    let broker = broker_with_users("").await;
    let mut client = broker.open(Version::V5).await;
    client.send(Connect::v5("a").property(method(METHOD))).await;
    let asked = client.expect_auth().await;
    assert_eq!(asked.reason, Reason::CONTINUE_AUTHENTICATION);
    assert_eq!(
        property!(asked.properties, AuthenticationMethod).as_deref(),
        Some(METHOD)
    );
    let (mut scram, first) = Scram::begin("bob", "builder");
    client
        .send(auth(Reason::CONTINUE_AUTHENTICATION, first))
        .await;
    let challenge = client.expect_auth().await;
    let answer = scram.answer(&data(&challenge.properties));
    client
        .send(auth(Reason::CONTINUE_AUTHENTICATION, answer))
        .await;
    let connack = client.expect_connack().await;
    assert_eq!(connack.reason, Reason::SUCCESS);
    assert!(scram.server_is_genuine(&data(&connack.properties)));
}

/// A wrong proof, an unknown user and one without a verifier are refused alike, at the end.
/// [MQTT-4.12.0-4]
#[tokio::test]
async fn scram_refuses_wrong_proofs() {
    let broker = broker_with_users("").await;
    for (user, password) in [
        ("alice", "wrong"),
        ("alice", ""),
        ("nobody", "wonderland"),
        ("carol", "carols"),
    ] {
        let (mut client, connack, _) = scram(&broker, "a", user, password).await;
        assert!(
            matches!(
                connack.reason,
                Reason::BAD_USER_NAME_OR_PASSWORD | Reason::NOT_AUTHORIZED
            ),
            "{connack:?}"
        );
        assert!(!connack.session_present);
        client.expect_closed().await;
    }
}

/// Messages that are no SCRAM are refused, and closed.
#[tokio::test]
async fn scram_refuses_nonsense() {
    let broker = broker_with_users("").await;
    for first in [
        &b"nonsense"[..],
        b"n,,n=alice",
        b"p=tls-unique,,n=alice,r=abc",
        b"n,,n=a=b,r=abc",
        b"\xff\xfe",
        b"n,,n=,r=",
    ] {
        let mut client = broker.open(Version::V5).await;
        client.send(scram_connect("a", first.to_vec())).await;
        let connack = client.expect_connack().await;
        assert!(connack.reason.is_error(), "{connack:?}");
        client.expect_closed().await;
    }
    let (_, first) = Scram::begin("alice", "wonderland");
    for last in [
        &b"nonsense"[..],
        b"c=biws,r=other,p=AAAA",
        b"c=biws,p=AAAA",
        b"",
    ] {
        let mut client = broker.open(Version::V5).await;
        client.send(scram_connect("a", first.clone())).await;
        client.expect_auth().await;
        client
            .send(auth(Reason::CONTINUE_AUTHENTICATION, last.to_vec()))
            .await;
        let connack = client.expect_connack().await;
        assert!(connack.reason.is_error(), "{connack:?}");
        client.expect_closed().await;
    }
}

/// An unknown method gets 0x8C, also where there are no users at all. [MQTT-4.12.0-1]
#[tokio::test]
async fn unknown_methods_are_refused() {
    for broker in [broker_with_users("").await, Broker::start().await] {
        for name in ["PLAIN", "SCRAM-SHA-1", "scram-sha-256", "", "GS2-KRB5"] {
            let mut client = broker.open(Version::V5).await;
            client.send(Connect::v5("a").property(method(name))).await;
            client
                .expect_connack_refusal(Reason::BAD_AUTHENTICATION_METHOD)
                .await;
        }
    }
}

/// During the exchange nothing but AUTH and DISCONNECT may come. [MQTT-3.1.2-30]
#[tokio::test]
async fn nothing_but_auth_during_the_exchange() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    let mut witness = broker.connect(bob(Connect::v5("witness"))).await;
    witness.subscribe_to("#", 1).await;
    let mut subscribe = Subscribe::new([("t", 1)]);
    subscribe.packet_id = 1;
    let packets: [Packet; 4] = [
        Publish::new("t", "must not arrive").into(),
        subscribe.into(),
        Packet::PingReq,
        Connect::v5("a").into(),
    ];
    for packet in packets {
        let mut client = broker.open(Version::V5).await;
        let (_, first) = Scram::begin("alice", "wonderland");
        client.send(scram_connect("a", first)).await;
        client.expect_auth().await;
        client.send(packet).await;
        client.expect_connack_refusal(Reason::PROTOCOL_ERROR).await;
    }
    let mut client = broker.open(Version::V5).await;
    let (_, first) = Scram::begin("alice", "wonderland");
    client.send(scram_connect("a", first)).await;
    client.expect_auth().await;
    client.send(Disconnect::new(Reason::SUCCESS)).await;
    client.expect_closed().await;
    witness.expect_nothing().await;
}

/// AUTH must repeat the method, and its reason code must fit. [MQTT-4.12.0-3] [MQTT-4.12.0-5]
#[tokio::test]
async fn auth_must_fit_the_exchange() {
    let broker = broker_with_users("").await;
    let wrong: [Auth; 3] = [
        Auth {
            reason: Reason::CONTINUE_AUTHENTICATION,
            properties: vec![method("PLAIN"), Property::AuthenticationData(vec![1])],
        },
        auth(Reason::RE_AUTHENTICATE, vec![1]),
        auth(Reason::SUCCESS, vec![1]),
    ];
    for auth in wrong {
        let mut client = broker.open(Version::V5).await;
        let (_, first) = Scram::begin("alice", "wonderland");
        client.send(scram_connect("a", first)).await;
        client.expect_auth().await;
        client.send(auth).await;
        let connack = client.expect_connack().await;
        assert!(
            matches!(
                connack.reason,
                Reason::PROTOCOL_ERROR | Reason::BAD_AUTHENTICATION_METHOD
            ),
            "{connack:?}"
        );
        client.expect_closed().await;
    }
}

/// Who named no method gets no AUTH and no method, even from a broker that has one. [MQTT-4.12.0-6]
#[tokio::test]
async fn nobody_is_asked_for_auth_who_named_no_method() {
    let broker = broker_with_users("").await;
    let client = broker.connect(alice(Connect::v5("a"))).await;
    assert_eq!(
        property!(client.connack.properties, AuthenticationMethod),
        None
    );
    assert_eq!(
        property!(client.connack.properties, AuthenticationData),
        None
    );
}

/// The re-authentication up to the broker's last word.
async fn reauthenticate(client: &mut Client, user: &str, password: &str) -> Scram {
    let (mut scram, first) = Scram::begin(user, password);
    client.send(auth(Reason::RE_AUTHENTICATE, first)).await;
    let challenge = client.expect_auth().await;
    assert_eq!(challenge.reason, Reason::CONTINUE_AUTHENTICATION);
    let answer = scram.answer(&data(&challenge.properties));
    client
        .send(auth(Reason::CONTINUE_AUTHENTICATION, answer))
        .await;
    scram
}

/// A client may authenticate again at any time, as often as it likes, and goes on. [MQTT-4.12.1-1]
#[tokio::test]
async fn re_authentication_succeeds() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    let (mut client, _, _) = scram(&broker, "a", "alice", "wonderland").await;
    client.subscribe_to("t", 1).await;
    for _ in 0..3 {
        let scram = reauthenticate(&mut client, "alice", "wonderland").await;
        let done = client.expect_auth().await;
        assert_eq!(done.reason, Reason::SUCCESS);
        assert!(scram.server_is_genuine(&data(&done.properties)));
        client.publish_text("t", "x", 1).await;
        client.receive_exactly("t", "x").await;
    }
}

/// Meanwhile everything else goes on under the old authentication.
#[tokio::test]
async fn traffic_goes_on_during_re_authentication() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    let (mut client, _, _) = scram(&broker, "a", "alice", "wonderland").await;
    client.subscribe_to("t", 1).await;
    let (mut scram, first) = Scram::begin("alice", "wonderland");
    client.send(auth(Reason::RE_AUTHENTICATE, first)).await;
    let challenge = client.expect_auth().await;
    client.publish_text("t", "between", 2).await;
    client.receive_exactly("t", "between").await;
    client.fence().await;
    let answer = scram.answer(&data(&challenge.properties));
    client
        .send(auth(Reason::CONTINUE_AUTHENTICATION, answer))
        .await;
    assert_eq!(client.expect_auth().await.reason, Reason::SUCCESS);
}

/// A failed re-authentication ends the connection, with its Will and without its session.
/// [MQTT-4.12.1-2]
#[tokio::test]
async fn failed_re_authentication_ends_the_connection() {
    let broker = broker_with_users(&rules(&[("*", ALL, "'#'")])).await;
    for (user, password) in [("alice", "wrong"), ("nobody", "wonderland")] {
        let (mut client, _, _) = scram(&broker, "a", "alice", "wonderland").await;
        reauthenticate(&mut client, user, password).await;
        // DISCONNECT has no Bad User Name or Password among its reason codes.
        client.expect_disconnect(Reason::NOT_AUTHORIZED).await;
    }
    let (_, connack, _) = scram(&broker, "a", "alice", "wonderland").await;
    assert!(connack.session_present, "the session is alice's and stays");
}

/// Re-authentication is for the method of CONNECT, and AUTH out of turn is a protocol error.
/// [MQTT-4.12.1-1]
#[tokio::test]
async fn re_authentication_out_of_turn_is_a_protocol_error() {
    let broker = broker_with_users("").await;
    let (_, first) = Scram::begin("alice", "wonderland");
    let wrong = [
        auth(Reason::CONTINUE_AUTHENTICATION, first.clone()),
        Auth {
            reason: Reason::RE_AUTHENTICATE,
            properties: vec![method("PLAIN"), Property::AuthenticationData(first)],
        },
    ];
    for auth in wrong {
        let (mut client, _, _) = scram(&broker, "a", "alice", "wonderland").await;
        client.send(auth).await;
        match client.next().await {
            Packet::Disconnect(disconnect) => assert!(
                matches!(
                    disconnect.reason,
                    Reason::PROTOCOL_ERROR | Reason::BAD_AUTHENTICATION_METHOD
                ),
                "{disconnect:?}"
            ),
            other => client.fail(&format!("{other:?}")),
        }
        client.expect_closed().await;
    }
}
