"""Defocus phase, focus coefficient and blurriness against numerical projection and the paraxial limit."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from focusd.optics.defocus import blurriness, defocus_waves, focus_coefficient
from focusd.optics.instrument import Instrument


def _double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _projected(u: float, sin_alpha: float) -> float:
    """|⟨W, Z₄⟩| by adaptive quadrature over the disc, W the optical path in waves."""

    def integrand(rho: float) -> float:
        path = u * (math.sqrt(1 - (sin_alpha * rho) ** 2) - 1) / sin_alpha**2
        return path * math.sqrt(3) * (2 * rho**2 - 1) * 2 * rho

    return abs(float(quad(integrand, 0, 1, epsabs=1e-11)[0]))


@pytest.mark.parametrize("sin_alpha", [0.05, 0.3, 0.75, 0.95])
@pytest.mark.parametrize("u", [-7.0, 0.5, 20.0])
def test_focus_coefficient_is_the_projection_on_zernike_focus(u: float, sin_alpha: float) -> None:
    assert float(focus_coefficient(_double(u), _double(sin_alpha))) == pytest.approx(
        _projected(u, sin_alpha), rel=1e-5
    )


def test_focus_coefficient_in_the_paraxial_limit() -> None:
    u = _double(0.0, 1.0, -4.0)
    expected = u.abs() / (4 * math.sqrt(3))
    assert torch.allclose(focus_coefficient(u, torch.full_like(u, 1e-2)), expected, rtol=1e-4)


def test_defocus_phase_at_the_rim_of_a_high_aperture() -> None:
    """At the rim the path is n·z·(cos α − 1): NA 1.2 in water, 1 µm, λ 0.5 µm, by hand."""
    instrument = Instrument(60, 1.2, 1.33, 0.5)
    u = _double(1.0 / instrument.axial_unit_um)
    rim_waves = 1.33 * (math.sqrt(1 - (1.2 / 1.33) ** 2) - 1) / 0.5
    assert float(defocus_waves(u, _double(instrument.sin_alpha), _double(1.0))) == pytest.approx(rim_waves)


@pytest.mark.parametrize("z_sign", [-1, 1])
def test_blurriness_is_one_at_three_waves_of_focus(z_sign: float) -> None:
    instrument = Instrument(10, 0.1)
    z_um = z_sign * 20.785 * instrument.axial_unit_um  # 3 waves × 4√3
    assert blurriness(instrument, z_um) == pytest.approx(1, rel=0.01)
    assert blurriness(instrument, 0.0) == 0


def test_blurriness_grows_with_defocus() -> None:
    instrument = Instrument(40, 0.95)
    scores = [blurriness(instrument, z) for z in np.linspace(0, 20, 9)]
    assert np.all(np.diff(scores) > 0)
