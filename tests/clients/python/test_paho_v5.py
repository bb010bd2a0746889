"""Python's paho-mqtt against the broker: what only MQTT 5 has.

A few tests sleep for a little more than two seconds: passing time is their subject, and intervals are whole seconds.
"""

import time

import pytest

from paho_client import V5, V31, V311, Paho, Will

PROPERTIES = {
    "PayloadFormatIndicator": 1,
    "ContentType": "text/plain; charset=utf-8",
    "ResponseTopic": "answers/here",
    "CorrelationData": bytes(range(256)),
    # Order and repeated names are part of the message.
    "UserProperty": [("b", "1"), ("a", "2"), ("b", "3"), ("", ""), ("ключ", "значение")],
}


@pytest.fixture
def connect(broker, clients):
    """Connects an MQTT 5 client that is closed after the test."""

    def connect_one(client_id="", version=V5, **options):
        client = Paho(broker, version, client_id, **options)
        clients(client)
        return client

    return connect_one


def forwarded(message):
    return {key: value for key, value in message.properties.items() if key in PROPERTIES}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_are_forwarded(connect, name, qos):
    """User properties, content type, response topic, correlation data and payload format reach the subscriber unchanged."""
    client = connect()
    client.subscribe(name, qos)
    client.publish(name, "grüezi".encode(), qos, properties=PROPERTIES)
    assert forwarded(client.message()) == PROPERTIES


def test_properties_are_kept_with_a_retained_message(connect, name):
    """A retained message keeps its properties."""
    connect().publish(name, b"kept", 1, retain=True, properties=PROPERTIES)
    late = connect()
    late.subscribe(name, 1)
    assert forwarded(late.message()) == PROPERTIES
    late.publish(name, b"", 1, retain=True)


def test_properties_are_kept_in_a_queue(connect, name):
    """A message that waits for an absent client keeps its properties."""
    away = connect(name, clean=False, expiry=300)
    away.subscribe(name, 1)
    away.disconnect()
    connect().publish(name, b"queued", 1, properties=PROPERTIES)
    assert forwarded(connect(name, clean=False, expiry=0).message()) == PROPERTIES


def test_properties_of_a_will(connect, name):
    """A will carries its properties like any other message."""
    watcher = connect()
    watcher.subscribe(name, 1)
    connect(name, will=Will(name, b"gone", 1, properties=PROPERTIES)).abort()
    assert forwarded(watcher.message()) == PROPERTIES


@pytest.mark.parametrize("version", [V31, V311])
def test_properties_are_left_out_for_older_clients(connect, name, version):
    """An MQTT 3.x subscriber gets the message alone."""
    older = connect(version=version)
    older.subscribe(name, 1)
    connect().publish(name, b"payload", 1, properties=PROPERTIES)
    got = older.message()
    assert (got.topic, got.payload) == (name, b"payload")


def test_will_delay(connect, name):
    """A will waits for its delay, and no longer."""
    watcher = connect()
    watcher.subscribe(name, 1)
    client = connect(name, expiry=60, will=Will(name, b"gone", 1, properties={"WillDelayInterval": 1}))
    lost = time.monotonic()
    client.abort()
    assert watcher.message().payload == b"gone"
    assert time.monotonic() - lost >= 0.9


def test_will_delay_ends_with_the_session(connect, name):
    """A will is due when its session ends, however long its delay. [MQTT-3.1.2-8]"""
    watcher = connect()
    watcher.subscribe(name, 1)
    connect(name, expiry=0, will=Will(name, b"gone", 1, properties={"WillDelayInterval": 3600})).abort()
    assert watcher.message().payload == b"gone"


def test_disconnect_with_will_message(connect, name):
    """DISCONNECT with 0x04 asks for the will to be published."""
    watcher = connect()
    watcher.subscribe(name, 1)
    connect(name, will=Will(name, b"asked for", 1)).disconnect(reason=0x04)
    assert watcher.message().payload == b"asked for"


def test_message_expiry_is_counted_down(connect, name):
    """The Message Expiry Interval that is forwarded is what is left of it."""
    connect().publish(name, b"kept", 1, retain=True, properties={"MessageExpiryInterval": 100})
    time.sleep(1.1)
    late = connect()
    late.subscribe(name, 1)
    assert 90 <= late.message().properties["MessageExpiryInterval"] < 100
    connect().publish(name, b"", 1, retain=True)


def test_expired_messages_are_not_delivered(connect, name):
    """A message whose Message Expiry Interval has passed is not sent to a client that returns."""
    away = connect(name, clean=False, expiry=300, will=Will(name + "/gone", b"gone", 1))
    away.subscribe(name, 1)
    publisher = connect()
    publisher.subscribe(name + "/gone", 1)
    away.abort()
    # The will tells that the broker has noticed. What it sent before is under way, and does not expire any more.
    assert publisher.message().payload == b"gone"
    publisher.publish(name, b"short", 1, properties={"MessageExpiryInterval": 1})
    publisher.publish(name, b"long", 1, properties={"MessageExpiryInterval": 300})
    time.sleep(2.1)
    back = connect(name, clean=False, expiry=0)
    assert back.message().payload == b"long"
    back.nothing_else()


