"""A daemon that is killed, hangs on its hardware or is started twice finds a consistent state when it starts again."""

from __future__ import annotations

import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from focusd.config import load_config
from focusd.errors import HardwareError, RequestError, UnreachableError
from focusd.storage.files import unsealed
from focusd.storage.store import CalibrationStore
from tests.system.daemon import Daemon, rig, running

CAMERA_HANGS_WHILE_FLAG = """
import sys, time
from pathlib import Path
from focusd import config, standalone
from focusd.microscope.micromanager import MicroManagerMicroscope
snap, flag = MicroManagerMicroscope.snap, Path(sys.argv[2])
MicroManagerMicroscope.snap = lambda self: time.sleep(600) if flag.exists() else snap(self)
standalone.run(config.load_config(Path(sys.argv[1])))
"""


def wait_for_another(daemon: Daemon, session: str) -> None:
    """Return when another session answers: the old one may do so for a moment, and nobody does for some more."""
    deadline_s = time.perf_counter() + 90
    while time.perf_counter() < deadline_s:
        with suppress(UnreachableError):
            if daemon.client.ping().session != session:
                return
        time.sleep(0.05)
    raise AssertionError("the daemon did not start anew")


def test_after_a_hang_only_an_operator_connects_the_hardware_again(tmp_path: Path) -> None:
    flag = tmp_path / "hang"
    values = rig(tmp_path / "state", stage={"timeout_s": 0.5})
    start = lambda path: [sys.executable, "-c", CAMERA_HANGS_WHILE_FLAG, str(path), str(flag)]  # noqa: E731
    with running(tmp_path / "first", values, start) as daemon:
        with pytest.raises(RequestError, match="nothing to reconnect"):
            daemon.client.reconnect()
        flag.touch()
        with pytest.raises(HardwareError, match=r"the camera did not answer .* `focusctl reconnect`"):
            daemon.client.calibrate()
        assert daemon.end() == 0
    flag.unlink()
    with running(tmp_path / "second", values, start) as daemon:
        assert (daemon.client.state().fault or "").startswith(
            "disconnected since the last run: the camera did not"
        )
        asks: tuple[Any, ...] = (daemon.client.calibrate, lambda: daemon.client.move(5.0))
        for ask in asks:
            with pytest.raises(HardwareError, match="focusctl reconnect"):
                ask()
        before = daemon.client.ping().session
        assert daemon.client.reconnect().session == before
        wait_for_another(daemon, before)
        assert daemon.client.state().fault is None
        assert daemon.client.move(5.0).z_um == 5.0
        assert daemon.end() == 0


STAGE_HANGS_WHILE_FLAG = """
import sys, time
from pathlib import Path
from focusd import config, standalone
from focusd.microscope.micromanager import MicroManagerMicroscope
move_to, flag = MicroManagerMicroscope.move_to, Path(sys.argv[2])
MicroManagerMicroscope.move_to = lambda self, z_um: time.sleep(600) if flag.exists() else move_to(self, z_um)
standalone.run(config.load_config(Path(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_a_fault_that_no_file_can_hold_outlives_a_kill(tmp_path: Path) -> None:
    import resource

    flag = tmp_path / "hang"
    values = rig(tmp_path / "state", stage={"timeout_s": 0.5})
    start = lambda path: [sys.executable, "-c", STAGE_HANGS_WHILE_FLAG, str(path), str(flag)]  # noqa: E731
    with running(tmp_path / "first", values, start) as daemon:
        assert daemon.client.move(4.0).z_um == 4.0
        flag.touch()
        resource.prlimit(
            daemon.process.pid, resource.RLIMIT_FSIZE, (0, 0)
        )  # as a full disk refuses every write
        with pytest.raises(HardwareError, match="the stage did not answer"):
            daemon.client.move(5.0)
        deadline_s = time.perf_counter() + 30
        while not daemon.client.state().unrecorded and time.perf_counter() < deadline_s:
            time.sleep(0.05)
        assert "rig.json cannot be written: File too large" in (daemon.client.state().unrecorded or "")
        daemon.process.kill()
        daemon.process.wait()
    flag.unlink()
    with running(tmp_path / "second", values, start) as daemon:
        state = daemon.client.state()
        assert "it may have ended in a fault" in (state.fault or "")
        assert state.unrecorded is None
        assert state.z_um is None
        with pytest.raises(HardwareError, match="focusctl reconnect"):
            daemon.client.move(6.0)


def killed(daemon: Daemon, after_s: float) -> None:
    """Ask for a calibration, or a refocus where there is one, and kill the daemon after a time."""
    usable = daemon.client.state().calibration.usable
    (daemon.client.refocus if usable else daemon.client.calibrate)(wait=False)
    time.sleep(after_s)
    daemon.process.send_signal(signal.SIGKILL)
    assert daemon.process.wait() == -signal.SIGKILL


def consistent(daemon: Daemon) -> None:
    """What must hold after any kill."""
    config = load_config(daemon.config)
    state = config.state_dir / config.name
    record = unsealed((state / "rig.json").read_text(encoding="utf-8"))
    assert record["fault"] is None
    assert record["z_um"] is None or -150 <= record["z_um"] <= 150
    store = CalibrationStore(state / "calibrations")
    if store.path(config.objective.name).exists():
        assert store.load(config.objective.name).fwhm_um > 0
    assert not list(state.rglob("*.bad-*"))


def test_a_kill_at_any_moment_leaves_a_consistent_state(tmp_path: Path) -> None:
    moments = random.Random(6)
    values = rig(tmp_path / "state", calibration={"range_um": 20.0, "step_um": 4.0})
    for number in range(4):
        with running(tmp_path / str(number), values) as daemon:
            killed(daemon, moments.uniform(0, 0.5))
            consistent(daemon)
    with running(tmp_path / "last", values) as daemon:
        assert daemon.client.move(1.0).z_um == 1.0
        if not daemon.client.state().calibration.usable:
            daemon.client.calibrate()
        assert daemon.client.refocus().outcome == "focused"
