"""Requests that schemathesis makes up from the description of the API, /openapi.json.

Whatever is sent, there is no 5xx, and status, Content-Type, headers and body are as described; what breaks the
description is refused. `schemathesis.toml` says how many there are and what is left out.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")

# All operations but the three that do not end, and the one that schemathesis has the description from.
OPERATIONS = 38


@pytest.mark.timeout(300)
def test_answers_are_as_described(broker, tmp_path):
    if broker.url is None:
        pytest.skip("a broker that already runs has no known address for HTTP")
    # For those who read: the topic is the example of the description, the payload not text.
    with urlopen(f"{broker.url}/v1/topics/sensors/kitchen/temperature?retain=true", data=b"\xff", timeout=20) as answer:
        assert answer.status == 200
    # Beside this Python: a virtual environment need not be in the path.
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "--config-file", CONFIGURATION, "run", f"{broker.url}/openapi.json", "--no-color"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    tested = re.search(r"^\s+Tested: (\d+)$", run.stdout, re.MULTILINE)
    assert tested and int(tested[1]) == OPERATIONS, run.stdout
