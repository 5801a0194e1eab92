"""Logs on a monitor's disk: whole lines whatever happens, rotation without loss, and the figures of a drift."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from focusd.driftlog import EventLog, estimates_of, last_event, read_events, summarise
from focusd.errors import FocusdError
from focusd.pictures import draw_drift

START = datetime(2026, 11, 24, tzinfo=UTC)


def event(seq: int, minutes: float, session: str = "a", **data: Any) -> dict[str, Any]:
    """A drift event as the daemon publishes it."""
    values = {
        "source": "check",
        "state": "locked",
        "z_um": 0.0,
        "focus_um": minutes,
        "dz_um": 0.0,
        "sigma_um": 0.5,
        "dof_um": 8.0,
        "exposures": 3 * seq,
        "dose_ms": 30.0 * seq,
    }
    time = (START + timedelta(minutes=minutes)).isoformat()
    return {"session": session, "seq": seq, "time": time, "topic": "drift", "data": values | data}


def written(path: Path, events: list[dict[str, Any]], max_bytes: int = 10**9) -> None:
    log = EventLog(path, max_bytes)
    for item in events:
        log.append(item)
    log.close()


def test_rotation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    written(path, [event(seq, seq) for seq in range(30)], max_bytes=1500)
    assert [item["seq"] for item in read_events(path)] == list(range(30))
    assert path.with_name("events.jsonl.1").exists()
    assert all(file.stat().st_size <= 1500 for file in tmp_path.iterdir())
    last = last_event(path)
    assert last is not None
    assert last["seq"] == 29


def test_only_the_latest_full_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    written(path, [event(seq, seq) for seq in range(100)], max_bytes=600)
    assert len(list(tmp_path.iterdir())) == 10
    numbers = [item["seq"] for item in read_events(path)]
    assert numbers == list(range(numbers[0], 100))


def test_a_line_cut_off_by_a_kill_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    written(path, [event(1, 1), event(2, 2)])
    path.write_bytes(path.read_bytes()[:-20])
    written(path, [event(3, 3)])
    assert [item["seq"] for item in read_events(path)] == [1, 3]


def test_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'\xff\xfe\n7\n{"topic": "drift"}\n\n' + json.dumps(event(1, 1)).encode())
    assert [item["seq"] for item in read_events(path)] == [1]
    assert last_event(tmp_path / "absent.jsonl") is None


def test_the_figures_of_a_steady_drift() -> None:
    events = [event(seq, 2.0 * seq, focus_um=0.5 * 2 * seq + 3) for seq in range(31)]
    events[10]["data"] |= {"dz_um": 5.0, "source": "follow"}
    events[20]["data"] |= {"state": "lost", "source": "failed"}
    summary = summarise(estimates_of(iter([*events, *events[5:9]])))
    assert summary.hours == pytest.approx(1.0)
    assert summary.estimates == 31, "what is there twice counts once"
    assert summary.rate_um_per_min == pytest.approx(0.5)
    assert summary.range_um == pytest.approx(30.0)
    assert (summary.corrections, summary.failed_checks) == (30, 1)
    assert (summary.exposures, summary.dose_ms) == (90, 900.0)
    assert summary.in_focus == pytest.approx(28 / 30)


def test_the_bills_of_two_holds_add_up() -> None:
    first = [event(seq, seq) for seq in range(5)]
    second = [event(seq, 10 + seq, session="b") for seq in range(1, 4)]
    summary = summarise(estimates_of(iter([*first, *second])))
    assert summary.exposures == 12 + 9


def test_a_log_without_estimates_says_what_to_do() -> None:
    with pytest.raises(FocusdError, match="hold the focus, and let monitor log it"):
        estimates_of(iter([event(1, 1), event(2, 2, focus_um=None)]))


@pytest.mark.parametrize("name", ["drift.png", "drift.svg"])
def test_the_picture_is_drawn(tmp_path: Path, name: str) -> None:
    events = [event(seq, seq) for seq in range(10)]
    events[5]["data"] |= {"source": "failed"}
    draw_drift(events, tmp_path / name)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 100
    else:
        assert "<svg" in (tmp_path / name).read_text(encoding="utf-8")
