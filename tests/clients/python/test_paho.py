"""Python's paho-mqtt against the broker, in MQTT 3.1, 3.1.1 and 5."""

import pytest

from paho_client import V5, V31, VERSIONS, Paho, Will

QOS = [0, 1, 2]
MEBIBYTE = 1024 * 1024

every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def connect(broker, clients):
    """Connects a client that is closed after the test."""

    def connect_one(version, client_id="", **options):
        client = Paho(broker, version, client_id, **options)
        clients(client)
        return client

    return connect_one


def persistent(version):
    """What asks for a session that outlives its connection."""
    return {"clean": False, "expiry": 300 if version == V5 else None}


def flush(publisher, subscriber, topic, qos=0):
    """Sends one last message behind all others. Once it is there, nothing before it can still be on its way."""
    subscriber.subscribe(topic, qos)
    publisher.publish(topic, b"last", qos)


@every_version
def test_connect(connect, name, version):
    """A new client is accepted, and there is no session for it yet."""
    client = connect(version, name)
    assert not client.session_present
    client.disconnect()


@every_version
def test_connect_without_client_id(connect, name, version):
    """The broker chooses a Client Identifier, and tells it in MQTT 5. (paho makes one up itself in 3.1.)"""
    client = connect(version)
    assert client.subscribe(name) == 0
    client.publish(name, b"1")
    assert client.message().payload == b"1"
    if version == V5:
        assert client.connack_properties["AssignedClientIdentifier"]


