"""The bench of attacks sees a promise that is broken, and one that is kept. Each daemon is a process of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.faults import besieged, endings, floods, storms
from bench.faults.attacks import run_attacks
from bench.faults.besieged import Siege, Target, besiege, broken, memory_mb, threads_of
from bench.faults.kills import living
from bench.faults.run import QUICK, USUAL, Parts
from bench.faults.service import config_of

KEPT: dict[str, Any] = {
    "state_p99_ms": 3.0,
    "unanswered": 0,
    "rss_before_mb": 400.0,
    "rss_peak_mb": 900.0,
    "rss_after_mb": 450.0,
    "fault": None,
    "refocuses": {"focused": 3},
    "alive": True,
}


def test_kept_promises_are_none_broken() -> None:
    assert broken(KEPT) == []
    assert broken(KEPT | {"refocuses": {}}, is_alone=True) == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"state_p99_ms": 51.0}, "state.get took 51 ms"),
        ({"unanswered": 2}, "2 state.get unanswered"),
        ({"rss_peak_mb": 1001.0}, "1001 MB at the peak"),
        ({"rss_after_mb": 501.0}, "101 MB did not come back"),
        ({"fault": "the camera did not answer"}, "fault: the camera did not answer"),
        ({"refocuses": {"focused": 3, "hardware_error": 1}}, "refocuses: {'hardware_error': 1}"),
        ({"refocuses": {}}, "refocuses: none ended"),
        ({"alive": False}, "the daemon has ended"),
    ],
)
def test_each_broken_promise_is_told(seen: dict[str, Any], words: str) -> None:
    assert broken(KEPT | seen) == [words]


def test_a_watcher_that_told_nothing_is_no_good_news() -> None:
    assert len(broken({name: KEPT[name] for name in KEPT if name not in ("state_p99_ms", "unanswered")})) == 2


def test_a_calm_siege_sees_a_daemon_that_serves(tmp_path: Path) -> None:
    row = besiege(Siege("calm", floods.calm), tmp_path, 2.0)
    assert (row["unanswered"], row["fault"], row["alive"]) == (0, None, True)
    assert set(row["refocuses"]) == {"focused"}
    assert row["asked"] > 5
    assert 0 < row["state_p50_ms"] <= row["state_p99_ms"] <= row["state_max_ms"]
    assert 50 < row["rss_before_mb"] < 1000
    assert row["rss_peak_mb"] == pytest.approx(row["rss_before_mb"], rel=0.5)
    assert all("state.get took" in words for words in row["failed"]), "this machine may be slow"


def _kill(target: Target) -> dict[str, Any]:
    os.kill(target.pid, signal.SIGKILL)
    return {"failed": ["it was killed"]}


def test_a_daemon_that_falls_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(besieged, "COMES_BACK_S", 0.1)
    row = besiege(Siege("murder", _kill, is_alone=True), tmp_path, 0.1)
    assert not row["ok"]
    assert {"it was killed", "the daemon has ended"} <= set(row["failed"])


def test_the_signal_of_every_service_manager_brings_the_stage_home(tmp_path: Path) -> None:
    assert endings.signalled(signal.SIGTERM, tmp_path) == []


def test_a_stage_that_is_left_out_there_is_seen(tmp_path: Path) -> None:
    failed = endings.signalled(signal.SIGKILL, tmp_path)
    assert any("the stage stays at" in words for words in failed)


def test_a_fault_outlives_a_kill_where_the_disk_has_room(tmp_path: Path) -> None:
    assert endings.full_disk(tmp_path, is_full=False) == []


def test_hardware_that_was_opened_is_seen(tmp_path: Path) -> None:
    config = config_of(tmp_path / "state")
    assert endings._left_alone(config, tmp_path / "hang", None) == ["the next daemon opened the hardware"]


def test_a_second_daemon_of_the_same_name_is_refused(tmp_path: Path) -> None:
    assert endings.second_daemon(tmp_path) == []


def test_a_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    disk = endings.Disk(tmp_path / "disk")
    try:
        if not disk.is_mounted:
            pytest.skip("this process may not mount a small disk")
        disk.fill(endings.Daemon(None, None, None))  # type: ignore[arg-type]
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "file").write_bytes(b"x")
        disk.free()
        (disk.folder / "file").write_bytes(b"x")
    finally:
        disk.unmount()


def _grow(megabytes: int) -> None:
    kept = [os.urandom(1 << 20) for _ in range(megabytes)]
    time.sleep(60 + len(kept))


def test_what_takes_too_much_memory_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(besieged, "CEILING_MB", 700.0)
    with living(1000, _grow) as greedy, living(10, _grow) as modest:
        assert greedy.pid is not None
        assert modest.pid is not None
        guards = [besieged.Guard(pid) for pid in (greedy.pid, modest.pid)]
        for guard in guards:
            guard.start()
        greedy.join(30)
        assert greedy.exitcode == -signal.SIGKILL
        seen = [guard.end() for guard in guards]
        assert modest.is_alive()
    assert [one["killed"] for one in seen] == [True, False]
    assert seen[0]["rss_peak_mb"] > 700 > seen[1]["rss_peak_mb"]


def test_figures_of_a_process() -> None:
    assert 10 < memory_mb(os.getpid()) <= memory_mb(os.getpid(), "VmHWM")
    assert threads_of(os.getpid()) >= 1
    assert (memory_mb(2**22 + 1), threads_of(2**22 + 1)) == (0.0, 0)


def test_attacks_are_paced_and_catch_up() -> None:
    began_s = time.perf_counter()
    moments = list(floods.paced(100.0, 0.2))
    assert len(moments) == 20
    assert time.perf_counter() - began_s >= 0.19
    assert moments == sorted(moments)


def test_only_what_is_asked_for_runs() -> None:
    names = [siege.name for siege in [*floods.sieges(), *storms.storms()]] + list(endings.ENDINGS)
    assert len(set(names)) == len(names) > 35
    assert run_attacks(1.0, Console(quiet=True), only=["no such attack"]) == []
    assert Parts.asked(None, None, None, None, quick=False) == Parts(*USUAL)
    assert Parts.asked(None, None, None, None, quick=True) == Parts(*QUICK)
    assert Parts.asked(5, None, 0, None, quick=False) == Parts(5, USUAL[1], 0, USUAL[3])
    assert Parts.asked(None, None, None, None, quick=False, lying=9) == Parts(lying=9)
    assert Parts.asked(None, 1, None, None, quick=False, lying=9) == Parts(USUAL[0], 1, *USUAL[2:], lying=9)
