"""What a client has been given of events is on disk; a disk that hangs keeps nobody waiting for long."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from focusd.service import record
from tests.wire.daemon import Daemon
from tests.wire.test_server import client_of

pytestmark = pytest.mark.anyio
COMMIT = record._run


@pytest.fixture
def committing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something before each commit: what a slow disk does."""

    def before(wait: Callable[[], object]) -> None:
        def commit(*args: Any) -> None:
            wait()
            COMMIT(*args)

        monkeypatch.setattr(record, "_run", commit)

    return before


def on_disk(daemon: Daemon) -> set[tuple[str, int]]:
    """As another process sees it."""
    database = sqlite3.connect(daemon.record._path)
    try:
        return set(database.execute("SELECT session, seq FROM events").fetchall())
    finally:
        database.close()


async def test_a_subscriber_is_given_what_is_on_disk_already(
    daemon: Daemon, committing: Callable[[Callable[[], object]], None]
) -> None:
    async with client_of(daemon) as client, client.events("drift") as drift:
        committing(lambda: time.sleep(0.1))
        for number in range(3):
            daemon.bus.publish("drift", {"number": number})
            event = await anext(drift)
            assert event["data"] == {"number": number}
            assert (event["session"], event["seq"]) in on_disk(daemon)


async def test_events_since_answers_what_is_on_disk_already(
    daemon: Daemon, committing: Callable[[Callable[[], object]], None]
) -> None:
    async with client_of(daemon) as client:
        before = daemon.bus.publish("drift", {})
        committing(lambda: time.sleep(0.1))
        daemon.bus.publish("drift", {"number": 1})
        events = (await client.since(before["seq"]))["events"]
    kept = {(event["session"], event["seq"]) for event in events if event["topic"] != "heartbeat"}
    assert kept
    assert kept <= on_disk(daemon)


async def test_a_disk_that_hangs_is_reported_once_and_events_go_on_until_it_answers_again(
    daemon: Daemon,
    committing: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    async with client_of(daemon) as client, client.events("drift") as drift:
        await daemon.record.since("none", 0, 1)
        with capture_logs() as logs, monkeypatch.context() as impatient:
            impatient.setattr(record, "_PATIENCE_S", 0.05)
            committing(answers.wait)
            try:
                published = [daemon.bus.publish("drift", {"number": number}) for number in range(2)]
                with anyio.fail_after(5):
                    given = [await anext(drift), await anext(drift)]
                    daemon.bus.publish("drift", {"number": 2})
                    await anext(drift)
                    assert (await client.since(0))["events"]
                assert not {(event["session"], event["seq"]) for event in published} & on_disk(daemon)
            finally:
                answers.set()
        await daemon.record.since("none", 0, 1)  # all that waited is on disk
        daemon.bus.publish("drift", {"number": 3})
        event = await anext(drift)
        assert (event["session"], event["seq"]) in on_disk(daemon)
    assert [event["data"]["number"] for event in given] == [0, 1]
    assert [entry["event"] for entry in logs] == [
        "the disk does not answer: events go out before they are on record"
    ]
