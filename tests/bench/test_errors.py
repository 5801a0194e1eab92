"""The figures of a set of errors, on errors whose figures are known."""

import numpy as np
import pytest

from bench.errors import Errors, exposures_to_reach, trimmed

NAN = float("nan")


def errors(values: list[float], reported: bool = True) -> Errors:
    return Errors(np.array(values), np.full(len(values), reported), dof_um=8.0)


def test_nothing_is_trimmed() -> None:
    figures = errors([0.1, -0.2, 0.3, -40.0]).figures()
    assert figures["n"] == 4
    assert figures["median_um"] == pytest.approx(0.25)
    assert figures["mean_um"] == pytest.approx(40.6 / 4)
    assert figures["p95_um"] == 40.0
    assert figures["median_dof"] == pytest.approx(0.25 / 8)


def test_a_failure_is_silent_only_if_it_was_reported() -> None:
    told = Errors(np.array([9.0, -9.0, 1.0]), np.array([True, False, True]), 8.0).figures()
    assert (told["gross_failures"], told["silent_failures"]) == (2, 1)
    assert errors([9.0, -9.0], reported=False).figures()["silent_failures"] == 0


def test_no_answer_is_a_gross_failure_and_the_largest_error() -> None:
    figures = errors([0.1] * 9 + [NAN], reported=False).figures()
    assert figures["gross_failures"] == 1
    assert figures["median_um"] == pytest.approx(0.1)
    assert figures["p95_um"] is None


def test_the_median_counts_what_has_no_answer_among_the_largest_errors() -> None:
    assert errors([0.1, 0.2, 0.4, NAN, NAN]).figures()["median_um"] == pytest.approx(0.4)
    assert errors([0.1, 0.2, NAN, NAN]).figures()["median_um"] is None


def test_a_focus_reported_in_an_empty_field_is_silent() -> None:
    figures = errors([NAN, NAN]).figures()
    assert figures["silent_failures"] == 2
    assert figures["median_um"] is None


def test_the_bound_is_the_median_run_s_and_may_be_missing() -> None:
    bounded = Errors(np.zeros(3), np.ones(3, bool), 8.0, (0.1, 0.2, 5.0))
    assert bounded.figures()["bound_um"] == pytest.approx(0.2)
    assert errors([0.0]).figures()["bound_um"] is None


def test_trimming_drops_what_lies_half_an_interquartile_range_out() -> None:
    kept = trimmed(np.array([-0.5, 2.0, 3.0, 4.0, -5.0, 100.0]))
    assert sorted(kept) == [2.0, 3.0, 4.0, 5.0]


def test_a_limit_is_reached_when_the_share_stays_below_it() -> None:
    error_um = np.array([[5.0, 0.1, 5.0, 0.1, 0.1], [5.0, 0.1, 0.1, 0.1, 0.1], [5.0, 5.0, 5.0, 5.0, 0.2]])
    assert exposures_to_reach(error_um, 1.0, 0.5) == 4
    assert exposures_to_reach(error_um, 1.0, 0.3) == 2
    assert exposures_to_reach(error_um, 1.0, 1.0) == 5
    assert exposures_to_reach(error_um, 0.01, 0.5) is None
