"""The bench of far searches counts every run."""

from __future__ import annotations

import numpy as np
import pytest

from bench.far import FEW, GROUPS, LIMITS_UM, Far, row_of
from bench.searching import FOCUSED, NAN, Ending, Step

DOF_UM = 8.0


def far(outcome: str, exposures: int, error_um: float) -> Far:
    last = Step(0.0, error_um, 0.1, is_reported=outcome == FOCUSED)
    return Far(250.0, Ending((*[Step(250.0)] * (exposures - 1), last), outcome, DOF_UM))


def test_a_row_counts_every_run_and_the_focused_that_took_few_exposures() -> None:
    found = [
        far(FOCUSED, 5, 0.8),
        far(FOCUSED, FEW + 1, -1.6),
        far(FOCUSED, 6, 2 * DOF_UM),
        far("no_sample", 7, NAN),
    ]
    row = row_of("some", found)
    assert (row["n"], row["focused"], row["in_few"], row["silent"]) == (4, 3, 2, 1)
    assert row["median_dof"] == pytest.approx(0.2)
    assert row["worst_dof"] == pytest.approx(2.0)
    assert (row["images"], row["most_images"]) == (np.mean([5, FEW + 1, 6, 7]), FEW + 1)
    assert row["outcomes"] == {"focused": 3, "no_sample": 1}


def test_a_focus_in_an_empty_field_is_silently_wrong_and_has_no_error_to_count() -> None:
    row = row_of("empty", [far(FOCUSED, 5, NAN), far("no_sample", 7, NAN)])
    assert (row["silent"], row["median_dof"]) == (1, None)


def test_every_start_and_the_calibrated_range_lie_inside_the_limits() -> None:
    assert all(setting.reach_um + 100.0 <= LIMITS_UM[1] for setting in GROUPS.values())
