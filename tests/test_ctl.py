"""`focusctl` as a process, against a daemon in another."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from focusd import __version__
from focusd.ctl.following import follow
from focusd.errors import CancelledJobError
from focusd.protocol.events import read_event
from focusd.protocol.failure import Failure
from focusd.protocol.results import Started

DAEMON = Path(__file__).parent / "server" / "daemon.py"
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
    assert re.search(r"calibration.usable\W+(yes|no)\b", shown.stdout)
    state = json.loads(ctl("status", "--json", *endpoints[:2]).stdout)
    assert state["rig"] == "scripted"
    assert state["job"] is None


def test_refocus_shows_its_progress_and_result(endpoints: list[str]) -> None:
    shown = ctl("refocus", *endpoints)
    assert shown.returncode == 0
    assert "exposure=1  of=8" in shown.stderr
    assert re.search(r"z_found\W+12\.\d+ µm", shown.stdout)
    result = json.loads(ctl("refocus", "--json", "--roi", "1,2,3,4", *endpoints).stdout)
    assert result["z_found_um"] == pytest.approx(12.5, abs=0.5)


def test_refocus_looks_far_only_where_that_is_asked_for(endpoints: list[str]) -> None:
    shown = ctl("refocus", "--far", *endpoints)
    assert (shown.returncode, "exposure=1  of=20" in shown.stderr) == (0, True), shown.stderr
    refused = ctl("refocus", "--far", "--prior", "12,3", *endpoints)
    assert (refused.returncode, "leave out `prior`" in refused.stderr) == (1, True)


def test_calibrate_shows_the_curve(endpoints: list[str]) -> None:
    shown = ctl("calibrate", "--range-um", "80", *endpoints)
    assert shown.returncode == 0
    assert re.search(r"fwhm\W+1?\d\d\.\d+ µm", shown.stdout)
    assert "of=72" in shown.stderr, (
        "±80 µm, every 2.5, after a look at where the stage stands, and some planes twice"
    )


def test_flat_and_dark_frames_are_named_as_the_user_sees_them(
    endpoints: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = ctl("calibrate", "--dark", "missing.tif", *endpoints)
    assert failed.returncode == 1
    assert f"dark frame: there is no file {tmp_path / 'missing.tif'}" in failed.stderr


def test_errors_are_one_line_and_exit_1(endpoints: list[str]) -> None:
    failed = ctl("refocus", "--strategy", "fail", *endpoints)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "error: the field holds nothing to focus on; move to a textured field, or raise the exposure"
    )
    wrong = ctl("refocus", "--max-exposures", "1", *endpoints)
    assert wrong.returncode == 1
    assert "max_exposures" in wrong.stderr
    assert ctl("refocus", "--roi", "1,2", *endpoints).returncode == 2


def test_what_goes_into_a_pipe_is_utf8_whatever_the_system_would_write(endpoints: list[str]) -> None:
    windows = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    shown = subprocess.run([*CTL, "refocus", *endpoints], capture_output=True, timeout=60, env=windows)
    assert (shown.returncode, "σ" in shown.stdout.decode()) == (0, True), shown.stderr.decode()


def test_reconnecting_what_is_not_at_fault_is_refused(endpoints: list[str]) -> None:
    refused = ctl("reconnect", *endpoints[:2])
    assert (refused.returncode, refused.stderr) == (
        1,
        "error: the hardware is connected and not at fault: there is nothing to reconnect\n",
    )


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
        assert "exposure=1" in waiting.stderr.readline()
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


def test_refocus_draws_the_field(endpoints: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "field.svg"
    shown = ctl("refocus", "--strategy", "mapped", "--map", str(picture), *endpoints)

    assert (shown.returncode, "exposure=1" in shown.stderr) == (0, True), shown.stderr
    assert re.search(r"field\W+tilted: the focus changes by 30\.\d", shown.stdout)
    assert "tilt +30.00 ± " in picture.read_text(encoding="utf-8")


def test_a_picture_that_cannot_be_drawn_costs_no_exposure(endpoints: list[str], tmp_path: Path) -> None:
    wrong = ctl("refocus", "--map", str(tmp_path / "field.gif"), *endpoints)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "ends with .png, .svg, .pdf" in wrong.stderr
    assert "exposures" not in wrong.stderr


def test_the_map_from_a_terminal(endpoints: list[str], tmp_path: Path) -> None:
    control = endpoints[:2]
    ctl("map", "clear", *control)
    ctl("refocus", *endpoints)
    added = ctl("map", "add", "-100", "200", *control).stdout
    assert re.match(r"added z = 12\.\d\d ± 0\.\d\d µm; 1 positions", added)
    given = ctl("map", "add", "-3000", "0", "--z-um", "-12", "--sigma-um", "0.2", *control)
    assert "2 positions" in given.stdout
    assert ctl("map", "offset", "DAPI", "-1.2", *control).stdout == "offsets: DAPI -1.2 µm\n"

    shown = ctl("map", "predict", "-100", "200", "-3000", "0", "--channel", "DAPI", "--json", *control)
    predictions = json.loads(shown.stdout)["predictions"]
    assert [p["z_um"] for p in predictions] == pytest.approx([11.3, -13.2], abs=0.2)
    assert re.search(
        r"-100.00.*11.\d\d.*trust.*2σ = .* within 4.1 µm",
        ctl("map", "predict", "-100", "200", "--channel", "DAPI", *control).stdout,
    )

    picture = tmp_path / "map.png"
    listed = ctl("map", "show", "--plot", str(picture), *control)
    assert re.search(r"-3000.00\W+0.00\W+-12.00\W+0.20", listed.stdout)
    assert "offsets: DAPI -1.2 µm" in listed.stdout
    assert picture.stat().st_size > 1000
    assert len(json.loads(ctl("map", "show", "--json", *control).stdout)["positions"]) == 2

    assert ctl("map", "offset", "DAPI", *control).stdout == "offsets: none\n"
    assert ctl("map", "clear", *control).stdout == "cleared 2 positions\n"
    assert "the map is empty" in ctl("map", "show", *control).stdout


def test_wrong_use_of_the_map_is_told(endpoints: list[str], tmp_path: Path) -> None:
    control = endpoints[:2]
    ctl("map", "clear", *control)
    assert ctl("map", "predict", "1", "2", "3", *control).returncode == 2
    assert ctl("map", "add", "1", "2", "--chanel", "DAPI", *control).returncode == 2
    unknown = ctl("map", "predict", "1", "2", "--channel", "GFP", *control)
    assert (unknown.returncode, "no offset" in unknown.stderr) == (1, True)
    empty = ctl("map", "show", "--plot", str(tmp_path / "map.png"), *control)
    assert (empty.returncode, "nothing to draw" in empty.stderr) == (1, True)


def test_monitor_goes_on_where_its_log_ended(endpoints: list[str], tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"

    def monitored(until: str) -> list[int]:
        command = [*CTL, "monitor", "--log", str(log), *endpoints]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout
            assert any(until in line for line in monitor.stdout)
            monitor.send_signal(signal.SIGINT)
            monitor.wait(30)
        return [json.loads(line)["seq"] for line in log.read_text().splitlines()]

    first = monitored(until="state")
    assert ctl("refocus", *endpoints).returncode == 0
    both = monitored(until="succeeded")
    assert both[: len(first)] == first
    assert both == list(range(both[0], both[0] + len(both))), "nothing between the two is missing or doubled"
    assert len(both) > len(first)


def test_hold_and_release(endpoints: list[str]) -> None:
    assert "acquiring" in ctl("hold", "--position", "A1", *endpoints[:2]).stdout
    released = ctl("release", *endpoints[:2])
    assert released.stdout.startswith("released\n")
    assert "disengaged" in released.stdout
    assert ctl("release", *endpoints[:2]).stdout.startswith("nothing was held\n")


def test_lengths_are_told_with_the_digits_that_their_uncertainty_justifies(endpoints: list[str]) -> None:
    shown = ctl("refocus", *endpoints).stdout
    sigma = re.search(r"sigma\W+0\.(0*[1-9]\d) µm", shown)
    focus = re.search(r"focus\W+12\.(\d+) µm", shown)
    assert sigma, shown
    assert focus, shown
    assert len(focus[1]) == len(sigma[1])


def test_drift_of_a_log_without_estimates_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text("")
    failed = ctl("drift", str(log))
    assert failed.returncode == 1
    assert "hold the focus, and let monitor log it" in failed.stderr
    absent = ctl("drift", str(tmp_path / "absent"))
    assert (absent.returncode, absent.stderr) == (
        1,
        f"error: {tmp_path / 'absent'}: No such file or directory\n",
    )


def test_the_daemon_is_named_before_the_command_behind_it_or_by_the_environment(
    endpoints: list[str],
) -> None:
    """What is nearest to the command counts most."""
    wrong = ["--endpoint", "tcp://127.0.0.1:9"]
    assert ctl(*endpoints, "refocus").returncode == 0
    assert ctl(*endpoints[:2], "map", "show").returncode == 0
    assert ctl(*wrong, "status", *endpoints[:2]).returncode == 0
    for environment, arguments, code in (
        ({}, endpoints[:2], 0),
        ({"FOCUSD_ENDPOINT": endpoints[1], "FOCUSD_EVENTS": endpoints[3]}, [], 0),
        ({"FOCUSD_ENDPOINT": endpoints[1]}, wrong, 1),
    ):
        asked = subprocess.run(
            [*CTL, *arguments, "status"], capture_output=True, timeout=60, env=os.environ | environment
        )
        assert asked.returncode == code, asked.stderr


def test_the_stage_is_sent_below_zero(endpoints: list[str]) -> None:
    moved = ctl("move", "-20", *endpoints[:2])
    assert moved.returncode == 0, moved.stderr
    assert re.search(r"z\W+-20 µm", moved.stdout)
    assert ctl("move", "-twenty", *endpoints[:2]).returncode == 2


@pytest.mark.parametrize("program", ["focusd", "focusd.ctl"])
def test_a_program_tells_its_version(program: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", program, "--version"], capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, told.stdout) == (0, f"{__version__}\n")


def test_how_a_job_ended_is_told_by_its_event_also_where_the_daemon_is_gone() -> None:
    error = Failure.of(CancelledJobError("cancelled; the stage stands at 0.00 µm", stage_z_um=0.0))
    end = {
        "topic": "job",
        "session": "s",
        "seq": 2,
        "job_id": "j",
        "time": "2026-01-01T00:00:00.000+00:00",
        "monotonic_s": 1.0,
        "data": {"kind": "refocus", "client": "", "state": "cancelled", "error": error.model_dump()},
    }
    gone = cast(Any, SimpleNamespace(job=None))  # asking it again would fail
    with pytest.raises(CancelledJobError, match="stands at") as told:
        follow(gone, cast(Any, [read_event(end)]), Started(job_id="j"), quiet=True)
    assert told.value.data["stage_z_um"] == 0.0
