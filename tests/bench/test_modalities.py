"""The bench of transmitted light: what its images show, what it counts, and that phase contrast can be calibrated."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from bench import transmitted
from bench.modalities import PHASE_CONTRAST, STAINED, UNSTAINED, figures_of
from bench.runs import engine_of
from bench.searching import FOCUSED, Ending, Step, calibrated, searched
from bench.transmitted import Light, TransmittedLight

PLANES_UM = np.arange(-100.0, 101.0, 5.0)
NOISE = 8000**-0.5
"""Contrast of the photons alone."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transmitted, "FIELD_PX", 256)


def contrast(light: Light, defocus_um: float) -> float:
    frame = TransmittedLight(light, "cells", 1, 0.0).expose(defocus_um).astype(float) - 100
    return float(frame.std() / frame.mean())


def test_a_phase_shows_in_bright_field_out_of_focus_alone_and_in_phase_contrast_in_focus() -> None:
    assert contrast(UNSTAINED, 0.0) < 1.3 * NOISE < 0.6 * contrast(UNSTAINED, 10.0)
    assert contrast(PHASE_CONTRAST, 0.0) > 3 * contrast(UNSTAINED, 0.0)
    assert contrast(PHASE_CONTRAST, 0.0) > contrast(PHASE_CONTRAST, 40.0)
    assert contrast(STAINED, 0.0) > contrast(STAINED, 10.0) > contrast(STAINED, 40.0)


def test_in_phase_contrast_a_calibration_serves_also_where_the_score_tells_no_more(tmp_path: Path) -> None:
    gravel = TransmittedLight(PHASE_CONTRAST, "gravel", 0, 0.7)
    engine = engine_of(gravel.setting, tmp_path)
    known = calibrated(engine.calibrate(0.0, planes_um=PLANES_UM.tolist()), gravel.frame)
    assert known.z_focus_um == pytest.approx(0.7, abs=1.0)
    curve_um = known.curve.z_um
    assert -80 < curve_um[0] < -15
    assert 15 < curve_um[-1] < 80
    for focus_um in (12.0, -40.0, 50.0):
        cells = TransmittedLight(PHASE_CONTRAST.times(0.5), "cells", 1, focus_um)
        end = searched(engine.refocus(0.0), cells.frame, repeat(focus_um).__next__)
        assert end.outcome == FOCUSED
        assert abs(end.error_um) <= 0.25 * end.dof_um


def test_only_answers_more_than_a_depth_of_field_off_are_silent_failures() -> None:
    ends = ((0.4, FOCUSED), (9.0, FOCUSED), (50.0, "ambiguous"))
    figures = figures_of([Ending((Step(0.0, error_um, 0.3),), outcome, 8.3) for error_um, outcome in ends])
    assert (figures["runs"], figures["silent"]) == (3, 1)
    assert figures["outcomes"] == {"ambiguous": 1, FOCUSED: 2}
    assert figures["max_um"] == 9.0
    assert figures["within_2_sigma"] == 0.5
