"""Clients of all kinds and versions talk to each other through one broker."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from paho_client import V5
from peers import PEERS, Subscriber, publish

SENT = [("Grüße".encode(), 0), (b"", 1), (bytes(range(256)), 1), (bytes(70_000), 2), (b"last", 2)]
# Each name once: Node's mqtt gathers the values of a repeated one, which loses their order among others.
USER_PROPERTIES = [("to", "all"), ("from", "one")]


@pytest.fixture
def everyone(broker, name):
    """One subscriber of each kind and version. They are processes for the most part, so they start side by side."""
    with ThreadPoolExecutor(len(PEERS)) as pool:
        starting = [pool.submit(Subscriber, kind, version, broker, f"interop/{name}/#") for kind, version in PEERS]
    started = [start.result() for start in starting if not start.exception()]
    try:
        yield [start.result() for start in starting]
    finally:
        for subscriber in started:
            subscriber.close()


@pytest.mark.parametrize(("kind", "version"), PEERS)
def test_everyone_hears(broker, everyone, name, kind, version):
    """What a client of one kind publishes reaches clients of all kinds once, unchanged, at the QoS it was sent with."""
    topic = f"interop/{name}/🌦"
    for payload, qos in SENT:
        publish(kind, version, broker, topic, payload, qos, USER_PROPERTIES)
        # Each is waited for before the next is sent, so that what comes twice is noticed.
        for subscriber in everyone:
            got = subscriber.message()
            who = f"{subscriber.kind} {subscriber.version}"
            assert (got.topic, got.qos, got.payload) == (topic, qos, payload), who
            expected = USER_PROPERTIES if version == subscriber.version == V5 else []
            assert got.user_properties == expected, who
