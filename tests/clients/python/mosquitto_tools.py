"""Debian's mosquitto_sub and mosquitto_pub as processes that a test can talk to.

mosquitto_sub is never ended by SIGINT or SIGTERM: its signal handler calls into its library, and may hang when the
signal comes at the wrong moment. It ends by itself (`-C count`, `-E`) or is killed.
"""

import queue
import subprocess
import threading

from paho_client import TIMEOUT_SECS, V5, Message

V31, V311 = "v31", "v311"
VERSIONS = [V31, V311, V5]

# One line per message; the fields that may hold anything come as hexadecimal digits or last.
_FORMAT = r"MESSAGE\t%t\t%q\t%r\t%x\t%E\t%F\t%S\t%C\t%R\t%D\t%P"
_FORMAT_V3 = r"MESSAGE\t%t\t%q\t%r\t%x"


def _arguments(tool, broker, version):
    return [tool, "-h", broker.host, "-p", str(broker.port), "-V", f"mqtt{version}"]


def _properties(fields):
    names = ["expiry", "format", "subscription", "content_type", "response_topic", "correlation_data", "user"]
    return {name: value for name, value in zip(names, fields, strict=True) if value}


class Sub:
    """A running mosquitto_sub. It is ready when the constructor returns: SUBACK has arrived."""

    def __init__(self, broker, version, *filters, qos=0, arguments=()):
        self.version = version
        self.log = []
        self._messages = queue.Queue()
        self._logged = threading.Condition()
        # Without stdbuf the tool would keep its lines to itself until it has a block full of them.
        command = ["stdbuf", "-oL", *_arguments("mosquitto_sub", broker, version), "-d", "-q", str(qos)]
        command += ["-F", _FORMAT if version == V5 else _FORMAT_V3]
        for topic_filter in filters:
            command += ["-t", topic_filter]
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_logged("received SUBACK")

    def _read(self):
        for line in self.process.stdout:
            text = line.decode().rstrip("\n")
            if text.startswith("MESSAGE\t"):
                topic, qos, retain, payload, *rest = text.split("\t")[1:]
                properties = _properties(rest) if rest else {}
                self._messages.put(Message(topic, bytes.fromhex(payload), int(qos), retain == "1", False, properties))
                continue
            with self._logged:
                self.log.append(text)
                self._logged.notify_all()

    def wait_logged(self, part, times=1):
        """Waits until a line with `part` was written that many times."""
        with self._logged:
            assert self._logged.wait_for(lambda: sum(part in line for line in self.log) >= times, TIMEOUT_SECS), (
                f"mosquitto_sub did not say {part!r}: {self.log}"
            )

    def message(self):
        try:
            return self._messages.get(timeout=TIMEOUT_SECS)
        except queue.Empty:
            raise AssertionError(f"no message arrived: {self.log}") from None

    def messages(self, count):
        return [self.message() for _ in range(count)]

    def nothing_else(self):
        assert self._messages.empty(), f"unexpected: {list(self._messages.queue)}"

    def wait_ended(self):
        """Waits until the tool has ended by itself (`-C count`, `-E`), which it does with a DISCONNECT."""
        assert self.process.wait(TIMEOUT_SECS) == 0, self.log

    def kill(self):
        """Ends the tool as a crash would: its connection is closed without DISCONNECT."""
        self.process.kill()
        self.process.wait(TIMEOUT_SECS)

    def close(self):
        self.kill()
        self._reader.join(TIMEOUT_SECS)
        self.process.stdout.close()


def pub(broker, version, topic, payload=b"", qos=0, *arguments):
    """mosquitto_pub: ends when the message is acknowledged. Gives what it said on the way."""
    command = [*_arguments("mosquitto_pub", broker, version), "-d", "-t", topic, "-q", str(qos), *arguments]
    # `-s` reads the payload from stdin and refuses an empty one, which is `-n`.
    command.append("-s" if payload else "-n")
    done = subprocess.run(command, input=payload, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_SECS)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()
