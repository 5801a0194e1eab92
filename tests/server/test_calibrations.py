"""What is kept of calibrations, over real sockets and from a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from focusd.client import Client
from focusd.errors import RequestError
from focusd.focus.stack import calibrate
from tests.focus.exposures import exposure
from tests.server.daemon import Daemon


@pytest.fixture(scope="module")
def taken(threaded_daemon: Daemon) -> tuple[str, str]:
    """The ids of a good calibration and of one that reaches less far."""
    stacks = (np.arange(-half, half + 1, 4.0) for half in (100.0, 60.0))
    fingerprint = threaded_daemon.operations.autofocus.fingerprint
    curves = [calibrate([exposure(z) for z in planes], fingerprint, 0.5)[0] for planes in stacks]
    good, poor = (threaded_daemon.operations.calibrations.add(curve).id for curve in curves)
    return good, poor


@pytest.fixture
def client(threaded_daemon: Daemon, taken: tuple[str, str]) -> Iterator[Client]:
    """A client, with the good one in force."""
    with Client(threaded_daemon.endpoints.control, threaded_daemon.endpoints.events) as client:
        client.use_calibration(taken[0])
        yield client


def ctl(client: Client, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focusd.ctl", "calibrations", *arguments, "--endpoint", client.endpoint]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def in_force(client: Client) -> list[str]:
    return [line.id for line in client.calibrations().calibrations if line.in_force]


def test_they_are_listed_shown_put_in_force_and_removed(client: Client, taken: tuple[str, str]) -> None:
    good, poor = taken
    listed = {line.id: line for line in client.calibrations().calibrations}
    assert {good, poor} < set(listed), "and the one that the daemon began with"
    assert in_force(client) == [good]
    assert "reaches only 60 µm" in listed[poor].remark
    assert len(client.show_calibration(poor).curve.z_um) == 31

    client.use_calibration(poor)
    assert in_force(client) == [poor]
    with pytest.raises(RequestError, match="in force and cannot be removed"):
        client.remove_calibration(poor)
    client.use_calibration(good)

    for wrong in ("no such", "../../etc/passwd", ""):
        for ask in (client.show_calibration, client.use_calibration, client.remove_calibration):
            with pytest.raises(RequestError):
                ask(wrong)


def test_a_terminal_shows_which_one_is_in_force_and_changes_it(
    client: Client, taken: tuple[str, str]
) -> None:
    good, poor = taken
    shown = ctl(client)
    assert shown.returncode == 0, shown.stderr
    assert next(line for line in shown.stdout.splitlines() if good in line).count("in force") == 1
    assert f"{poor}: it reaches only 60 µm" in shown.stdout
    assert json.loads(ctl(client, "list", "--json").stdout) == client.calibrations().model_dump(mode="json")
    assert "fwhm_um" in ctl(client, "show", poor).stdout

    assert ctl(client, "use", poor).returncode == 0
    assert in_force(client) == [poor]
    refused = ctl(client, "remove", poor)
    assert (refused.returncode, "in force" in refused.stderr) == (1, True)
