"""`focusctl` as a process, against a daemon in another."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DAEMON = Path(__file__).parent / "wire" / "daemon.py"
CTL = [sys.executable, "-m", "focusd.ctl"]


@pytest.fixture(scope="module")
def endpoints() -> Iterator[list[str]]:
    daemon = subprocess.Popen(
        [sys.executable, str(DAEMON)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with daemon:
        assert daemon.stdout
        assert daemon.stdin
        where = json.loads(daemon.stdout.readline())
        yield ["--endpoint", where["control"], "--events", where["events"]]
        daemon.stdin.close()
        assert daemon.wait() == 0


def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CTL, *arguments], capture_output=True, text=True, timeout=60)


def test_status_for_people_and_programs(endpoints: list[str]) -> None:
    shown = ctl("status", *endpoints[:2])
    assert shown.returncode == 0
    assert "z_um" in shown.stdout
    state = json.loads(ctl("status", "--json", *endpoints[:2]).stdout)
    assert state["rig"] == "scripted"
    assert state["job"] is None


def test_refocus_shows_its_progress_and_result(endpoints: list[str]) -> None:
    shown = ctl("refocus", *endpoints)
    assert shown.returncode == 0
    assert "exposures=1" in shown.stderr
    assert re.search(r"z_found\W+12.5 µm", shown.stdout)
    result = json.loads(ctl("refocus", "--json", "--roi", "1,2,3,4", *endpoints).stdout)
    assert result["roi"] == [1, 2, 3, 4]


def test_calibrate_shows_the_curve(endpoints: list[str]) -> None:
    shown = ctl("calibrate", "--range-um", "80", *endpoints)
    assert shown.returncode == 0
    assert re.search(r"fwhm\W+95 µm", shown.stdout)


def test_errors_are_one_line_and_exit_1(endpoints: list[str]) -> None:
    failed = ctl("refocus", "--strategy", "fail", *endpoints)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == "error: the field is empty; move to a textured one"
    wrong = ctl("refocus", "--max-exposures", "1", *endpoints)
    assert wrong.returncode == 1
    assert "max_exposures" in wrong.stderr
    assert ctl("refocus", "--roi", "1,2", *endpoints).returncode == 2


def test_reconnecting_what_is_not_at_fault_is_refused(endpoints: list[str]) -> None:
    refused = ctl("reconnect", *endpoints[:2])
    assert (refused.returncode, refused.stderr) == (1, "error: nothing to reconnect\n")


def test_an_absent_daemon_is_an_error_with_a_hint() -> None:
    absent = ctl("status", "--endpoint", "tcp://127.0.0.1:9")
    assert absent.returncode == 1
    assert "focusd run" in absent.stderr
    assert "--endpoint" in absent.stderr


def test_ctrl_c_cancels_the_job_and_monitor_logs_it(endpoints: list[str], tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with (
        subprocess.Popen(
            [*CTL, "monitor", "--log", str(log), *endpoints], stdout=subprocess.PIPE, text=True
        ) as monitor,
        subprocess.Popen(
            [*CTL, "refocus", "--strategy", "wait", *endpoints], stderr=subprocess.PIPE, text=True
        ) as waiting,
    ):
        assert waiting.stderr
        assert monitor.stdout
        assert "exposures=1" in waiting.stderr.readline()
        monitor.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(30) == 130
        assert "cancelled" in waiting.stderr.read()
        line = ""
        while "cancelled" not in line:
            line = monitor.stdout.readline()
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(30) == 130
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    numbers = [event["seq"] for event in logged]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert logged[-1]["topic"] in ("job", "state", "heartbeat")
    assert any(event["data"].get("state") == "cancelled" for event in logged)


def test_cancel_ends_the_running_job(endpoints: list[str]) -> None:
    assert "no job" in ctl("cancel", *endpoints[:2]).stdout
    with subprocess.Popen(
        [*CTL, "refocus", "--strategy", "wait", *endpoints], stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr
        waiting.stderr.readline()
        assert ctl("refocus", *endpoints).stderr.startswith("error: a refocus job of focusctl is running")
        assert ctl("cancel", *endpoints[:2]).returncode == 0
        assert waiting.wait(30) == 1
