"""A reduced run of the demo itself: two simulated slides and one recorded stack, over ZeroMQ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from focusd.demo import main
from tests.system.stack import write_stack

KEYS = {
    "sample",
    "source",
    "strategy",
    "sigma_um",
    "z_start_um",
    "z_true_um",
    "z_found_um",
    "error_um",
    "dof_um",
    "exposures",
    "seconds",
    "outcome",
}
"""What a program that reads the figures relies on."""


@dataclass
class Ran:
    """What a run has left behind."""

    status: int
    runs: list[dict[str, Any]]
    out: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("demo")
    stacks = folder / "stacks"
    stacks.mkdir()
    write_stack(stacks / "paper.ome.tif", [float(z) for z in np.linspace(-60, 60, 13)])
    (stacks / "broken.tif").write_bytes(b"no TIFF at all")
    out, figures = folder / "out", folder / "figures.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(main, "SAMPLES", ("beads",))
        patched.setattr(main, "PLANES", 3)
        status = main.run_demo(out, figures, stacks, seed=3)
    return Ran(status, json.loads(figures.read_text(encoding="utf-8"))["runs"], out)


def is_complete(run: dict[str, Any]) -> bool:
    """Whether the figures are those of a search that found something."""
    figures = all(run[key] is not None for key in KEYS)
    return figures and run["error_um"] == pytest.approx(run["z_found_um"] - run["z_true_um"])


def is_failed(run: dict[str, Any]) -> bool:
    """Whether the figures are those of a search that found nothing, and says why."""
    return run["z_found_um"] is run["error_um"] is run["exposures"] is None and run["outcome"] != "error"


def test_every_run_is_listed_with_its_figures_or_its_reason(ran: Ran) -> None:
    listed = [(run["sample"], run["source"]) for run in ran.runs]
    assert listed == [("beads", "simulated")] * 2 + [("paper", "recorded")] * 6
    assert [run["strategy"] for run in ran.runs] == ["posterior", "published"] * 4
    for run in ran.runs:
        assert set(run) == KEYS
        assert is_complete(run) if run["outcome"] == "focused" else is_failed(run)


def test_the_simulated_run_ends_within_one_depth_of_field(ran: Ran) -> None:
    simulated = ran.runs[0]
    assert ran.status == 0
    assert is_complete(simulated)
    assert abs(simulated["error_um"]) <= simulated["dof_um"]
    assert simulated["z_start_um"] == 0.0
    assert 0 < abs(simulated["z_true_um"]) <= main.REACH_UM


def test_the_recorded_runs_start_on_both_sides_of_the_focus(ran: Ran) -> None:
    low, middle, high = ran.runs[2::2]
    assert (low["z_start_um"], high["z_start_um"]) == (-50.0, 50.0)
    assert {run["z_true_um"] for run in (low, middle, high)} == {0.0}
    assert is_complete(middle)
    assert abs(middle["error_um"]) <= middle["dof_um"]


def test_every_calibration_and_run_has_its_picture(ran: Ran) -> None:
    names = ["calibration-paper.png", "calibration-simulated-gravel.png", "timelapse.png"]
    names += [f"run-{n:02d}-{run['sample']}.png" for n, run in enumerate(ran.runs[::2], 1)]
    assert sorted(path.name for path in ran.out.iterdir()) == sorted(names)
    for name in names:
        with Image.open(ran.out / name) as picture:
            assert min(picture.size) > 300
            assert np.ptp(np.asarray(picture.convert("L"))) > 100, "something is drawn"
