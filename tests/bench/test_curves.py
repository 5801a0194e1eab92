"""The figures of a set of curves, on curves whose figures are known."""

import numpy as np
import pytest

from bench.curves import Curves

Z = np.linspace(-120, 120, 132)
RNG = np.random.default_rng(0)


def perfect(textures: int = 20) -> Curves:
    return Curves(Z, np.tile(np.abs(Z), (textures, 1)))


def test_a_score_that_is_the_same_for_all_textures_has_no_spread() -> None:
    assert perfect().spread() == pytest.approx(0)
    assert perfect().robust_spread() == pytest.approx(0)


def test_spread_is_that_of_the_noise() -> None:
    curves = Curves(Z, np.abs(Z) / 50 + RNG.normal(0, 0.02, (400, len(Z))))
    assert curves.spread() == pytest.approx(0.02, rel=0.2)


def test_entropy_of_a_perfect_score_is_the_sign_and_the_bins() -> None:
    lumped = len(Z) / 50
    assert np.log(2) <= perfect().entropy() <= np.log(lumped) + 0.2


def test_entropy_of_a_useless_score_is_that_of_the_planes() -> None:
    useless = Curves(Z, RNG.uniform(0, 1, (2000, len(Z))))
    assert useless.entropy() == pytest.approx(np.log(len(Z)), abs=0.05)


def test_depth_uncertainty_is_spread_over_slope() -> None:
    curves = Curves(Z, np.abs(Z) + RNG.normal(0, 2.0, (2000, len(Z))))
    wing = (np.abs(Z) > 15) & (np.abs(Z) < 45)  # beyond, the scaling of each curve by its own noise adds up
    assert np.median(curves.depth_uncertainty_um()[wing]) == pytest.approx(2.0, rel=0.2)


def test_range_ends_where_the_curve_goes_flat() -> None:
    flat_beyond_60 = np.minimum(np.abs(Z), 60.0) + RNG.normal(0, 3.0, (500, len(Z)))
    assert Curves(Z, flat_beyond_60).range_um(8.3) == pytest.approx(60, abs=4)
    assert perfect().range_um(8.3) == pytest.approx(120, abs=1)


def test_best_keeps_the_textures_of_the_smallest_sigma() -> None:
    values = np.tile(np.abs(Z), (10, 1))
    values[9] *= np.linspace(0.1, 3, len(Z))
    kept = Curves(Z, values, np.arange(10.0)).best(0.8)
    assert kept is not None
    assert len(kept.values) == 8
    assert kept.spread() == pytest.approx(0)
    assert Curves(Z, values).best(0.8) is None
