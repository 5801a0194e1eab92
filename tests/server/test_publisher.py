"""What a client has been given of events is on disk; a disk that hangs keeps nobody waiting for long."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import zmq
import zmq.asyncio
from structlog.testing import capture_logs

from focusd.daemon import record
from focusd.server import publisher
from tests.server.daemon import Daemon, running_daemon
from tests.server.test_server import client_of
from tests.told import told

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
            assert event.data == {"number": number}
            assert (event.session, event.seq) in on_disk(daemon)


async def test_events_since_answers_what_is_on_disk_already(
    daemon: Daemon, committing: Callable[[Callable[[], object]], None]
) -> None:
    async with client_of(daemon) as client:
        before = daemon.bus.publish("drift", {})
        committing(lambda: time.sleep(0.1))
        daemon.bus.publish("drift", {"number": 1})
        events = (await client.since(before["seq"])).events
    kept = {(event.session, event.seq) for event in events if event.topic != "heartbeat"}
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
                    assert (await client.since(0)).events
                assert not {(event["session"], event["seq"]) for event in published} & on_disk(daemon)
            finally:
                answers.set()
        await daemon.record.since("none", 0, 1)  # all that waited is on disk
        daemon.bus.publish("drift", {"number": 3})
        event = await anext(drift)
        assert (event.session, event.seq) in on_disk(daemon)
    assert [event.data["number"] for event in given] == [0, 1]
    assert [entry["event"] for entry in logs] == [
        "the disk does not answer: events go out before they are on record"
    ]


async def test_whoever_subscribes_anew_all_the_time_puts_nothing_on_record(daemon: Daemon) -> None:
    async with client_of(daemon) as client, client.events() as monitor:
        await anyio.sleep(0.2)
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.connect(daemon.endpoints.events)
            for _ in range(20):
                socket.subscribe(b"focusd/1/state")
                await anyio.sleep(0.01)
                socket.unsubscribe(b"focusd/1/state")
        daemon.bus.publish("log", {"the": "end"})
        seen = [await anext(monitor)]
        while seen[-1].topic != "log":
            seen.append(await anext(monitor))
        remembered = told(daemon.bus.since(0, 1000))
    assert sum(event["topic"] == "state" for event in remembered) == 1
    assert len(on_disk(daemon)) <= 2
    numbers = [event.seq for event in seen]
    assert numbers == sorted(numbers)


async def test_a_new_subscriber_is_told_the_state_and_has_missed_nothing(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        await anyio.sleep(0.2)
        for number in range(5):
            daemon.bus.publish("log", {"number": number})
        async with client.events() as events:
            state = await anext(events)
            daemon.bus.publish("drift", {})
            after = await anext(events)
            while after.topic != "drift":  # a heartbeat may come in between
                state, after = after, await anext(events)
    assert after.seq == state.seq + 1


async def test_what_xpub_does_not_expect_leaves_the_others_served(daemon: Daemon) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.connect(daemon.endpoints.events)
        await socket.send(b"\1focusd/1/")
        await socket.recv_multipart()
        for frames in ([b"\1"], [b"\2x"], [b""], [b"\1a", b"b"], [b"x" * 900, b"", b"\1"], [b"\0" * 900]):
            await socket.send_multipart(frames)
        async with client_of(daemon) as client, client.events("drift") as drift:
            daemon.bus.publish("drift", {"number": 1})
            with anyio.fail_after(10):
                assert (await anext(drift)).data == {"number": 1}


async def test_its_thread_ends_in_peace_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "END_S", 0.0)
    for _ in range(3):
        async with running_daemon() as daemon:
            (thread,) = (one for one in threading.enumerate() if one.name == "focusd-subscribers")
            for number in range(5000):  # more than its queue holds
                daemon.bus.publish("heartbeat", {"number": number})
        thread.join(10)
        assert not thread.is_alive()
