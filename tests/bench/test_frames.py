"""The bench of whole frames: what it counts, and that a coarse calibration serves lattices and beads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import frames
from bench.frames import COARSE, FLAT_SAMPLES, USUAL, Case, calibrate_on, draw_case, ending_of, figures_of
from bench.searching import FOCUSED, Ending, Step

ONCE_REFUSED = [("brick", 4.6), ("brick", 10.3), ("beads", 10.3), ("filaments", 21.6)]
"""Or focused half a micrometre off: samples and their focus."""


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a calibration of few planes is kept."""
    folder = tmp_path_factory.mktemp("calibrations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "FRAME_PX", 512)
        frames.microscope.cache_clear()
        calibrate_on(*COARSE, folder)
        yield folder
        frames.microscope.cache_clear()


@pytest.mark.parametrize(("sample", "focus_um"), ONCE_REFUSED)
def test_a_calibration_of_few_planes_serves_lattices_and_beads(
    coarse: Path, sample: str, focus_um: float
) -> None:
    """Half an axial unit and more between the planes hides the zeros of the transfer."""
    done = ending_of(Case(0, sample, 1, *COARSE, 16, focus_um), coarse)
    assert done.outcome == FOCUSED
    assert abs(done.error_um) <= 2 * done.sigma_um
    assert done.shape == "flat"


def test_cases_follow_from_the_seed_and_take_samples_and_calibrations_in_turn() -> None:
    count = len(FLAT_SAMPLES) * len(USUAL)
    cases = [draw_case(USUAL, number, 5) for number in range(count)]
    assert cases == [draw_case(USUAL, number, 5) for number in range(count)]
    assert len({(case.sample, case.stack) for case in cases}) == count
    assert all(abs(case.focus_um) <= case.setting.start_um for case in cases)


def test_errors_of_answers_count_in_depths_of_field_and_refusals_apart() -> None:
    dof_um = 8.3

    def ended(images: int, error_um: float, outcome: str, shape: str) -> Ending:
        return Ending(
            (Step(0.0),) * (images - 1) + (Step(0.0, error_um, 0.2 * dof_um),), outcome, dof_um, shape
        )

    told = [ended(3, error * dof_um, FOCUSED, "flat") for error in (0.1, -0.3, 0.5)]
    refused = ended(8, 40.0, "budget_spent", "")
    figures = figures_of([*told, replace(told[0], shape="stepped"), refused])
    assert figures["outcomes"] == {"budget_spent": 1, FOCUSED: 4}
    assert figures["max_dof"] == pytest.approx(0.5)
    assert figures["median_dof"] == pytest.approx(0.2)
    assert figures["within_2_sigma"] == 0.75
    assert figures["not_called_flat"] == 1
    assert figures["images_mean"] == 4.0


def test_nothing_focused_gives_no_figure() -> None:
    assert figures_of([])["max_dof"] is None
