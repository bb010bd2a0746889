"""Every kind of client, in every version it speaks, behind one face: subscribe to a filter, publish a message."""

import os
import queue
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

from broker import REPOSITORY
from mosquitto_tools import Sub, pub
from paho_client import TIMEOUT_SECS, V5, Paho

V31, V311 = "v31", "v311"
NODE_PEER = Path(__file__).resolve().parents[1] / "node" / "peer.mjs"
# rumqttc has no MQTT 3.1.
PEERS = [(kind, version) for kind in ("paho", "mosquitto", "node", "rumqttc") for version in (V31, V311, V5)]
PEERS.remove(("rumqttc", V31))


@dataclass
class Received:
    topic: str
    qos: int
    payload: bytes
    user_properties: list = field(default_factory=list)


def _command(kind):
    if kind == "node":
        return ["node", str(NODE_PEER)]
    built = os.environ.get("TIDINGS_RUMQTTC_PEER", REPOSITORY / "target" / "debug" / "examples" / "rumqttc_peer")
    return [str(built)]


class Subscriber:
    """A client of some kind that is subscribed when the constructor returns."""

    def __init__(self, kind, version, broker, topic_filter):
        self.kind, self.version = kind, version
        if kind == "paho":
            self._client = Paho(broker, version)
            assert self._client.subscribe(topic_filter, 2) == 2
        elif kind == "mosquitto":
            self._client = Sub(broker, version, topic_filter, qos=2)
        else:
            self._client = _Process([*_command(kind), "sub", version, f"{broker.host}:{broker.port}", topic_filter])

    def message(self):
        got = self._client.message()
        if isinstance(got, Received):
            return got
        user = got.properties.get("UserProperty") or got.properties.get("user") or []
        if isinstance(user, str):  # mosquitto_sub: `name:value name:value`
            user = [tuple(pair.split(":")) for pair in user.split(" ")]
        return Received(got.topic, got.qos, got.payload, user)

    def close(self):
        self._client.close()


class _Process:
    """peer.mjs or rumqttc_peer."""

    def __init__(self, command):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._line() == ["subscribed"]

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line.decode().rstrip("\n").split("\t"))

    def _line(self):
        try:
            return self._lines.get(timeout=TIMEOUT_SECS)
        except queue.Empty:
            raise AssertionError(f"{self._process.args} said nothing more") from None

    def message(self):
        _, topic, qos, payload, *user = self._line()
        return Received(topic, int(qos), bytes.fromhex(payload), [tuple(pair.split("=")) for pair in user])

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT_SECS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(TIMEOUT_SECS)
            self._process.stdout.close()


def publish(kind, version, broker, topic, payload, qos, user_properties=()):
    """Publishes one message with a client of some kind, with user properties in MQTT 5."""
    properties = list(user_properties) if version == V5 else []
    if kind == "paho":
        client = Paho(broker, version)
        client.publish(topic, payload, qos, properties={"UserProperty": properties} if properties else None)
        client.disconnect()
    elif kind == "mosquitto":
        options = [part for name, value in properties for part in ("-D", "publish", "user-property", name, value)]
        pub(broker, version, topic, payload, qos, *options)
    else:
        command = [*_command(kind), "pub", version, f"{broker.host}:{broker.port}", topic, str(qos)]
        command += [f"{name}={value}" for name, value in properties]
        subprocess.run(command, input=payload, check=True, timeout=TIMEOUT_SECS)
