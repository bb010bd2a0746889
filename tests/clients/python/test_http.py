"""The HTTP edge with what services use: curl, httpx-sse and websockets.

A broker that already runs (`TIDINGS_TEST_BROKER`) tells no HTTP address, so these tests need one of their own.
"""

import base64
import contextlib
import json
import subprocess
import threading
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import connect_sse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ANSWER_TIMEOUT_SECS = 20
AWKWARD = "one\r\ntwo\rthree\n\n: four “ünï🌍”"


@pytest.fixture(scope="module", autouse=True)
def no_proxy():
    """A proxy of the environment is not meant for the loopback interface."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("no_proxy", "*")
        yield


@pytest.fixture(scope="module")
def url(broker):
    assert broker.url, "the broker names no HTTP address"
    return broker.url


def curl(*arguments, stdin=None):
    """What curl prints; an answer that is no success fails."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(ANSWER_TIMEOUT_SECS), *arguments],
        input=stdin,
        capture_output=True,
    )
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}{done.stdout.decode()}"
    return done.stdout


class Curl:
    """`curl -N` on an event stream; its events one after the other."""

    def __init__(self, *arguments):
        self._process = subprocess.Popen(["curl", "--silent", "--no-buffer", *arguments], stdout=subprocess.PIPE)
        self._timer = threading.Timer(ANSWER_TIMEOUT_SECS, self._process.kill)
        self._timer.start()

    def fields(self):
        """The fields of the next event; comments are left out."""
        fields = []
        for line in self._process.stdout:
            line = line.decode().rstrip("\n")
            if not line and fields:
                return fields
            if line and not line.startswith(":"):
                name, _, value = line.partition(":")
                fields.append((name, value.removeprefix(" ")))
        raise AssertionError("the stream ended")

    def event(self):
        """The next one with data, as a dictionary."""
        while True:
            fields = self.fields()
            if any(name == "data" for name, _ in fields):
                found = dict(fields)
                found["data"] = "\n".join(value for name, value in fields if name == "data")
                return found

    def opened(self):
        """Waits until the server has told the cursor: from here on nothing is missed."""
        while not any(name == "id" for name, _ in self.fields()):
            pass

    def close(self):
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def listening(url):
    opened = []

    def listen(name, *arguments, **query):
        parameters = "".join(f"&{key}={quote(value)}" for key, value in query.items())
        stream = Curl(*arguments, f"{url}/v1/events?topic={name}/%23{parameters}")
        opened.append(stream)
        stream.opened()
        return stream

    yield listen
    for stream in opened:
        stream.close()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_publishes_and_listens(url, listening, name, version):
    stream = listening(name, version)
    answer = json.loads(curl(version, "-d", "hello", f"{url}/v1/topics/{name}/a"))
    assert answer["matched"] == 1
    event = stream.event()
    message = json.loads(event["data"])
    assert (message["topic"], message["payload"], message["retain"]) == (f"{name}/a", "hello", False)
    assert message["id"] == event["id"]


def test_curl_publishes_bytes(url, listening, name):
    stream = listening(name)
    payload = bytes(range(256)) * 1024
    curl("--data-binary", "@-", f"{url}/v1/topics/{name}/bytes?qos=2", stdin=payload)
    message = json.loads(stream.event()["data"])
    assert base64.b64decode(message["payload_base64"]) == payload
    assert message["qos"] == 2


def test_curl_reads_raw_events(url, listening, name):
    stream = listening(name, format="raw")
    curl("--data-binary", "@-", f"{url}/v1/topics/{name}/a", stdin=b"one\ntwo")
    assert stream.event()["data"] == "one\ntwo"


def test_curl_keeps_reads_and_clears_a_retained_message(url, name):
    at = f"{url}/v1/topics/{name}/state"
    curl("-d", "on", f"{at}?retain=true&qos=1")
    assert curl(at) == b"on"
    curl("-X", "DELETE", at)
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{content_type}", at], capture_output=True, text=True
    )
    assert done.stdout == "404 application/problem+json"


def test_curl_polls(url, name):
    at = f"{url}/v1/messages?topic={name}/%23"
    cursor = json.loads(curl(f"{at}&wait=0s"))["cursor"]
    for number in range(5):
        curl("-d", str(number), f"{url}/v1/topics/{name}/n?qos=1")
    first = json.loads(curl(f"{at}&since={cursor}&limit=3&wait=10s"))
    second = json.loads(curl(f"{at}&since={first['cursor']}&limit=3&wait=10s"))
    assert [it["payload"] for it in first["messages"]] == ["0", "1", "2"]
    assert [it["payload"] for it in second["messages"]] == ["3", "4"]
    # One that waits is answered by what arrives.
    waiting = subprocess.Popen(
        ["curl", "-sS", "--max-time", str(ANSWER_TIMEOUT_SECS), f"{at}&since={second['cursor']}&wait=15s"],
        stdout=subprocess.PIPE,
    )
    curl("-d", "5", f"{url}/v1/topics/{name}/n?qos=1")
    answer, _ = waiting.communicate(timeout=ANSWER_TIMEOUT_SECS)
    assert [it["payload"] for it in json.loads(answer)["messages"]] == ["5"]


def events(client, url, name, **more):
    return connect_sse(client, "GET", f"{url}/v1/events", params={"topic": f"{name}/#", **more})


@pytest.fixture
def http():
    with httpx.Client(timeout=ANSWER_TIMEOUT_SECS) as client:
        yield client


def received(source):
    """What a browser would see: httpx-sse tells of the fields id and retry as events too, which have no data."""
    return (event for event in source.iter_sse() if event.data)


