"""Starts a real broker for the client tests and ends it again.

The broker is the `tidings` binary (`TIDINGS_BIN`, else `target/debug/tidings`), on a port that the system
chooses, with an empty directory of its own. `TIDINGS_TEST_BROKER=host:port` points the tests at a broker that
already runs instead: a way to find out whether a test is wrong or the broker is.
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

# A debug build on a loaded machine is slow to start. Nothing ever waits this long when all is well.
START_TIMEOUT_SECS = 30
STOP_TIMEOUT_SECS = 20

# `mqtt=127.0.0.1:1883 http=[::1]:8080`
ADDRESS = r"\b{}=\"?(?P<host>\[[^\]]+\]|[^\s,:\"]+):(?P<port>\d+)"
READY = re.compile(r"\bready\b.*" + ADDRESS.format("mqtt"))
HTTP = re.compile(ADDRESS.format("http"))
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Broker:
    def __init__(self):
        self.log = []
        self._process = None
        # `http://127.0.0.1:8080`; None for one that already runs.
        self.url = None
        external = os.environ.get("TIDINGS_TEST_BROKER")
        if external:
            self.host, port = external.rsplit(":", 1)
            self.port = int(port)
            return
        self._directory = tempfile.TemporaryDirectory(prefix="tidings-")
        binary = os.environ.get("TIDINGS_BIN", REPOSITORY / "target" / "debug" / "tidings")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
        environment["TIDINGS_MQTT_LISTEN"] = "127.0.0.1:0"
        environment["TIDINGS_HTTP_LISTEN"] = "127.0.0.1:0"
        environment["TIDINGS_STORE_PATH"] = os.path.join(self._directory.name, "data")
        self._process = subprocess.Popen(
            [binary],
            cwd=self._directory.name,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.host = self.port = None
        self._ready = threading.Event()
        # The pipe is read to its end: a broker that logs must never block on us.
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_TIMEOUT_SECS) or self.port is None:
            self._process.kill()
            raise RuntimeError("the broker did not become ready; its log:\n" + "\n".join(self.log))

    def _read_log(self):
        for line in self._process.stderr:
            line = COLOUR.sub("", line.rstrip("\n"))
            self.log.append(line)
            if self.port is None and (found := READY.search(line)):
                self.host = found["host"].strip("[]")
                self.port = int(found["port"])
                if http := HTTP.search(line):
                    self.url = f"http://{http['host']}:{http['port']}"
                self._ready.set()
        self._ready.set()

    def stop(self):
        """Ends the broker as systemd would, and expects it to go in good order."""
        if self._process is None:
            return
        try:
            if self._process.poll() is not None:
                raise AssertionError(
                    f"the broker ended by itself with {self._process.returncode}; its log:\n" + "\n".join(self.log)
                )
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait(STOP_TIMEOUT_SECS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(STOP_TIMEOUT_SECS)
            self._directory.cleanup()
        assert code == 0, f"the broker ended with {code} after SIGTERM; its log:\n" + "\n".join(self.log)
        panics = [line for line in self.log if "panicked" in line]
        assert not panics, f"the broker panicked: {panics}"