def test_expired_retained_message(connect, name):
    """A retained message ends with its Message Expiry Interval."""
    publisher = connect()
    publisher.publish(name, b"kept", 1, retain=True, properties={"MessageExpiryInterval": 1})
    time.sleep(2.1)
    late = connect()
    late.subscribe(name, 1)
    late.subscribe(name + "/end", 1)
    publisher.publish(name + "/end", b"", 1)
    assert late.message().topic == name + "/end"


def test_topic_alias_from_the_client(connect, name):
    """A topic is named once with an alias, and by its alias alone from then on; an alias may be given a new topic."""
    subscriber = connect()
    subscriber.subscribe(name + "/#", 1)
    publisher = connect()
    assert publisher.connack_properties["TopicAliasMaximum"] >= 2
    publisher.publish(name + "/a", b"1", 1, properties={"TopicAlias": 1})
    publisher.publish("", b"2", 1, properties={"TopicAlias": 1})
    publisher.publish(name + "/b", b"3", 0, properties={"TopicAlias": 2})
    publisher.publish("", b"4", 0, properties={"TopicAlias": 2})
    publisher.publish(name + "/c", b"5", 2, properties={"TopicAlias": 1})
    publisher.publish("", b"6", 2, properties={"TopicAlias": 1})
    got = [(message.topic.removeprefix(name), message.payload) for message in subscriber.messages(6)]
    assert got == [("/a", b"1"), ("/a", b"2"), ("/b", b"3"), ("/b", b"4"), ("/c", b"5"), ("/c", b"6")]
    # An alias belongs to the connection it was made on: it is not forwarded.
    subscriber.nothing_else()


def test_topic_alias_from_the_broker(connect, name):
    """A client that allows two aliases can tell the topics of all messages. (paho leaves the mapping to its user.)"""
    subscriber = connect(properties={"TopicAliasMaximum": 2})
    subscriber.subscribe(name + "/#", 1)
    publisher = connect()
    sent = [f"{name}/{i % 4}" for i in range(12)]
    for topic in sent:
        publisher.publish(topic, b"", 1)
    known = {}
    topics = []
    for message in subscriber.messages(len(sent)):
        alias = message.properties.get("TopicAlias")
        if alias is not None:
            assert 1 <= alias <= 2
            if message.topic:
                known[alias] = message.topic
        topics.append(message.topic or known[alias])
    assert topics == sent


def test_subscription_identifiers(connect, name):
    """Overlapping subscriptions give one delivery, with the highest QoS and the identifiers of all."""
    client = connect()
    client.subscribe(name + "/a", 0, properties={"SubscriptionIdentifier": 7})
    client.subscribe(name + "/+", 2, properties={"SubscriptionIdentifier": 268_435_455})
    client.subscribe(name + "/#", 1)
    client.publish(name + "/a", b"three match", 2)
    client.publish(name + "/b", b"two match", 2)
    client.publish(name, b"one matches", 2)
    got = client.messages(3)
    assert [message.payload for message in got] == [b"three match", b"two match", b"one matches"]
    identifiers = [sorted(message.properties.get("SubscriptionIdentifier", [])) for message in got]
    assert identifiers == [[7, 268_435_455], [268_435_455], []]
    assert [message.qos for message in got] == [2, 2, 1]
    client.nothing_else()


def test_session_expiry(connect, name):
    """A session lives as long after its connection as was asked for."""
    connect(name, clean=False, expiry=300).disconnect()
    back = connect(name, clean=False, expiry=1)
    assert back.session_present
    back.disconnect()
    time.sleep(2.1)
    assert not connect(name, clean=False, expiry=0).session_present


def test_session_without_expiry_ends_with_the_connection(connect, name):
    """Without a Session Expiry Interval there is nothing to come back to."""
    connect(name, clean=False).disconnect()
    assert not connect(name, clean=False).session_present


def test_session_expiry_changed_by_disconnect(connect, name):
    """DISCONNECT may shorten or prolong a session."""
    connect(name, clean=False, expiry=1).disconnect(properties={"SessionExpiryInterval": 300})
    time.sleep(2.1)
    back = connect(name, clean=False, expiry=300)
    assert back.session_present
    back.disconnect(properties={"SessionExpiryInterval": 0})
    assert not connect(name, clean=False).session_present


