"""Debian's mosquitto_pub, mosquitto_sub and mosquitto_rr against the broker, in MQTT 3.1, 3.1.1 and 5."""

import subprocess

import pytest

from mosquitto_tools import V5, VERSIONS, Sub, _arguments, pub
from paho_client import TIMEOUT_SECS

QOS = [0, 1, 2]
MEBIBYTE = 1024 * 1024

every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def sub(broker, clients):
    """Starts a mosquitto_sub that is ended after the test."""

    def start(version, *filters, **options):
        tool = Sub(broker, version, *filters, **options)
        clients(tool)
        return tool

    return start


def persistent(version, client_id):
    """What asks for a session that outlives its connection."""
    return ["-c", "-i", client_id, *(["-x", "300"] if version == V5 else [])]


def end_session(broker, version, client_id):
    """A clean start with the same Client Identifier, so that nothing of a session stays in the broker."""
    pub(broker, version, "end", b"", 0, "-i", client_id)


@every_version
@pytest.mark.parametrize("subscribed", QOS)
@pytest.mark.parametrize("published", QOS)
def test_qos(broker, sub, name, version, published, subscribed):
    """A message arrives once, at the lower of the two QoS."""
    subscriber = sub(version, name, name + "/end", qos=subscribed)
    pub(broker, version, name, b"payload", published)
    pub(broker, version, name + "/end", b"", published)
    got, end = subscriber.messages(2)
    assert (got.topic, got.payload, got.qos, got.retain) == (name, b"payload", min(published, subscribed), False)
    assert end.topic == name + "/end"
    subscriber.nothing_else()


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_order(broker, sub, name, version, qos):
    """mosquitto_pub -l publishes each line as a message: all arrive, once and in order."""
    subscriber = sub(version, name, qos=qos)
    lines = [f"line {i}".encode() for i in range(200)]
    command = [*_arguments("mosquitto_pub", broker, version), "-t", name, "-q", str(qos), "-l"]
    done = subprocess.run(command, input=b"\n".join(lines) + b"\n", capture_output=True, timeout=TIMEOUT_SECS)
    assert done.returncode == 0, done.stderr
    assert [got.payload for got in subscriber.messages(len(lines))] == lines
    pub(broker, version, name, b"last", qos)
    assert subscriber.message().payload == b"last"
    subscriber.nothing_else()


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_payload_of_one_mebibyte(broker, sub, name, version, qos):
    """A large payload arrives byte for byte."""
    payload = bytes(range(256)) * (MEBIBYTE // 256)
    subscriber = sub(version, name, qos=qos)
    pub(broker, version, name, payload, qos)
    got = subscriber.message()
    assert len(got.payload) == MEBIBYTE
    assert got.payload == payload


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_retained(broker, sub, name, version, qos):
    """The last retained message greets a new subscription, and `mosquitto_pub -r -n` takes it away."""
    # QoS 0 has no acknowledgement: a live subscriber shows when the broker has it.
    live = sub(version, name, qos=qos)
    for payload in [b"first", b"second"]:
        pub(broker, version, name, payload, qos, "-r")
        got = live.message()
        assert (got.payload, got.retain) == (payload, False)

    early = sub(version, name, qos=qos)
    greeting = early.message()
    assert (greeting.payload, greeting.qos, greeting.retain) == (b"second", qos, True)

    pub(broker, version, name, b"", qos, "-r")
    assert live.message().payload == b""
    late = sub(version, name, name + "/end", qos=qos)
    pub(broker, version, name + "/end", b"", qos)
    assert late.message().topic == name + "/end"


@every_version
def test_remove_retained(broker, sub, name, version):
    """mosquitto_sub --remove-retained cleans up what it finds."""
    for i in range(10):
        pub(broker, version, f"{name}/{i}", b"kept", 1, "-r")
    cleaner = sub(version, name + "/#", qos=1, arguments=["--remove-retained"])
    # Ten that were retained, and their ten removals, which match the subscription as well.
    got = cleaner.messages(20)
    assert sorted(message.topic for message in got if message.retain) == [f"{name}/{i}" for i in range(10)]
    assert [message.payload for message in got if not message.retain] == [b""] * 10
    late = sub(version, name + "/#", qos=1)
    pub(broker, version, name + "/end", b"", 1)
    assert late.message().topic == name + "/end"


@every_version
@pytest.mark.parametrize("qos", QOS)
def test_will_after_a_crash(sub, name, version, qos):
    """A mosquitto_sub that is killed has its will published."""
    watcher = sub(version, name, qos=2)
    will = ["--will-topic", name, "--will-payload", "gone", "--will-qos", str(qos)]
    sub(version, name + "/other", arguments=will).kill()
    got = watcher.message()
    assert (got.payload, got.qos, got.retain) == (b"gone", qos, False)


@every_version
def test_no_will_after_disconnect(broker, sub, name, version):
    """A mosquitto_sub that ends in good order leaves no will."""
    watcher = sub(version, name + "/#", qos=1)
    will = ["-i", name, "--will-topic", name + "/will", "--will-payload", "gone", "--will-qos", "1"]
    sub(version, name + "/other", arguments=["-E", *will]).wait_ended()
    # The same Client Identifier is accepted only when the broker is through with the earlier connection.
    pub(broker, version, name + "/end", b"", 1, "-i", name)
    assert watcher.message().topic == name + "/end"


@every_version
def test_session_is_resumed(broker, sub, name, version):
    """What is published at QoS 1 and 2 while a client is away waits for it, in order."""
    sub(version, name, qos=2, arguments=["-E", *persistent(version, name)]).wait_ended()
    sent = [(str(i).encode(), 1 + i % 2) for i in range(20)]
    for payload, qos in sent:
        pub(broker, version, name, payload, qos)
    back = sub(version, name, qos=2, arguments=persistent(version, name))
    got = [(message.payload, message.qos) for message in back.messages(len(sent))]
    # A QoS 2 message is handed out when its PUBREL arrives, a QoS 1 message at once: the order of each can be seen.
    for qos in (1, 2):
        assert [message for message in got if message[1] == qos] == [message for message in sent if message[1] == qos]
    back.nothing_else()
    back.kill()
    end_session(broker, version, name)


@every_version
def test_session_outlives_a_crash(broker, sub, name, version):
    """A client that is killed finds its session again."""
    sub(version, name, qos=1, arguments=persistent(version, name)).kill()
    pub(broker, version, name, b"while away", 1)
    back = sub(version, name, qos=1, arguments=persistent(version, name))
    assert back.message().payload == b"while away"
    back.kill()
    end_session(broker, version, name)


@every_version
def test_takeover(broker, sub, name, version):
    """A second connection with the same Client Identifier ends the first, and the session goes on.

    mosquitto_sub connects again by itself in MQTT 3.1 and 3.1.1. In MQTT 5 it is told why it was disconnected, and ends.
    """
    first = sub(version, name, qos=1, arguments=persistent(version, name))
    pub(broker, version, name + "/other", b"from the second", 1, *persistent(version, name))
    if version == V5:
        first.wait_logged("DISCONNECT (142)")  # 0x8E, Session taken over
        first.wait_ended()
    else:
        first.wait_logged("received SUBACK", times=2)
    pub(broker, version, name, b"after all", 1)
    if version == V5:
        first = sub(version, name, qos=1, arguments=persistent(version, name))
    assert first.message().payload == b"after all"
    first.kill()
    end_session(broker, version, name)


@every_version
def test_shared_subscription(broker, sub, name, version):
    """Each message goes to exactly one member of the group, and every member gets some."""
    members = [sub(version, f"$share/group/{name}", name + "/end", qos=1) for _ in range(2)]
    command = [*_arguments("mosquitto_pub", broker, version), "-t", name, "-q", "1", "-l"]
    lines = [str(i).encode() for i in range(40)]
    subprocess.run(command, input=b"\n".join(lines) + b"\n", check=True, timeout=TIMEOUT_SECS)
    pub(broker, version, name + "/end", b"", 1)
    shares = []
    for member in members:
        share = []
        while (got := member.message()).topic != name + "/end":
            share.append(got.payload)
        shares.append(share)
    assert sorted(sum(shares, []), key=int) == lines
    assert all(shares), "a member of the group got nothing"


@every_version
def test_unsubscribe(sub, name, version):
    """mosquitto_sub -U unsubscribes as it connects, and is answered."""
    sub(version, name, qos=1, arguments=["-U", name + "/other"]).wait_logged("received UNSUBACK")


def test_properties_are_forwarded(broker, sub, name):
    """MQTT 5: all properties of a message reach the subscriber unchanged."""
    subscriber = sub(V5, name, qos=1, arguments=["-D", "subscribe", "subscription-identifier", "17"])
    properties = [
        ["payload-format-indicator", "1"],
        ["message-expiry-interval", "300"],
        ["content-type", "text/plain"],
        ["response-topic", "answers/here"],
        ["correlation-data", "order 66"],
        ["user-property", "b", "1"],
        ["user-property", "a", "2"],
        ["user-property", "b", "3"],
    ]
    pub(broker, V5, name, b"payload", 1, *(part for value in properties for part in ["-D", "publish", *value]))
    got = subscriber.message()
    assert int(got.properties.pop("expiry")) in range(290, 301)
    assert got.properties == {
        "format": "1",
        "subscription": "17",
        "content_type": "text/plain",
        "response_topic": "answers/here",
        "correlation_data": "order 66",
        "user": "b:1 a:2 b:3",
    }


def test_will_is_cancelled_by_return(broker, sub, name):
    """MQTT 5: a client that returns within its Will Delay Interval leaves no will."""
    watcher = sub(V5, name + "/#", qos=1)
    will = ["--will-topic", name + "/will", "--will-payload", "gone", "--will-qos", "1"]
    will += ["-D", "will", "will-delay-interval", "3600"]
    sub(V5, name + "/other", arguments=[*persistent(V5, name), *will]).kill()
    sub(V5, name + "/other", qos=1, arguments=["-E", *persistent(V5, name)]).wait_ended()
    pub(broker, V5, name + "/end", b"", 1)
    assert watcher.message().topic == name + "/end"
    end_session(broker, V5, name)


@pytest.mark.parametrize("version", ["v311", "v5"])
def test_request_and_response(broker, sub, name, version):
    """mosquitto_rr asks, mosquitto_sub and mosquitto_pub answer."""
    responder = sub(version, name + "/requests", qos=1)
    command = [*_arguments("mosquitto_rr", broker, version), "-q", "1", "-t", name + "/requests"]
    command += ["-e", name + "/responses", "-m", "6 * 7"]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        request = responder.message()
        assert request.payload == b"6 * 7"
        if version == V5:
            assert request.properties["response_topic"] == name + "/responses"
        pub(broker, version, name + "/responses", b"42", 1)
        assert asking.communicate(timeout=TIMEOUT_SECS)[0] == b"42\n"
    finally:
        asking.kill()
        asking.wait()
        asking.stdout.close()
