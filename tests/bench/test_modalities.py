"""The bench of transmitted light: what its images show, what it counts, and that phase contrast can be calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import transmitted
from bench.modalities import MIXED, PHASE_CONTRAST, STAINED, UNSTAINED, SearchEnding, figures_of
from bench.runs import calibration_by
from bench.searches import FOCUSED, alone, posterior_search, posterior_steps
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


@pytest.mark.parametrize("start_um", [12.0, -55.0])
def test_in_phase_contrast_a_calibration_serves_also_where_the_score_tells_no_more(start_um: float) -> None:
    gravel = TransmittedLight(PHASE_CONTRAST, "gravel", 0, 0.7)
    known, focus_um = calibration_by(gravel.look, PLANES_UM, gravel.setting.instrument)
    assert focus_um == pytest.approx(0.7, abs=1.0)
    assert -80 < known.min_um < -15
    assert 15 < known.max_um < 80
    cells = TransmittedLight(PHASE_CONTRAST.times(0.5), "cells", 1, start_um)
    search = posterior_search(cells, known)
    _, last = alone(posterior_steps(search, cells.look, lambda: cells.focus_um, cells.dof_um))
    assert last.outcome == FOCUSED
    assert abs(last.error_um) <= 0.25 * cells.dof_um


def test_only_answers_more_than_a_depth_of_field_off_are_silent_failures() -> None:
    near = SearchEnding("", MIXED, "cells", 0.0, 3, 0.4, 0.3, FOCUSED)
    far, refused = replace(near, error_um=9.0), replace(near, error_um=50.0, outcome="ambiguous")
    figures = figures_of([near, far, refused])
    assert (figures["runs"], figures["silent"]) == (3, 1)
    assert figures["outcomes"] == {"ambiguous": 1, FOCUSED: 2}
    assert figures["max_um"] == 9.0
    assert figures["within_2_sigma"] == 0.5
