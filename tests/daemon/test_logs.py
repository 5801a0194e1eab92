"""Logs: readable by people or by machines, and warnings reach subscribers."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
import structlog

from focusd.config import LogConfig
from focusd.daemon.events import EventBus
from focusd.daemon.logs import configure_logging, forward_to
from tests.told import told


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # basicConfig(force=True) would close pytest's own handlers.
    root.handlers[:] = []
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """What has been logged; a thread writes it."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capsys.readouterr().err


def test_machines_get_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="json"))
    log = structlog.get_logger("focusd.test")
    log.debug("unseen")
    log.info("moved", z_um=1.5)
    logging.getLogger("other.library").warning("hot: %d", 7)
    try:
        raise KeyError("z")
    except KeyError:
        log.exception("broken")
    moved, hot, broken = [json.loads(line) for line in written(capsys).splitlines()]
    assert (moved["event"], moved["z_um"], moved["level"]) == ("moved", 1.5, "info")
    assert (hot["event"], hot["logger"]) == ("hot: 7", "other.library")
    assert "KeyError" in broken["exception"]


def test_people_get_a_console(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="console"))
    structlog.get_logger("focusd.test").info("moved", z_um=1.5)
    line = written(capsys)
    assert "moved" in line
    assert "z_um=1.5" in line
    assert not line.startswith("{")


@pytest.mark.anyio
async def test_warnings_reach_subscribers_from_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="json"))
    bus, heard = EventBus(), anyio.Event()
    with forward_to(bus), bus.subscribed(lambda event: heard.set()):
        log = structlog.get_logger("focusd.test")
        log.info("not for subscribers")
        thread = threading.Thread(target=log.warning, args=("stage is slow",), kwargs={"z_um": 2.0})
        thread.start()
        await heard.wait()
        thread.join()
    log.error("after the end")
    await anyio.lowlevel.checkpoint()
    (event,) = told(bus.since(0, 10))
    assert event["topic"] == "log"
    assert event["data"] == {
        "event": "stage is slow",
        "z_um": 2.0,
        "level": "warning",
        "logger": "focusd.test",
    }
    assert len(written(capsys).splitlines()) == 3


@pytest.mark.parametrize("reader_is_there", [True, False])
def test_a_pipe_that_nobody_reads_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, reader_is_there: bool
) -> None:
    reading, writing = os.pipe()
    if not reader_is_there:
        os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LogConfig(format="json"))
    log = structlog.get_logger("focusd.test")
    lines = 3000  # much more than a pipe holds
    logs = threading.Thread(target=lambda: [log.info("x" * 300) for _ in range(lines)], daemon=True)
    logs.start()
    logs.join(30)
    assert not logs.is_alive()
    if reader_is_there:
        os.close(reading)  # what is under way fails, so that the stream can be closed
    logging.shutdown()
    with suppress(BrokenPipeError):
        stream.close()


def test_the_end_waits_until_what_was_logged_is_written(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(LogConfig(format="json"))
    for number in range(100):
        structlog.get_logger("focusd.test").info("line", number=number)
    logging.shutdown()
    assert len(capfd.readouterr().err.splitlines()) == 100
