"""How the bench judges σ."""

from __future__ import annotations

import numpy as np
import pytest

from bench.honesty import honesty
from bench.synthetic import INSTRUMENT
from focusd.optics.defocus import blurriness

Z_UM = np.linspace(-120, 120, 25)
SIGMA = 0.02


def test_gaussian_errors_of_the_stated_sigma_are_honest() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([blurriness(INSTRUMENT, float(z)) for z in Z_UM])
    b = truth[:, None] + rng.normal(0, SIGMA, (100, len(Z_UM), 16))
    for third in honesty(Z_UM, b, np.full(b.shape, SIGMA)):
        assert third.within_1_sigma == pytest.approx(0.683, abs=0.02)
        assert third.within_2_sigma == pytest.approx(0.954, abs=0.01)
        assert third.median_error == pytest.approx(0.6745 * SIGMA, rel=0.05)


def test_what_all_textures_share_is_an_error_but_no_difference_from_the_calibration() -> None:
    truth = np.array([blurriness(INSTRUMENT, float(z)) for z in Z_UM])
    biased = np.where(np.abs(Z_UM) < 40, truth, truth + 3 * SIGMA)
    b = np.broadcast_to(biased[:, None], (10, len(Z_UM), 4))
    near, middle, far = honesty(Z_UM, b, np.full(b.shape, SIGMA))
    assert (near.within_2_sigma, middle.within_2_sigma, far.within_2_sigma) == (1, 0, 0)
    assert all(third.calibrated_1_sigma == 1 for third in (near, middle, far))
    assert (near.from_um, near.to_um, far.to_um) == (0, 40, 120)