def publish(http, url, topic, payload, **query):
    answer = http.post(f"{url}/v1/topics/{topic}", content=payload, params={"qos": 1, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_httpx_sse_receives_and_resumes(http, url, name):
    with events(http, url, name) as source:
        publish(http, url, f"{name}/a", AWKWARD.encode())
        event = next(received(source))
        assert event.event == "message"
        assert event.json()["payload"] == AWKWARD
        assert event.json()["id"] == event.id
    for number in range(3):
        publish(http, url, f"{name}/n", str(number))
    headers = {"Last-Event-ID": event.id}
    with connect_sse(http, "GET", f"{url}/v1/events", params={"topic": f"{name}/#"}, headers=headers) as source:
        stream = received(source)
        assert [next(stream).json()["payload"] for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("parameter", ["last_event_id", "lastEventId", "lastEventID", "since"])
def test_httpx_sse_resumes_by_the_query(http, url, name, parameter):
    with events(http, url, name) as source:
        publish(http, url, f"{name}/n", "0")
        cursor = next(received(source)).id
    publish(http, url, f"{name}/n", "1")
    with events(http, url, name, **{parameter: cursor}) as source:
        assert next(received(source)).json()["payload"] == "1"


def test_httpx_sse_is_told_a_gap(http, url, name):
    with events(http, url, name, last_event_id="1.5") as source:
        publish(http, url, f"{name}/n", "after")
        stream = received(source)
        gap = next(stream)
        assert gap.event == "gap"
        assert isinstance(gap.json(), dict)
        assert next(stream).json()["payload"] == "after"


def test_httpx_sse_reads_several_filters(http, url, name):
    params = [("topic", f"{name}/a"), ("topic", f"{name}/+/b")]
    with connect_sse(http, "GET", f"{url}/v1/events", params=params) as source:
        for level in ["a", "c", "x/b", "a"]:
            publish(http, url, f"{name}/{level}", level)
        stream = received(source)
        assert [next(stream).json()["payload"] for _ in range(3)] == ["a", "x/b", "a"]


def test_a_raw_plus_in_a_query_is_explained(http, url):
    answer = http.get(f"{url}/v1/events?topic=a/+/b")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "%2B" in answer.json()["detail"]


class Socket:
    """The JSON protocol over Python's websockets."""

    def __init__(self, url):
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(
            connect(
                url.replace("http", "ws", 1) + "/v1/ws",
                subprotocols=["tidings.v1.json"],
                open_timeout=ANSWER_TIMEOUT_SECS,
                max_size=None,
            )
        )
        self.pushed = []
        self._serial = 0

    def receive(self):
        return json.loads(self.socket.recv(timeout=ANSWER_TIMEOUT_SECS))

    def ask(self, **request):
        self._serial += 1
        self.socket.send(json.dumps({**request, "id": self._serial}))
        while (said := self.receive()).get("id") != self._serial:
            self.pushed.append(said)
        return said

    def messages(self, count):
        while len(self.pushed) < count:
            self.pushed.append(self.receive())
        assert all(it["type"] == "message" for it in self.pushed), self.pushed
        return [it["message"] for it in self.pushed]

    def close(self):
        self._open.close()


@pytest.fixture
def sockets(url):
    opened = []

    def open_socket():
        opened.append(Socket(url))
        return opened[-1]

    yield open_socket
    for it in opened:
        it.close()


def test_websockets_publishes_and_subscribes(http, url, sockets, name):
    one, other = sockets(), sockets()
    assert one.socket.subprotocol == "tidings.v1.json"
    assert one.ask(type="subscribe", filter=f"{name}/#")["type"] == "ok"
    said = other.ask(type="publish", message={"topic": f"{name}/a", "payload": AWKWARD, "qos": 1})
    assert (said["type"], said["matched"]) == ("ok", 1)
    publish(http, url, f"{name}/b", b"\xff\x00")
    first, second = one.messages(2)
    assert (first["topic"], first["payload"], first["qos"]) == (f"{name}/a", AWKWARD, 1)
    assert second["payload_base64"] == "/wA="


def test_websockets_reads_a_large_message(sockets, name):
    one = sockets()
    one.ask(type="subscribe", filter=name)
    payload = "äö" * 100_000
    assert one.ask(type="publish", message={"topic": name, "payload": payload, "qos": 1})["type"] == "ok"
    assert one.messages(1)[0]["payload"] == payload


def test_websockets_keeps_a_connection_alive(sockets):
    """The library answers the server's pings, and the server those of the library."""
    one = sockets()
    assert one.socket.ping().wait(ANSWER_TIMEOUT_SECS)
    assert one.ask(type="ping")["type"] == "ok"


def test_websockets_resumes(http, url, sockets, name):
    one = sockets()
    one.ask(type="subscribe", filter=f"{name}/#")
    publish(http, url, f"{name}/n", "0")
    cursor = one.messages(1)[0]["id"]
    one.close()
    publish(http, url, f"{name}/n", "1")
    again = sockets()
    assert again.ask(type="subscribe", filter=f"{name}/#", since=cursor)["type"] == "ok"
    publish(http, url, f"{name}/n", "2")
    assert [it["payload"] for it in again.messages(2)] == ["1", "2"]


def test_websockets_is_closed_for_what_is_no_request(sockets):
    one = sockets()
    one.socket.send(b"binary")
    assert one.receive()["type"] == "goodbye"
    with pytest.raises(ConnectionClosed) as closed:
        one.receive()
    assert closed.value.rcvd.code == 4400
