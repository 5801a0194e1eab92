"""What a service manager hears of a real daemon: the truth, and nothing when the daemon makes no progress."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.system.daemon import command, rig, running
from tests.system.manager import WATCHDOG_S, service_manager


def test_it_is_told_when_the_daemon_serves_works_and_stops(tmp_path: Path) -> None:
    values = rig(tmp_path / "state")
    with service_manager(tmp_path) as manager, running(tmp_path, values, manager.starts(command)) as daemon:
        manager.hear_until("READY=1")
        assert not any("READY" in message for message in manager.heard[:-1])
        assert daemon.client.ping()
        assert "not calibrated" in manager.hear_until("STATUS=idle; z = 0.00 µm")
        daemon.client.calibrate(step_um=2.0, wait=False)
        manager.hear_until("STATUS=calibrate for test; z = ")
        manager.hear_until("WATCHDOG=1")
        assert daemon.end() == 0
        assert "STATUS=stopping" in manager.hear_until("STOPPING=1")


def test_a_daemon_whose_hardware_does_not_open_is_never_ready(tmp_path: Path) -> None:
    values = rig(tmp_path / "state", microscope={"sample": "cheese"})
    with service_manager(tmp_path) as manager:
        with (
            pytest.raises(AssertionError, match="cheese"),
            running(tmp_path, values, manager.starts(command)),
        ):
            pass
        while manager.hear(0.001):
            pass
    assert not any("READY" in message for message in manager.heard)


BLOCKED_ON_SIGNAL = """
import signal, sys, time
from pathlib import Path
from focusd import config, standalone
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))  # handlers run in the event loop's thread
standalone.run(config.load_config(Path(sys.argv[1])))
"""


def test_a_blocked_event_loop_gives_no_sign_of_life(tmp_path: Path) -> None:
    with service_manager(tmp_path) as manager:
        start = manager.starts(lambda path: [sys.executable, "-c", BLOCKED_ON_SIGNAL, str(path)])
        with running(tmp_path, rig(tmp_path / "state"), start) as daemon:
            manager.hear_until("READY=1")
            assert manager.pings_within(2 * WATCHDOG_S) > 0
            daemon.process.send_signal(signal.SIGUSR1)
            manager.pings_within(WATCHDOG_S)
            assert manager.pings_within(2 * WATCHDOG_S) == 0
            daemon.process.kill()


SCORER_HANGS = """
import sys, time
from pathlib import Path
from focusd import config, standalone
from focusd.daemon import watchdog
from focusd.scoring.scorer import Scorer
watchdog.STALL_S = 0.5
Scorer.score = lambda *_: time.sleep(600)
standalone.run(config.load_config(Path(sys.argv[1])))
"""


def test_a_job_that_hangs_ends_the_signs_of_life_and_status_still_answers(tmp_path: Path) -> None:
    values = rig(tmp_path / "state", stage={"timeout_s": 0.5})
    with service_manager(tmp_path) as manager:
        start = manager.starts(lambda path: [sys.executable, "-c", SCORER_HANGS, str(path)])
        with running(tmp_path, values, start) as daemon:
            manager.hear_until("READY=1")
            daemon.client.calibrate(wait=False)
            manager.pings_within(3 * WATCHDOG_S)
            assert manager.pings_within(2 * WATCHDOG_S) == 0
            job = daemon.client.state().job
            assert job is not None
            assert job.kind == "calibrate"
            assert "a job hangs" in daemon.log.read_text(encoding="utf-8")
            daemon.process.kill()


CAMERA_HANGS = """
import sys, time
from pathlib import Path
from focusd import config, standalone
from focusd.microscope.micromanager import MicroManagerMicroscope
MicroManagerMicroscope.snap = lambda *_: time.sleep(600)
standalone.run(config.load_config(Path(sys.argv[1])))
"""


def test_hardware_that_hangs_is_told_and_does_not_ask_for_a_restart(tmp_path: Path) -> None:
    values = rig(tmp_path / "state", stage={"timeout_s": 0.5})
    with service_manager(tmp_path) as manager:
        start = manager.starts(lambda path: [sys.executable, "-c", CAMERA_HANGS, str(path)])
        with running(tmp_path, values, start) as daemon:
            manager.hear_until("READY=1")
            daemon.client.calibrate(wait=False)
            manager.hear_until("STATUS=FAULT: the camera did not answer within 0.51 s")
            assert manager.pings_within(2 * WATCHDOG_S) > 0
