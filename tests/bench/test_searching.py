"""The product's runs as the benches drive them, on frames whose scores and spectra are those of an ideal network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.recorded import APART_UM, groups, unseen
from bench.searching import FOCUSED, NAN, Ending, Step, calibrated, searched
from focusd.autofocus import Autofocus
from focusd.errors import HardwareError
from focusd.focus.frame import Frame
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import ScriptedMicroscope, ScriptedScorer, config_of
from tests.focus.exposures import exposure

FOCUS_UM = 31.0


class Specimen:
    """Shows frames of a sample in focus at `FOCUS_UM`; at most so many of them, and saturated where told."""

    def __init__(self, most: int = 99, saturated: float = 0.0) -> None:
        self._microscope = ScriptedMicroscope()
        self._microscope.saturated = saturated
        self._left = most

    def frame(self, z_um: float) -> Frame:
        if not self._left:
            raise HardwareError("the camera is gone")
        self._left -= 1
        self._microscope.move_to(z_um)
        return self._microscope.snap()


@pytest.fixture
def engine(tmp_path: Path) -> Autofocus:
    """Calibrated."""
    scorer = ScriptedScorer()
    engine = Autofocus(config_of(tmp_path), scorer, CalibrationStore(tmp_path / "calibrations"))
    assert calibrated(engine.calibrate(0.0), Specimen().frame).z_focus_um == pytest.approx(0.0, abs=0.1)
    scorer.focus_um = FOCUS_UM
    return engine


def ending(engine: Autofocus, specimen: Specimen, max_exposures: int | None = None) -> Ending:
    return searched(engine.refocus(0.0, max_exposures=max_exposures), specimen.frame, lambda: FOCUS_UM)


def test_a_search_begins_here_and_ends_at_the_focus(engine: Autofocus) -> None:
    end = ending(engine, Specimen())
    assert (end.outcome, end.shape, end.steps[0].defocus_um) == (FOCUSED, "flat", -FOCUS_UM)
    assert abs(end.error_um) < 2 * end.sigma_um < 2.0
    assert [step.is_reported for step in end.steps] == [False] * (end.exposures - 1) + [True]
    assert not end.is_gross


def test_on_its_way_a_search_believes_something_and_after_its_end_keeps_its_answer(engine: Autofocus) -> None:
    end = ending(engine, Specimen())
    assert np.isnan(end.after(1).error_um), "one exposure shows no direction"
    assert all(np.isfinite(end.after(n).error_um) for n in range(2, end.exposures))
    assert end.after(100) == end.steps[-1]


def test_a_frame_that_the_product_refuses_ends_the_search_without_an_answer(engine: Autofocus) -> None:
    end = ending(engine, Specimen(saturated=0.2))
    assert (end.exposures, end.outcome, end.shape) == (1, "saturated", "")
    assert np.isnan(end.error_um)
    assert end.is_gross
    assert not end.is_silent


def test_a_specimen_that_shows_no_more_ends_the_search(engine: Autofocus) -> None:
    end = ending(engine, Specimen(most=2))
    assert (end.exposures, end.outcome) == (3, "hardware_error")
    assert not any(step.is_reported for step in end.steps)


def test_the_budget_is_the_product_s(engine: Autofocus) -> None:
    end = ending(engine, Specimen(), max_exposures=2)
    assert (end.exposures, end.outcome) == (2, "budget_spent")
    assert np.isfinite(end.error_um)


@pytest.mark.parametrize(
    ("error_um", "outcome", "silent"),
    [(1.0, FOCUSED, False), (-9.0, FOCUSED, True), (9.0, "out_of_range", False), (NAN, FOCUSED, True)],
)
def test_a_silent_failure_is_gross_and_reported(error_um: float, outcome: str, silent: bool) -> None:
    assert Ending((Step(0.0, error_um, 0.1),), outcome, dof_um=8.3).is_silent is silent


def test_groups_are_all_choices_of_near_planes() -> None:
    planes = [exposure(z) for z in (-40.0, 0.0, 4.0, 10.0)]
    pairs = [tuple(o.z_um for o in group) for group in groups(planes, 2)]
    assert pairs == [(-40.0, 0.0), (-40.0, 4.0), (0.0, 4.0), (0.0, 10.0), (4.0, 10.0)]
    assert [len(list(groups(planes, n))) for n in (3, 4)] == [2, 0]
    assert APART_UM == 45.0


def test_a_recorded_plane_is_shown_once() -> None:
    first = ScriptedMicroscope().snap()
    planes = [replace(first, z_um=z_um) for z_um in (-10.0, 0.0, 7.0)]
    show = unseen(planes, planes[1])
    assert [show(z).z_um for z in (0.0, 0.0, 0.0)] == [0.0, 7.0, -10.0]
    with pytest.raises(HardwareError):
        show(0.0)


def test_a_refused_calibration_is_an_ending_without_a_step_and_no_silent_failure() -> None:
    assert not Ending((), "calibration: no_sample", dof_um=8.3).is_silent
