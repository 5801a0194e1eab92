"""What the accuracy bench writes about runs whose errors are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy import series_rows
from bench.errors import Figures
from bench.mix import SCENES, draw_setting
from bench.plan import IDEAL, MAIN, POSTERIOR, WARM, Series
from bench.plots import draw_errors
from bench.runs import Run
from bench.searching import FOCUSED, Ending, Step
from bench.setting import Setting

FIELDS = [
    "strategy",
    "images",
    "objective",
    "optics",
    "start_um",
    "electrons",
    "scene",
    "n",
    "median_um",
    "mean_um",
    "sd_um",
    "p95_um",
    "median_dof",
    "gross_failures",
    "silent_failures",
    "bound_um",
]


def run(error_um: float, outcome: str = FOCUSED) -> Run:
    """Far off after the first image, then near."""
    steps = Step(0.0, 50.0, 40.0), Step(0.0, error_um, 0.2, is_reported=outcome == FOCUSED)
    return Run({POSTERIOR: Ending(steps, outcome, MAIN.instrument.depth_of_field_um)}, [float("inf"), 0.01])


def rows(setting: Setting, runs: list[Run]) -> list[Figures]:
    return series_rows(Series(setting, len(runs), (POSTERIOR,)), runs, (2,))


def test_a_row_has_the_promised_fields_and_the_errors_after_so_many_images() -> None:
    (row,) = rows(MAIN, [run(0.1), run(-0.3), run(20.0), run(-20.0, "budget_spent")])
    assert list(row) == FIELDS
    assert (row["n"], row["gross_failures"], row["silent_failures"]) == (4, 2, 1)
    assert row["median_um"] == pytest.approx((0.3 + 20) / 2)
    assert row["bound_um"] == pytest.approx(0.01)


def test_in_an_empty_field_every_reported_focus_is_a_silent_failure() -> None:
    nothing = float("nan")
    (row,) = rows(replace(MAIN, scene="empty"), [run(nothing), run(nothing, "no_sample")])
    assert (row["median_um"], row["gross_failures"], row["silent_failures"]) == (None, 2, 1)


def test_a_warm_start_is_not_taken_for_a_cold_one() -> None:
    (row,) = rows(WARM, [run(0.1)])
    told: dict[str, object] = dict(row)
    assert told | {"strategy": "posterior warm", "start_um": 3.0} == told


def test_starts_scale_with_the_axial_unit() -> None:
    setting = Setting("60x/1.4 oil")
    assert setting.start_um == pytest.approx(60 / 6.111 * 0.4251, rel=1e-3)
    rng = np.random.default_rng(0)
    assert max(abs(setting.draw_focus(rng)) for _ in range(200)) <= setting.start_um


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw_errors(rows(MAIN, [run(0.1)]) + rows(IDEAL, [run(0.1)]), tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


def test_the_mix_takes_its_scenes_in_turn_and_repeats_itself() -> None:
    first = [draw_setting(np.random.default_rng((1, k)), k) for k in range(12)]
    assert [s.scene for s in first[: len(SCENES)]] == list(SCENES)
    assert first == [draw_setting(np.random.default_rng((1, k)), k) for k in range(12)]
    assert all(200 <= s.electrons <= 8000 for s in first)


def test_a_run_that_has_ended_keeps_its_answer_for_larger_numbers_of_images() -> None:
    after_2, after_5 = series_rows(Series(MAIN, 2, (POSTERIOR,)), [run(0.1), run(20.0)], (2, 5))
    assert after_5 == after_2 | {"images": 5}
