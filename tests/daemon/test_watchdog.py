"""What a service manager is told, whatever clients call themselves and whatever this process has run out of."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from focusd.daemon.events import EventBus
from focusd.daemon.watchdog import Notifier
from tests.system.manager import Manager, service_manager

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no service manager of this kind")
HOSTILE = [
    "x\nWATCHDOG=trigger\nMAINPID=1",
    "x\r\nREADY=1",
    "x\x0bSTOPPING=1\x0cSTOPPING=1",
    "x\x85STOPPING=1\u2028STOPPING=1\u2029",
    "\x1b]0;title\x07\x1b[2J",
    "\ud800",
    "\u202emirrored",
    "x" * 1_000_000,
]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with service_manager(tmp_path) as manager:
        yield manager


def state_of(**values: Any) -> dict[str, Any]:
    return {"z_um": 1.0, "fault": None, "job": None, "calibration": None} | values


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
def test_a_status_is_one_printable_line_whatever_clients_are_called(manager: Manager, name: str) -> None:
    bus = EventBus()
    with (
        closing(Notifier({"NOTIFY_SOCKET": str(manager.address)})) as notifier,
        bus.subscribed(notifier.tell_state),
    ):
        for state in (
            state_of(job={"kind": "move", "client": name}),
            state_of(job={"kind": name, "client": ""}),
            state_of(fault=name),
        ):
            bus.publish("state", state)
            assert manager.hear(5)
            told = manager.heard[-1]
            assert told.startswith("STATUS=")
            assert told.isprintable()
            assert len(told) <= 1000


def test_signs_of_life_go_on_when_no_descriptor_is_left(manager: Manager) -> None:
    import resource

    with closing(Notifier({"NOTIFY_SOCKET": str(manager.address)})) as notifier, ExitStack() as resources:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resources.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        notifier.tell("WATCHDOG=1")
    assert manager.hear(5)
    assert manager.heard == ["WATCHDOG=1"]


@pytest.mark.parametrize("wanted", ["0", "²", "-1", "soon", ""])
def test_a_period_that_is_none_is_not_kept(wanted: str) -> None:
    assert Notifier({"WATCHDOG_USEC": wanted}).period_s is None


@pytest.mark.parametrize("address", ["/nowhere/notify", "x" * 200, "vsock:2:1234"])
def test_a_service_manager_that_is_not_there_is_no_trouble(address: str) -> None:
    with closing(Notifier({"NOTIFY_SOCKET": address})) as notifier:
        notifier.tell("READY=1")
