"""The record of events: complete, across restarts and kills; a corrupt file or a full disk costs no daemon."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from focusd.daemon.events import EventBus
from focusd.daemon.record import Record, recorded
from focusd.errors import FocusdError
from tests.storage.test_files import ODD, link_to_a_device
from tests.told import told

# ruff: noqa: ASYNC240 - looking at the files is the test
pytestmark = pytest.mark.anyio

WRITER = """
import anyio, os, signal, sys
from pathlib import Path
from focusd.daemon.events import EventBus
from focusd.daemon.record import Record

async def main():
    bus, record = EventBus(), Record(Path(sys.argv[1]))
    for number in range(500):
        record.write(bus.publish("drift", {"number": number}))
    events = await record.since(bus.session, 0, 10_000)
    print(bus.session, len(events), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


async def test_what_was_answered_survives_a_kill_and_a_monitor_catches_up_over_the_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "events.sqlite"
    ran = await anyio.run_process([sys.executable, "-c", WRITER, str(path)], check=False)
    assert ran.returncode == -signal.SIGKILL
    session, count = ran.stdout.decode().split()
    assert int(count) == 500

    bus = EventBus()
    with recorded(bus, path) as record:
        bus.publish("drift", {"number": 500})
        events = told(await record.since(session, 490, 10_000))
        page = told(await record.since(session, 0, 3))
        unknown = told(await record.since("never heard of", 7, 10_000))

    assert [event["data"]["number"] for event in events] == list(range(490, 501))
    assert [event["session"] for event in events] == [session] * 10 + [bus.session]
    assert [event["seq"] for event in page] == [1, 2, 3]
    assert len(unknown) == 501


async def test_heartbeats_and_progress_are_left_out(tmp_path: Path) -> None:
    bus = EventBus()
    with recorded(bus, tmp_path / "events.sqlite") as record:
        for topic in ("heartbeat", "focus.progress", "drift", "log"):
            bus.publish(topic, {})
        assert [event["topic"] for event in told(await record.since(bus.session, 0, 10))] == ["drift", "log"]


def scribbled(path: Path) -> None:
    """No database at all."""
    path.write_bytes(b"long enough to look at" * 1000)


def damaged(path: Path) -> None:
    """A database whose first page is whole and whose others are not."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, session, seq, body)")
        for number in range(2000):
            database.execute("INSERT INTO events VALUES (?, 's', ?, ?)", (number, number, "x" * 100))
    database.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


@pytest.mark.parametrize("harm", [scribbled, damaged])
async def test_a_corrupt_file_is_set_aside_and_reported(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "events.sqlite"
    harm(path)
    size, bus = path.stat().st_size, EventBus()
    with capture_logs() as logs, recorded(bus, path) as record:
        bus.publish("drift", {"z_um": 1.0})
        events = told(await record.since(bus.session, 0, 10))
    assert [event["data"] for event in events] == [{"z_um": 1.0}]
    (aside,) = tmp_path.glob("events.sqlite.corrupt-*")
    assert aside.stat().st_size == size
    assert [entry["event"] for entry in logs] == ["a corrupt record of events was set aside"]


# Not a device: SQLite's files get a mode, which as root would be the device's from then on if this failed.
@pytest.mark.parametrize("put", [put for put in ODD if put is not link_to_a_device])
@pytest.mark.parametrize("name", ["events.sqlite", "events.sqlite-wal", "events.sqlite-shm"])
async def test_whatever_lies_in_the_place_of_the_record_costs_no_event(
    tmp_path: Path, put: Callable[[Path], object], name: str
) -> None:
    put(tmp_path / name)
    bus = EventBus()
    with recorded(bus, tmp_path / "events.sqlite") as record:
        bus.publish("drift", {"z_um": 1.0})
        events = told(await record.since(bus.session, 0, 10))
    assert [event["data"] for event in events] == [{"z_um": 1.0}]


@pytest.mark.skipif(sys.platform == "win32", reason="removes no file that is open")
async def test_a_folder_that_is_removed_costs_no_later_event(tmp_path: Path) -> None:
    path, bus = tmp_path / "state" / "events.sqlite", EventBus()
    with recorded(bus, path) as record:
        for number in range(3):
            bus.publish("drift", {"number": number})
            events = told(await record.since(bus.session, 0, 10))
            assert [event["data"] for event in events] == [{"number": number}]
            shutil.rmtree(path.parent)


async def test_a_disk_that_refuses_is_reported_and_costs_only_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    bus = EventBus()
    with capture_logs() as logs, recorded(bus, tmp_path / "events.sqlite") as record:
        with monkeypatch.context() as patched:
            patched.setattr(Record, "_insert", full)
            for _ in range(5):
                bus.publish("drift", {})
            with contextlib.suppress(FocusdError):  # shares the fate of the writes it comes with
                await record.since(bus.session, 0, 10)
        bus.publish("drift", {"again": True})
        events = told(await record.since(bus.session, 0, 10))
    assert [event["data"] for event in events] == [{"again": True}]
    assert logs[0]["event"] == "the record of events cannot be written"
    assert "disk is full" in logs[0]["reason"]


async def test_the_oldest_go_first(tmp_path: Path) -> None:
    bus, record = EventBus(), Record(tmp_path / "events.sqlite", kept=50)
    try:
        for _ in range(2500):
            record.write(bus.publish("drift", {}))
        events = told(await record.since("never heard of", 0, 10_000))
    finally:
        record.close()
    assert events[-1]["seq"] == 2500
    assert 50 <= len(events) < 1050