@every_version
@pytest.mark.parametrize("subscribed", QOS)
@pytest.mark.parametrize("published", QOS)
def test_qos(connect, name, version, published, subscribed):
    """A message arrives once, at the lower of the two QoS; SUBACK grants what was asked for."""
    subscriber = connect(version)
    publisher = connect(version)
    assert subscriber.subscribe(name, subscribed) == subscribed
    publisher.publish(name, b"payload", published)
    got = subscriber.message()
    assert (got.topic, got.payload, got.qos, got.retain, got.dup) == (
        name,
        b"payload",
        min(published, subscribed),
        False,
        False,
    )
    flush(publisher, subscriber, name + "/end", subscribed)
    assert subscriber.message().topic == name + "/end"
    subscriber.nothing_else()


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_order(connect, name, version, qos):
    """Many messages sent at once arrive complete, once and in order."""
    subscriber = connect(version)
    publisher = connect(version)
    subscriber.subscribe(name, qos)
    expected = [str(i).encode() for i in range(300)]
    for mid in [publisher.publish(name, payload, qos, wait=False) for payload in expected]:
        publisher.wait_published(mid)
    assert [got.payload for got in subscriber.messages(len(expected))] == expected
    flush(publisher, subscriber, name + "/end", qos)
    assert subscriber.message().topic == name + "/end"
    subscriber.nothing_else()


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_payload_of_one_mebibyte(connect, name, version, qos):
    """A large payload arrives byte for byte."""
    payload = bytes(range(256)) * (MEBIBYTE // 256)
    subscriber = connect(version)
    publisher = connect(version)
    subscriber.subscribe(name, qos)
    publisher.publish(name, payload, qos)
    got = subscriber.message()
    assert len(got.payload) == MEBIBYTE
    assert got.payload == payload


@every_version
def test_topics_and_payloads_are_arbitrary(connect, name, version):
    """Empty and binary payloads, empty levels and letters beyond ASCII are carried as they are."""
    subscriber = connect(version)
    publisher = connect(version)
    subscriber.subscribe(name + "/#", 1)
    cases = [
        (name, b""),
        (name + "/", bytes(range(256))),
        (name + "//a", b"empty level"),
        (name + "/Zürich/東京/🌦", "17 °C".encode()),
        (name + "/with space/$dollar", b"\x00"),
    ]
    for topic, payload in cases:
        publisher.publish(topic, payload, 1)
    assert [(got.topic, got.payload) for got in subscriber.messages(len(cases))] == cases


@every_version
def test_wildcards(connect, name, version):
    """`+` stands for one level, `#` for the rest and its parent."""
    single, rest = connect(version), connect(version)
    publisher = connect(version)
    single.subscribe(name + "/+/c", 1)
    rest.subscribe(name + "/a/#", 1)
    for level in ["a", "a/b", "a/c", "b/c", "a/b/c", "b"]:
        publisher.publish(f"{name}/{level}", b"", 1)
    flush(publisher, single, name + "/end", 1)
    flush(publisher, rest, name + "/end", 1)
    assert [got.topic for got in single.messages(3)] == [name + "/a/c", name + "/b/c", name + "/end"]
    assert [got.topic for got in rest.messages(4)] == [name + "/" + level for level in ["a", "a/b", "a/c", "a/b/c"]]


@every_version
def test_unsubscribe(connect, name, version):
    """After UNSUBACK nothing more is sent for that filter; others stay."""
    client = connect(version)
    client.subscribe(name + "/off", 1)
    client.subscribe(name + "/on", 1)
    client.unsubscribe(name + "/off")
    client.publish(name + "/off", b"", 1)
    client.publish(name + "/on", b"", 1)
    assert client.message().topic == name + "/on"


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_retained(connect, name, version, qos):
    """The last retained message greets a new subscription, and an empty one takes it away."""
    publisher = connect(version)
    publisher.publish(name, b"first", qos, retain=True)
    publisher.publish(name, b"second", qos, retain=True)
    # QoS 0 has no acknowledgement: this one comes behind it.
    publisher.publish(name + "/end", b"", 1)

    early = connect(version)
    early.subscribe(name, qos)
    greeting = early.message()
    assert (greeting.payload, greeting.qos, greeting.retain) == (b"second", qos, True)

    # What is published while a subscription stands is not "retained" to it.
    publisher.publish(name, b"third", qos, retain=True)
    live = early.message()
    assert (live.payload, live.qos, live.retain) == (b"third", qos, False)

    publisher.publish(name, b"", qos, retain=True)
    assert early.message().payload == b""
    late = connect(version)
    late.subscribe(name, qos)
    flush(publisher, late, name + "/end", qos)
    assert late.message().topic == name + "/end"


@every_version
def test_retained_messages_match_wildcards(connect, name, version):
    """A wildcard subscription receives every retained message under it, however many."""
    publisher = connect(version)
    topics = [f"{name}/{i}" for i in range(200)]
    for mid in [publisher.publish(topic, b"kept", 1, retain=True, wait=False) for topic in topics]:
        publisher.wait_published(mid)
    subscriber = connect(version)
    subscriber.subscribe(name + "/+", 1)
    got = subscriber.messages(len(topics))
    assert {message.topic for message in got} == set(topics)
    assert all(message.retain for message in got)
    for topic in topics:
        publisher.publish(topic, b"", 1, retain=True, wait=False)


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_will_after_a_lost_connection(connect, name, version, qos):
    """A client that vanishes without DISCONNECT has its will published."""
    watcher = connect(version)
    watcher.subscribe(name, 2)
    client = connect(version, name, will=Will(name, b"gone", qos))
    client.abort()
    got = watcher.message()
    assert (got.payload, got.qos, got.retain) == (b"gone", qos, False)


@every_version
def test_retained_will(connect, name, version):
    """A will may be retained: who comes later learns of it too."""
    watcher = connect(version)
    watcher.subscribe(name, 1)
    connect(version, name, will=Will(name, b"gone", 1, retain=True)).abort()
    assert watcher.message().payload == b"gone"
    late = connect(version)
    late.subscribe(name, 1)
    got = late.message()
    assert (got.payload, got.retain) == (b"gone", True)
    late.publish(name, b"", 1, retain=True)


@every_version
def test_no_will_after_disconnect(connect, name, version):
    """A client that says goodbye leaves no will."""
    watcher = connect(version)
    watcher.subscribe(name + "/#", 1)
    connect(version, name, will=Will(name + "/will", b"gone", 1)).disconnect()
    # The CONNACK of the same Client Identifier comes only when the broker is through with the earlier connection.
    connect(version, name).publish(name + "/end", b"", 1)
    assert watcher.message().topic == name + "/end"


@every_version
def test_session_is_resumed(connect, name, version):
    """What is published at QoS 1 and 2 while a client is away waits for it, in order, and its subscriptions stand.

    paho hands out a QoS 2 message when its PUBREL arrives, a QoS 1 message at once: the order of each can be seen.
    """
    away = connect(version, name, **persistent(version))
    assert not away.session_present
    away.subscribe(name + "/+", 2)
    away.disconnect()

    publisher = connect(version)
    sent = [(f"{name}/{i % 3}", str(i).encode(), 1 + i % 2) for i in range(40)]
    for topic, payload, qos in sent:
        publisher.publish(topic, payload, qos)

    back = connect(version, name, **persistent(version))
    # CONNACK of MQTT 3.1 has no such flag.
    if version != V31:
        assert back.session_present
    got = [(message.topic, message.payload, message.qos) for message in back.messages(len(sent))]
    for qos in (1, 2):
        assert [message for message in got if message[2] == qos] == [message for message in sent if message[2] == qos]
    publisher.publish(name + "/live", b"live", 2)
    assert back.message().payload == b"live"
    back.nothing_else()

    back.disconnect()
    # An end to the session, so that nothing of it stays in the broker.
    assert not connect(version, name, clean=True).session_present


@every_version
def test_unacknowledged_messages_are_sent_again(connect, name, version):
    """QoS 1 messages that were received but not acknowledged come again after a lost connection: first, in order, as duplicates."""
    first = connect(version, name, manual_ack=True, will=Will(name + "/gone", b"gone", 1), **persistent(version))
    first.subscribe(name, 1)
    publisher = connect(version)
    publisher.subscribe(name + "/gone", 1)
    for payload in [b"1", b"2", b"3"]:
        publisher.publish(name, payload, 1)
    got = first.messages(3)
    first.ack(got[0])
    # SUBACK comes behind: the broker has read the acknowledgement by then.
    first.subscribe(name + "/other", 0)
    first.abort()
    # The will tells that the broker has noticed. Before, it would send the next message into the void.
    assert publisher.message().payload == b"gone"
    publisher.publish(name, b"4", 1)

    second = connect(version, name, **persistent(version))
    assert [(message.payload, message.dup) for message in second.messages(3)] == [(b"2", True), (b"3", True), (b"4", False)]
    second.nothing_else()


@every_version
def test_clean_session_discards_the_old_one(connect, name, version):
    """A clean start ends the earlier session with its subscriptions and queue."""
    connect(version, name, **persistent(version)).subscribe(name, 1)
    publisher = connect(version)
    publisher.publish(name, b"lost", 1)
    clean = connect(version, name, clean=True)
    assert not clean.session_present
    publisher.publish(name, b"not subscribed", 1)
    flush(publisher, clean, name + "/end", 1)
    assert clean.message().topic == name + "/end"


@every_version
def test_takeover(connect, name, version):
    """A second connection with the same Client Identifier ends the first, and the session goes on in the second."""
    first = connect(version, name, **persistent(version))
    first.subscribe(name, 1)
    second = connect(version, name, **persistent(version))
    reason = first.wait_closed()
    if version == V5:
        assert reason == 0x8E  # Session taken over
    if version != V31:
        assert second.session_present
    connect(version).publish(name, b"for the second", 1)
    assert second.message().payload == b"for the second"
    first.nothing_else()


@every_version
def test_shared_subscription(connect, name, version):
    """Each message goes to exactly one member of the group, and every member gets some; others get them all."""
    members = [connect(version) for _ in range(3)]
    everything = connect(version)
    publisher = connect(version)
    for member in members:
        assert member.subscribe(f"$share/group/{name}/+", 1) == 1
        member.subscribe(name + "/end/all", 1)
    everything.subscribe(name + "/#", 1)
    sent = [str(i).encode() for i in range(60)]
    for payload in sent:
        publisher.publish(name + "/work", payload, 1)
    publisher.publish(name + "/end/all", b"", 1)

    shares = []
    for member in members:
        share = []
        while (got := member.message()).topic != name + "/end/all":
            share.append(got.payload)
        shares.append(share)
    assert sorted(sum(shares, []), key=int) == sent
    assert all(shares), "a member of the group got nothing"
    assert [got.payload for got in everything.messages(60)] == sent


@every_version
def test_keep_alive(connect, version):
    """PINGREQ is answered, as often as it is sent."""
    client = connect(version, keep_alive=1)
    for _ in range(2):
        client.pings.get(timeout=20)
    client.disconnect()
