"""Fixtures that all Python client tests share."""

import itertools
import re
import secrets

import pytest

from broker import Broker

_RUN = secrets.token_hex(2)
_serial = itertools.count()


@pytest.fixture(scope="module")
def broker():
    """One broker for all tests of a file; that it survived them and ends in good order is a test too."""
    running = Broker()
    yield running
    running.stop()


@pytest.fixture
def name(request):
    """A name that no other test uses: a topic to live under, and a stem for Client Identifiers.

    It is kept short, because MQTT 3.1 limits a Client Identifier to 23 bytes, and it is new in each run, because a
    broker that already runs may remember the last one.
    """
    stem = re.sub(r"\W", "", request.node.name.removeprefix("test_"))[:10]
    return f"{stem}-{_RUN}-{next(_serial)}"


@pytest.fixture
def clients(broker):
    """Collects what a test opens and closes it afterwards, also when the test fails."""
    opened = []
    yield opened.append
    for client in reversed(opened):
        client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the broker had to say."""
    report = yield
    running = item.funcargs.get("broker") if hasattr(item, "funcargs") else None
    if report.failed and running is not None and running.log:
        report.sections.append(("broker log", "\n".join(running.log[-80:])))
    return report
