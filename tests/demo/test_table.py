"""The demo's choice of stacks, and its table of runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from focusd.demo import main
from focusd.demo.main import _focus_of, _is_good, _planes, _stack_files, _table
from focusd.errors import FocusdError
from focusd.microscope.recorded import Stack

GOOD = {
    "sample": "cells",
    "strategy": "posterior",
    "sigma_um": 0.31,
    "source": "simulated",
    "z_start_um": 0.0,
    "z_true_um": 31.7,
    "z_found_um": 32.9,
    "error_um": 1.2,
    "dof_um": 8.0,
    "exposures": 4,
    "seconds": 1.26,
    "outcome": "focused",
}
FAR = GOOD | {"sample": "brick", "z_found_um": 21.7, "error_um": -10.0}
FAILED = GOOD | {
    "sample": "moon",
    "source": "recorded",
    "z_found_um": None,
    "error_um": None,
    "exposures": None,
    "seconds": None,
    "outcome": "no_sample",
}


def printed(runs: list[dict[str, Any]]) -> list[str]:
    """The table's rows for people; colours left out."""
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(_table(runs))
    return [line for line in console.file.getvalue().splitlines() if " posterior " in line]  # type: ignore[attr-defined]


def cells_of(row: str) -> list[str]:
    return row.split()


def test_a_good_run_shows_its_figures() -> None:
    (row,) = printed([GOOD])
    shown = ["cells", "posterior", "0.0", "31.7", "+1.20", "0.31", "+0.15", "4", "focused"]
    assert cells_of(row) == shown


def test_a_failed_run_shows_its_reason_and_no_figures() -> None:
    (row,) = printed([FAILED])
    shown = ["moon", "posterior", "0.0", "31.7", "–", "–", "–", "–", FAILED["outcome"]]
    assert cells_of(row) == shown


def test_no_run_is_left_out() -> None:
    rows = printed([GOOD, FAILED, FAR, GOOD])
    assert [cells_of(row)[0] for row in rows] == ["cells", "moon", "brick", "cells"]
    assert cells_of(rows[2])[4:7] == ["-10.00", "0.31", "-1.25"]


@pytest.mark.parametrize(
    ("run", "good"),
    [
        (GOOD, True),
        (GOOD | {"error_um": -8.0}, True),
        (GOOD | {"error_um": 8.1}, False),
        (FAR, False),
        (FAILED, False),
    ],
)
def test_a_run_is_good_within_one_depth_of_field(run: dict[str, Any], good: bool) -> None:
    assert _is_good(run) is good


def test_a_given_folder_without_stacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FocusdError, match=r"there are no TIFF stacks in this folder"):
        _stack_files(tmp_path)
    with pytest.raises(FocusdError, match="absent"):
        _stack_files(tmp_path / "absent")


def test_without_a_given_folder_stacks_are_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "DEFAULT_STACKS", tmp_path / "absent")
    assert _stack_files(None) == []


def test_the_main_stack_comes_first(tmp_path: Path) -> None:
    for name in ("b.tiff", "a.ome.tif", "wafer-pattern.ome.tif", "readme.md"):
        (tmp_path / name).touch()
    names = [path.name for path in _stack_files(tmp_path)]
    assert names == ["wafer-pattern.ome.tif", "a.ome.tif", "b.tiff"]


def striped(contrasts: list[int], z_um: list[float]) -> Stack:
    """A stack whose planes are stripes of the given contrasts."""
    stripes = np.tile(np.array([0, 0, 1, 1], np.uint16), (16, 4))
    return Stack(np.stack([100 + stripes * contrast for contrast in contrasts]), np.array(z_um), None)


def test_the_stated_focus_counts(tmp_path: Path) -> None:
    notes = [{"file": "other.tif", "focus_z_um": 9.0}, {"file": "a.tif", "focus_z_um": -2.5}]
    (tmp_path / "stacks.json").write_text(json.dumps(notes), encoding="utf-8")
    stack = striped([1, 50, 3], [-5.0, 0.0, 5.0])

    assert _focus_of(tmp_path / "a.tif", stack) == -2.5
    assert _focus_of(tmp_path / "unnoted.tif", stack) == 0.0


def test_without_notes_the_sharpest_plane_is_the_focus(tmp_path: Path) -> None:
    assert _focus_of(tmp_path / "a.tif", striped([1, 3, 50], [-5.0, 0.0, 5.0])) == 5.0


def test_a_coarse_stack_is_calibrated_between_its_planes_too() -> None:
    assert _planes(striped([1] * 8, [float(z) for z in range(8)])) == list(range(8))
    assert _planes(striped([1, 2, 3], [-6.0, 0.0, 6.0])) == pytest.approx(list(range(-6, 7)))
