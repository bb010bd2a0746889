"""Python's paho-mqtt with its callbacks turned into things that a test can wait for."""

import queue
import socket
import threading
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

TIMEOUT_SECS = 20

V31, V311, V5 = "v31", "v311", "v5"
VERSIONS = [V31, V311, V5]
_PROTOCOL = {V31: mqtt.MQTTv31, V311: mqtt.MQTTv311, V5: mqtt.MQTTv5}


@dataclass
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    properties: dict = field(default_factory=dict)
    packet_id: int = 0


@dataclass
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: dict = field(default_factory=dict)


class Refused(Exception):
    """The broker answered CONNECT with an error."""


def properties_of(packet_type, values):
    """`{"ContentType": "text/plain", ...}` as the Properties of one kind of packet; None for 3.x."""
    if not values:
        return None
    made = Properties(packet_type)
    for key, value in values.items():
        setattr(made, key, value)
    return made


def _as_dict(properties):
    if properties is None:
        return {}
    return {key: getattr(properties, key) for key in properties.__dict__ if key not in ("types", "properties", "names", "packetType")}


class Paho:
    """A connected client. It never reconnects by itself: a lost connection is something the test wants to see."""

    def __init__(
        self, broker, version, client_id="", *, clean=True, expiry=None, will=None, manual_ack=False, keep_alive=60, properties=None
    ):
        self.version = version
        self.connack_properties = {}
        self.session_present = None
        self.pings = queue.Queue()
        self.close_reason = None
        self._connected = queue.Queue()
        self._answers = {}
        self._answer_arrived = threading.Condition()
        self._messages = queue.Queue()
        self._closed = threading.Event()
        clean_session = None if version == V5 else clean
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_session,
            protocol=_PROTOCOL[version],
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        self.paho.max_inflight_messages_set(100)
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = self._on_message
        self.paho.on_subscribe = self._on_answer
        self.paho.on_unsubscribe = self._on_answer
        self.paho.on_publish = self._on_answer
        self.paho.on_log = self._on_log
        if will is not None:
            self.paho.will_set(
                will.topic, will.payload, will.qos, will.retain, properties_of(PacketTypes.WILLMESSAGE, will.properties)
            )
        arguments = {}
        if version == V5:
            values = dict(properties or {})
            if expiry is not None:
                values["SessionExpiryInterval"] = expiry
            arguments = {"clean_start": clean, "properties": properties_of(PacketTypes.CONNECT, values)}
        self.paho.connect(broker.host, broker.port, keep_alive, **arguments)
        self.paho.loop_start()
        try:
            flags, reason, connack_properties = self._connected.get(timeout=TIMEOUT_SECS)
        except queue.Empty:
            self.close()
            raise AssertionError("no CONNACK") from None
        if reason.is_failure:
            self.close()
            raise Refused(str(reason))
        self.session_present = flags.session_present
        self.connack_properties = _as_dict(connack_properties)

    def _on_connect(self, _client, _userdata, flags, reason, properties):
        self._connected.put((flags, reason, properties))

    def _on_disconnect(self, _client, _userdata, flags, reason, _properties):
        # Only a DISCONNECT packet carries a reason of the broker's.
        self.close_reason = reason.value if flags.is_disconnect_packet_from_server else None
        self._closed.set()

    def _on_message(self, _client, _userdata, message):
        self._messages.put(
            Message(
                message.topic,
                message.payload,
                message.qos,
                bool(message.retain),
                bool(message.dup),
                _as_dict(message.properties),
                message.mid,
            )
        )

    def _on_answer(self, _client, _userdata, mid, reasons, _properties):
        with self._answer_arrived:
            self._answers[mid] = reasons
            self._answer_arrived.notify_all()

    def _on_log(self, _client, _userdata, _level, text):
        if text.startswith("Received PINGRESP"):
            self.pings.put(text)

    def _answer(self, mid):
        with self._answer_arrived:
            assert self._answer_arrived.wait_for(lambda: mid in self._answers, TIMEOUT_SECS), "the broker did not answer"
            return self._answers.pop(mid)

    def subscribe(self, topic_filter, qos=0, *, options=None, properties=None):
        """Subscribes, waits for SUBACK and gives its code: the granted QoS, or 0x80 and above."""
        if self.version == V5:
            _, mid = self.paho.subscribe(
                topic_filter,
                options=SubscribeOptions(qos=qos, **(options or {})),
                properties=properties_of(PacketTypes.SUBSCRIBE, properties),
            )
        else:
            _, mid = self.paho.subscribe(topic_filter, qos)
        return self._answer(mid)[0].value

    def unsubscribe(self, topic_filter):
        """Unsubscribes and waits for UNSUBACK; its code in MQTT 5."""
        _, mid = self.paho.unsubscribe(topic_filter)
        reasons = self._answer(mid)
        return reasons[0].value if reasons else None

    def publish(self, topic, payload=b"", qos=0, retain=False, properties=None, wait=True):
        """Publishes and waits until the broker has it; the Reason Code of PUBACK or PUBCOMP in MQTT 5."""
        info = self.paho.publish(topic, payload, qos, retain, properties_of(PacketTypes.PUBLISH, properties))
        if not wait:
            return info.mid
        return self.wait_published(info.mid)

    def wait_published(self, mid):
        return self._answer(mid).value

    def message(self):
        """The next message, in the order of arrival."""
        try:
            return self._messages.get(timeout=TIMEOUT_SECS)
        except queue.Empty:
            raise AssertionError("no message arrived") from None

    def messages(self, count):
        return [self.message() for _ in range(count)]

    def nothing_else(self):
        """No message is waiting. Meaningful behind something that makes sure that all would be there."""
        assert self._messages.empty(), f"unexpected: {list(self._messages.queue)}"

    def ack(self, message):
        self.paho.ack(message.packet_id, message.qos)

    def wait_closed(self):
        """Waits until the broker has closed the connection; the Reason Code of its DISCONNECT in MQTT 5."""
        assert self._closed.wait(TIMEOUT_SECS), "the connection is still open"
        return self.close_reason

    def disconnect(self, reason=None, properties=None):
        """An MQTT DISCONNECT, then the end of the connection."""
        if self.version == V5:
            code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason or 0)
            self.paho.disconnect(reasoncode=code, properties=properties_of(PacketTypes.DISCONNECT, properties))
        else:
            self.paho.disconnect()
        self.wait_closed()
        self.paho.loop_stop()

    def abort(self):
        """The end of the connection without a DISCONNECT, as when a device loses power."""
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        self.wait_closed()
        self.paho.loop_stop()

    def close(self):
        if not self._closed.is_set() and self.paho.socket() is not None:
            self.paho.disconnect()
        self.paho.loop_stop()
