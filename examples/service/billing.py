#!/usr/bin/env python3
"""Reads orders, and reads on where it was when it is started again. BROKER is where the broker is."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

BROKER = os.environ.get("BROKER", "http://localhost:8080")
CURSOR = Path(os.environ.get("CURSOR", "billing.cursor"))


def bill(order):
    print("billed", order["number"], flush=True)


def remember(cursor):
    """Replaces the file as a whole: a crash leaves the old cursor or the new one."""
    new = CURSOR.with_suffix(".new")
    with open(new, "w") as file:
        file.write(cursor)
        file.flush()
        os.fsync(file.fileno())
    new.replace(CURSOR)


def fetch(cursor):
    """The next messages; the broker answers when there is one, or after half a minute."""
    query = urllib.parse.urlencode({"topic": "orders/#", "since": cursor, "wait": "30s", "limit": 100})
    with urllib.request.urlopen(f"{BROKER}/v1/messages?{query}", timeout=60) as answer:
        return json.load(answer)


cursor = CURSOR.read_text() if CURSOR.exists() else "earliest"
while True:
    try:
        answer = fetch(cursor)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        if error.code == 410:
            # We were away for longer than the orders are kept. Somebody has to know.
            print("orders are missing:", problem["detail"], file=sys.stderr, flush=True)
            cursor = "earliest"
            continue
        if error.code < 500:
            sys.exit(f"{problem['title']}: {problem['detail']}")
        time.sleep(1)
        continue
    except OSError:
        # The broker is away.
        time.sleep(1)
        continue
    for message in answer["messages"]:
        bill(json.loads(message["payload"]))
    # Only now: what was not billed is read again.
    cursor = answer["cursor"]
    remember(cursor)
