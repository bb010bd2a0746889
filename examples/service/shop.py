#!/usr/bin/env python3
"""Publishes orders: `shop.py [HOW MANY]`. BROKER is where the broker is."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

BROKER = os.environ.get("BROKER", "http://localhost:8080")


def publish(topic, order):
    """Publishes until it is acknowledged: then the broker has it on disk."""
    request = urllib.request.Request(
        f"{BROKER}/v1/topics/{topic}?qos=1",
        data=json.dumps(order).encode(),
        headers={
            "Content-Type": "application/json",
            # The same for each attempt: if only the acknowledgement was lost, the order is not published again.
            "Idempotency-Key": f'"{order["number"]}"',
        },
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # It is our mistake, and would be refused again.
            if error.code < 500:
                sys.exit(f"{order}: {error.read().decode()}")
        except OSError:
            pass
        time.sleep(1)


for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
    order = {"number": str(uuid.uuid4()), "item": "coffee"}
    publish("orders/new", order)
    print("ordered", order["number"], flush=True)
