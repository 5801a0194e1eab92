"""The profile and its fit."""

import numpy as np
import pytest

from focusd.focus.moffat import Moffat, fit_moffat, r_squared


def test_fit_recovers_the_profile_that_made_the_curve() -> None:
    truth = Moffat(top=0.8, depth=0.7, centre_um=3.2, width_um=30.0, power=1.4)
    z = np.arange(-100, 101, 4.0)
    fit = fit_moffat(z, truth(z))
    assert fit.centre_um == pytest.approx(3.2, abs=0.01)
    assert fit.fwhm_um == pytest.approx(truth.fwhm_um, rel=0.01)


def test_slopes_are_the_derivatives_by_each_parameter() -> None:
    parameters = [0.8, 0.7, 3.2, 30.0, 1.4]
    z = np.linspace(-90, 90, 13)
    for index, slope in enumerate(Moffat(*parameters).slopes(z).T):
        low, high = ([p + side * (i == index) for i, p in enumerate(parameters)] for side in (-1e-5, 1e-5))
        assert slope == pytest.approx((Moffat(*high)(z) - Moffat(*low)(z)) / 2e-5, abs=1e-8)


def test_fwhm_is_where_half_of_the_depth_is_reached() -> None:
    profile = Moffat(top=1.0, depth=0.6, centre_um=0.0, width_um=20.0, power=0.8)
    assert float(profile(np.array(profile.fwhm_um / 2))) == pytest.approx(1.0 - 0.3)


def test_fit_finds_the_centre_of_a_v_shaped_curve_under_noise() -> None:
    rng = np.random.default_rng(0)
    z = np.arange(-100, 101, 4.0)
    b = np.abs(z - 7.0) / 120 + rng.normal(0, 0.02, z.shape)
    assert fit_moffat(z, b).centre_um == pytest.approx(7.0, abs=1.0)


def test_r_squared_of_a_perfect_and_of_a_useless_fit() -> None:
    b = np.array([1.0, 2.0, 3.0])
    assert r_squared(b, b) == 1.0
    assert r_squared(b, np.full(3, 2.0)) == pytest.approx(0.0)
    assert r_squared(np.ones(3), np.ones(3)) == 1.0