def test_reason_codes(connect, name):
    """Acknowledgements tell what happened: granted QoS, existing and unknown subscriptions, publishing to nobody."""
    client = connect()
    assert [client.subscribe(f"{name}/{qos}", qos) for qos in (0, 1, 2)] == [0, 1, 2]
    assert client.unsubscribe(name + "/0") == 0x00
    assert client.unsubscribe(name + "/0") == 0x11  # No subscription existed
    # A broker may tell a publisher that nobody listens (0x10), and this one is free not to.
    assert client.publish(name + "/nobody", b"", 1) in (0x00, 0x10)
    assert client.publish(name + "/nobody", b"", 2) in (0x00, 0x10)
    assert client.publish(name + "/1", b"", 1) == 0x00


def test_no_local(connect, name):
    """No Local spares a client its own messages."""
    client, other = connect(), connect()
    client.subscribe(name, 1, options={"noLocal": True})
    client.publish(name, b"own", 1)
    other.publish(name, b"other", 1)
    assert client.message().payload == b"other"


def test_retain_as_published(connect, name):
    """Retain As Published keeps the flag that the publisher set."""
    kept, cleared = connect(), connect()
    kept.subscribe(name, 1, options={"retainAsPublished": True})
    cleared.subscribe(name, 1)
    publisher = connect()
    publisher.publish(name, b"1", 1, retain=True)
    publisher.publish(name, b"2", 1, retain=False)
    assert [message.retain for message in kept.messages(2)] == [True, False]
    assert [message.retain for message in cleared.messages(2)] == [False, False]
    publisher.publish(name, b"", 1, retain=True)


@pytest.mark.parametrize("handling", [0, 1, 2])
def test_retain_handling(connect, name, handling):
    """Retained messages at each subscribe (0), at a new subscription only (1), never (2)."""
    publisher = connect()
    publisher.publish(name, b"kept", 1, retain=True)
    client = connect()
    client.subscribe(name + "/end", 1)
    seen = []
    for _ in range(2):
        client.subscribe(name, 1, options={"retainHandling": handling})
        publisher.publish(name + "/end", b"", 1)
        count = 0
        # Retained messages may be paced: how they come among live ones is the broker's choice, but all must come.
        while client.message().topic != name + "/end":
            count += 1
        seen.append(count)
    assert seen == {0: [1, 1], 1: [1, 0], 2: [0, 0]}[handling]
    publisher.publish(name, b"", 1, retain=True)


def test_receive_maximum_of_the_client(connect, name):
    """No more messages are under way to a client than it said it can take."""
    client = connect(manual_ack=True, properties={"ReceiveMaximum": 2})
    client.subscribe(name, 1)
    publisher = connect()
    for i in range(5):
        publisher.publish(name, str(i).encode(), 1)
    under_way = client.messages(2)
    # SUBACK comes behind: had the broker more to send, it would be here.
    client.subscribe(name + "/other", 0)
    client.nothing_else()
    for i in range(2, 5):
        client.ack(under_way.pop(0))
        under_way.append(client.message())
        assert under_way[-1].payload == str(i).encode()
        client.subscribe(name + "/other", 0)
        client.nothing_else()


def test_maximum_packet_size_of_the_client(connect, name):
    """A message that is too large for one client is left out for it alone."""
    small, large = connect(properties={"MaximumPacketSize": 1000}), connect()
    small.subscribe(name, 1)
    large.subscribe(name, 1)
    publisher = connect()
    publisher.publish(name, bytes(2000), 1)
    publisher.publish(name, b"fits", 1)
    assert small.message().payload == b"fits"
    assert [len(message.payload) for message in large.messages(2)] == [2000, 4]


def test_request_and_response(connect, name):
    """A responder answers to the response topic with the correlation data it was given."""
    requester, responder = connect(), connect()
    responder.subscribe(name + "/requests", 1)
    requester.subscribe(name + "/responses", 1)
    requester.publish(
        name + "/requests",
        b"6 * 7",
        1,
        properties={"ResponseTopic": name + "/responses", "CorrelationData": b"\x00id\xff"},
    )
    request = responder.message()
    responder.publish(
        request.properties["ResponseTopic"],
        b"42",
        1,
        properties={"CorrelationData": request.properties["CorrelationData"]},
    )
    response = requester.message()
    assert (response.payload, response.properties["CorrelationData"]) == (b"42", b"\x00id\xff")


def test_sys_topics_by_subscription_only(connect):
    """`$SYS` answers a subscription of its own and is not part of `#`."""
    asking, everything = connect(), connect()
    everything.subscribe("#", 0)
    asking.subscribe("$SYS/broker/version", 0)
    assert asking.message().topic == "$SYS/broker/version"
    asking.publish("end-of-sys", b"", 0)
    seen = []
    while not seen or seen[-1] != "end-of-sys":
        seen.append(everything.message().topic)
    assert not [topic for topic in seen if topic.startswith("$")]
