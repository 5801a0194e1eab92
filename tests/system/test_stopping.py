"""The end of a daemon: a signal ends the running job safely, answers who waits, and the exit code is 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path

import pytest
from mm_test_adapters import device_adapter_path

from focusd.errors import CancelledJobError
from focusd.storage.claims import claim
from focusd.storage.files import unsealed
from tests.system.conftest import Bench
from tests.system.daemon import Daemon, command, failed_start, rig, running, write

ENDING = [signal.SIGTERM, signal.SIGINT]
if sys.platform != "win32":
    ENDING += [signal.SIGHUP, signal.SIGQUIT]


def send_until_it_ends(daemon: Daemon, numbers: list[signal.Signals]) -> int:
    """The exit code of a daemon that is sent signals again and again."""
    for number in cycle(numbers):
        with suppress(subprocess.TimeoutExpired):
            return daemon.process.wait(0.02)
        daemon.process.send_signal(number)
    raise AssertionError


@pytest.mark.parametrize("numbers", [[number] for number in ENDING] + [ENDING], ids=str)
def test_a_signal_in_mid_calibration_ends_the_daemon_cleanly(
    tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    with (
        running(tmp_path, rig(tmp_path / "state")) as daemon,
        ThreadPoolExecutor() as pool,
        daemon.connect("waiting") as waiting,
        daemon.client.events("focus.progress", silence_s=30) as progress,
    ):
        daemon.client.move(7.0)
        answer = pool.submit(waiting.calibrate, step_um=0.5)
        next(progress)
        assert (send_until_it_ends(daemon, numbers) if numbers[1:] else daemon.end(numbers[0])) == 0
        error = answer.exception(10)

    assert isinstance(error, CancelledJobError)
    log = daemon.log.read_text(encoding="utf-8")
    assert numbers[0].name in log
    assert "Traceback" not in log
    assert not list((tmp_path / "state").rglob("calibrations/*")), "half a stack is no calibration"
    record = unsealed((tmp_path / "state" / "bench" / "rig.json").read_text(encoding="utf-8"))
    assert (record["z_um"], record["fault"]) == (7.0, None), (
        "the stage is back where it was, and it is said so"
    )


SLOW_TO_LEAVE = """
import sys, time
from pathlib import Path
from focusd import config, standalone

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(4)

slow = Slow()
standalone.SHUTDOWN_S = 1.5
standalone.run(config.load_config(Path(sys.argv[1])))
"""
"""Once all is closed, the interpreter takes long to go, as it does with torch on a busy machine."""


# Not strict: on a machine so busy that closing alone takes longer than the bound, the end is clean.
def test_an_interpreter_that_outlasts_the_bound_still_exits_0(tmp_path: Path) -> None:
    values = rig(tmp_path / "state")
    with running(tmp_path, values, lambda path: [sys.executable, "-c", SLOW_TO_LEAVE, str(path)]) as daemon:
        assert daemon.end() == 0


@pytest.fixture(scope="module")
def second(started_bench: Bench) -> subprocess.CompletedProcess[str]:
    """A daemon that was started with the configuration of the running one."""
    return failed_start(started_bench.daemon.config)


def test_a_second_daemon_of_the_same_rig_is_refused_before_it_touches_the_hardware(
    second: subprocess.CompletedProcess[str],
) -> None:
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("error: another focusd runs this rig (it holds ")
    assert line.endswith("stop it, or give this rig another name")


def test_a_rig_of_another_name_on_the_same_ports_is_refused(bench: Bench, tmp_path: Path) -> None:
    here = {"control": bench.daemon.control, "events": bench.daemon.events}
    refused = failed_start(write(tmp_path, rig(tmp_path, server=here)))
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"error: another focusd (or another program) is running on {bench.daemon.control}")
    assert "stop it, or set another address under [server] in the configuration" in last
    assert "Traceback" not in refused.stderr


def test_hardware_that_another_process_drives_is_refused_whatever_the_rig_is_called(tmp_path: Path) -> None:
    file = tmp_path / "rig.cfg"
    file.write_text("Device,Z,DemoCamera,DStage\n", encoding="utf-8")
    hardware = {"kind": "micromanager", "config_file": str(file), "adapter_path": device_adapter_path()}
    with ExitStack() as driver:
        claim(f"the file {file}", driver)
        refused = failed_start(write(tmp_path, rig(tmp_path) | {"microscope": hardware}))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: another focusd drives this hardware (")
    assert f"the file {file}): stop it first" in line


@pytest.mark.skipif(sys.platform == "win32", reason="of its own kind")
def test_it_runs_without_terminal_home_path_docstrings_and_a_folder_to_write_in(tmp_path: Path) -> None:
    """As a bare container or a careless script starts it."""

    def bare(config: Path) -> list[str]:
        given = [
            "env",
            "-i",
            "-C",
            "/proc",
            "PYTHONOPTIMIZE=2",
            f"PYTHONPATH={os.getcwd()}",
            "OMP_NUM_THREADS=1",
        ]
        return [*given, "/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command(config)]

    with running(tmp_path, rig(tmp_path / "state"), bare) as daemon:
        assert daemon.client.move(2.0).z_um == 2.0
        for number in range(3):
            opened = Path(f"/proc/{daemon.process.pid}/fd/{number}")
            assert not opened.exists() or str(opened.readlink()) == os.devnull
        assert daemon.end(signal.SIGHUP) == 0


def test_the_log_holds_one_json_object_a_line_and_nothing_below_its_level(bench: Bench) -> None:
    records = [json.loads(line) for line in bench.daemon.log.read_text(encoding="utf-8").splitlines()]
    assert "serving" in [record["event"] for record in records]
    assert "debug" not in [record["level"] for record in records]


def test_the_first_daemon_keeps_serving(bench: Bench, second: subprocess.CompletedProcess[str]) -> None:
    assert second.returncode != 0
    assert bench.daemon.answers()
    assert bench.daemon.client.move(2.0).z_um == 2.0
