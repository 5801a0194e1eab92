"""The point spread function against diffraction theory.

Tolerances: the pupil's edge is one cell of its grid wide, so energies and transfer functions may be wrong by
about a third of a cell; 0.01 stands for the coarsest grid used here (a cell of 1/32 of the pupil's radius).
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import signal
from scipy.special import j0, j1
from torch import Tensor

from focusd.optics.imaging import blur
from focusd.optics.instrument import Instrument
from focusd.optics.psf import CRITICAL_SAMPLING, camera_psf, intensity_psf, pixel_kernel
from focusd.optics.zernike import COMA_X, SPHERICAL

EDGE = 0.01

Array = NDArray[np.float64]


def _double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _psf(
    u: float, sin_alpha: float = 0.3, spacing: float = CRITICAL_SAMPLING, size: int = 256, **more: Any
) -> Array:
    """One PSF as an array, origin at [0, 0]."""
    stack = intensity_psf(_double(u), _double(sin_alpha), _double(spacing), size, **more)
    return np.asarray(stack[0])


def _radius(size: int, spacing: float) -> Array:
    """Distance from the origin [0, 0] in λ/NA."""
    along = np.fft.fftfreq(size, 1 / (size * spacing))
    return np.asarray(np.hypot(along[:, None], along))


def _transfer(psf: Array, spacing: float) -> tuple[Array, Array]:
    """Frequencies ≥ 0 in NA/λ and the transfer function along one axis."""
    frequency = np.fft.rfftfreq(len(psf), spacing)
    return np.asarray(frequency, np.float64), np.asarray(np.fft.rfft2(psf)[0].real)


@pytest.mark.parametrize("spacing", [0.1, 0.25])
def test_airy_profile_in_focus(spacing: float) -> None:
    psf = _psf(0.0, spacing=spacing, size=512)
    v = 2 * np.pi * spacing * np.arange(1, 40)
    np.testing.assert_allclose(psf[0, 1:40] / psf[0, 0], (2 * j1(v) / v) ** 2, atol=1e-3)


@pytest.mark.parametrize(
    ("na", "index", "wavelength_um"),
    [(0.1, 1.0, 0.45), (0.3, 1.0, 0.55), (0.9, 1.33, 0.52), (1.4, 1.515, 0.7)],
)
def test_first_zero_of_an_instrument(na: float, index: float, wavelength_um: float) -> None:
    zero_um = 0.61 * wavelength_um / na
    instrument = Instrument(100, na, index, wavelength_um, camera_pixel_um=100 * zero_um / 12)
    profile = camera_psf(instrument, 0.0, 256)[128, 128:].numpy()

    assert int(np.argmin(profile[:18])) == 12  # pixels of a twelfth of the radius of the first zero
    assert profile[12] < 2e-3 * profile[0]


def test_transfer_function_in_focus() -> None:
    """Overlap of two circular pupils, (2/π)·(arccos ν − ν·√(1 − ν²)), ν = f·λ/2NA."""
    frequency, transfer = _transfer(_psf(0.0), CRITICAL_SAMPLING)
    nu = np.clip(frequency / 2, 0, 1)
    expected = 2 / np.pi * (np.arccos(nu) - nu * np.sqrt(1 - nu**2))
    np.testing.assert_allclose(transfer, expected, atol=EDGE)


@pytest.mark.parametrize("u", [0.0, 3.0])
def test_transfer_function_ends_at_twice_na_over_wavelength(u: float) -> None:
    frequency, transfer = _transfer(_psf(u, spacing=0.1, size=640), 0.1)
    cell = frequency[1]
    assert np.abs(transfer[frequency > 2 + cell]).max() < 1e-12
    assert np.abs(transfer[(frequency > 1.8) & (frequency < 1.95)]).min() > 1e-4


@pytest.mark.parametrize("sin_alpha", [0.1, 0.7])
@pytest.mark.parametrize("u", [0.0, 5.0, -12.0])
def test_energy_is_conserved_and_stays_inside(u: float, sin_alpha: float) -> None:
    psf = _psf(u, sin_alpha)
    geometric = abs(u) / np.sqrt(1 - sin_alpha**2) + 0.61
    inside = _radius(256, CRITICAL_SAMPLING) <= geometric

    assert psf.sum() == pytest.approx(1)
    assert psf.min() > -1e-15
    assert psf[inside].sum() > 0.83
    assert psf[_radius(256, CRITICAL_SAMPLING) > 31].sum() < 2e-3


@pytest.mark.parametrize("radius", [0.61, 1.0, 2.0, 5.0])
def test_encircled_energy_in_focus(radius: float) -> None:
    """Rayleigh: 1 − J₀² − J₁² of 2π·r·NA/λ."""
    spacing, v = 0.05, 2 * np.pi * radius
    psf = _psf(0.0, spacing=spacing, size=1024)
    encircled = psf[_radius(1024, spacing) <= radius].sum()
    assert encircled == pytest.approx(1 - j0(v) ** 2 - j1(v) ** 2, abs=EDGE)


def _axial(us: Array, sin_alpha: float) -> Array:
    """On-axis intensity relative to the focus."""
    u = torch.as_tensor(us, dtype=torch.float64)
    stack = intensity_psf(u, torch.full_like(u, sin_alpha), torch.full_like(u, CRITICAL_SAMPLING), 128)
    return np.asarray(stack[:, 0, 0].numpy() / _psf(0.0, sin_alpha, size=128)[0, 0])


def test_axial_profile_in_the_paraxial_limit() -> None:
    """sinc²(u/2), the classical (sin(u'/4)/(u'/4))² with u' = 2π·u."""
    us = np.linspace(-5, 5, 101)
    np.testing.assert_allclose(_axial(us, 0.02), np.sinc(us / 2) ** 2, atol=1e-3)


@pytest.mark.parametrize(("na", "index"), [(0.05, 1.0), (0.07, 1.33)])
def test_first_axial_zeros(na: float, index: float) -> None:
    """At ±2λn/NA², written in µm so that the definition of the axial unit is tested too."""
    instrument = Instrument(10, na, index, 0.55)
    zero_um = 2 * 0.55 * index / na**2
    zs_um = zero_um * np.linspace(-1.5, 1.5, 61)
    axial = _axial(zs_um / instrument.axial_unit_um, instrument.sin_alpha)

    zeros = zs_um[signal.argrelmin(axial)[0]]
    np.testing.assert_allclose(zeros, [-zero_um, zero_um], rtol=1e-9)
    assert axial[signal.argrelmin(axial)[0]].max() < 1e-4


@pytest.mark.parametrize("sin_alpha", [0.1, 0.9])
def test_symmetric_about_focus(sin_alpha: float) -> None:
    np.testing.assert_allclose(_psf(4.0, sin_alpha), _psf(-4.0, sin_alpha), atol=1e-14)


def test_spherical_aberration_breaks_the_symmetry_about_focus() -> None:
    aberrated, opposite = {SPHERICAL: _double(0.15)}, {SPHERICAL: _double(-0.15)}
    near, far = (_psf(u, aberrations=aberrated) for u in (-1.0, 1.0))

    assert np.abs(near - far).max() > 0.1 * max(near.max(), far.max())
    np.testing.assert_allclose(near, _psf(1.0, aberrations=opposite), atol=1e-14)


def test_coma_pulls_the_light_to_one_side() -> None:
    centred = np.fft.fftshift(_psf(0.0, aberrations={COMA_X: _double(0.1)}))[1:, 1:]
    np.testing.assert_allclose(centred, centred[::-1], atol=1e-14)
    assert np.abs(centred - centred[:, ::-1]).max() > 0.1 * centred.max()


@pytest.mark.parametrize("waves", [0.03, 0.07])
def test_small_aberrations_lower_the_peak_as_strehl_says(waves: float) -> None:
    """Maréchal: exp(−(2πσ)²), whatever the aberration."""
    ratio = _psf(0.0, aberrations={COMA_X: _double(waves)})[0, 0] / _psf(0.0)[0, 0]
    assert ratio == pytest.approx(np.exp(-((2 * np.pi * waves) ** 2)), abs=EDGE)


def test_a_wide_condenser_is_incoherent() -> None:
    np.testing.assert_allclose(_psf(3.0, condenser=_double(1.3)), _psf(3.0), atol=1e-15)


def test_a_small_condenser_is_coherent() -> None:
    """Contrast of a weak absorber in coherent light: cos(π·u·f²) as far as the pupil, none beyond."""
    spacing, u, condenser = 0.25, 2.0, 0.02
    frequency, transfer = _transfer(_psf(u, 0.02, spacing, 512, condenser=_double(condenser)), spacing)
    inside = frequency < 1 - 2 * condenser
    np.testing.assert_allclose(transfer[inside], np.cos(np.pi * u * frequency[inside] ** 2), atol=EDGE)
    assert np.abs(transfer[frequency > 1 + 2 * condenser]).max() < 1e-12


def test_a_partial_condenser_in_focus() -> None:
    """Full contrast up to 1 − S, none beyond 1 + S."""
    frequency, transfer = _transfer(_psf(0.0, condenser=_double(0.5)), CRITICAL_SAMPLING)
    cell = frequency[1]
    np.testing.assert_allclose(transfer[frequency < 0.5 - cell], 1)
    assert np.abs(transfer[frequency > 1.5 + cell]).max() < 1e-12
    assert np.all(np.diff(transfer[(frequency > 0.5 + cell) & (frequency < 1.5 - cell)]) < 0)


def test_too_coarse_a_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="spacing must be at most"):
        _psf(0.0, spacing=0.26)


@pytest.mark.parametrize("sampling", [0.1, 0.25])
def test_pixels_integrate_the_fine_psf(sampling: float) -> None:
    """Up to the critical sampling nothing is cut, and a pixel is the sum of the fine samples on it.

    A sum of 9×9 samples stands for the integral: good to (π/18)²/6, half a per cent, at the Nyquist frequency
    and far better where the PSF has its energy.
    """
    size, part = 64, 9
    fine = np.roll(_psf(2.0, spacing=sampling / part, size=size * part), (part // 2, part // 2), (0, 1))
    summed = fine.reshape(size, part, size, part).sum((1, 3))

    kernel = pixel_kernel(_double(2.0), _double(0.3), _double(sampling), size)[0].numpy()
    np.testing.assert_allclose(kernel, summed, atol=1e-3 * summed.max())


@pytest.mark.parametrize("sampling", [0.3545, 0.8])
def test_coarse_pixels_image_a_band_limited_object(sampling: float) -> None:
    """Blurring an object on the pixel grid is: interpolate, blur finely, integrate over each pixel.

    9×9 samples a pixel as above; the object has no row or column at the Nyquist frequency itself, which is
    where interpolation is ambiguous.
    """
    size, part = 32, 9
    spectrum = np.fft.fft2(np.random.default_rng(1).standard_normal((size, size)))
    spectrum[size // 2], spectrum[:, size // 2] = 0, 0
    scene = np.fft.ifft2(spectrum).real

    fine = signal.resample(signal.resample(scene, size * part, axis=0), size * part, axis=1)
    psf = _psf(1.5, spacing=sampling / part, size=size * part)
    seen = np.fft.irfft2(np.fft.rfft2(fine) * np.fft.rfft2(psf), s=fine.shape)
    pixels = np.roll(seen, (part // 2, part // 2), (0, 1)).reshape(size, part, size, part).mean((1, 3))

    kernel = pixel_kernel(_double(1.5), _double(0.3), _double(sampling), size)
    np.testing.assert_allclose(
        blur(torch.as_tensor(scene)[None], kernel)[0].numpy(), pixels, atol=5e-3 * pixels.std()
    )


def test_elements_of_a_batch_are_independent() -> None:
    u, sin_alpha = _double(0.0, 3.0, -2.0), _double(0.1, 0.5, 0.9)
    sampling = _double(0.1, 0.2, 0.45)  # one alone needs a finer grid than the others
    waves = _double(0.0, 0.1, -0.05)
    together = pixel_kernel(u, sin_alpha, sampling, 64, {COMA_X: waves})
    for i in range(len(u)):
        one = slice(i, i + 1)
        alone = pixel_kernel(u[one], sin_alpha[one], sampling[one], 64, {COMA_X: waves[one]})
        np.testing.assert_allclose(together[i].numpy(), alone[0].numpy(), atol=1e-12)


def test_camera_psf_is_centred() -> None:
    psf = camera_psf(Instrument(10, 0.3), 10.0, 64).numpy()
    assert psf.sum() == pytest.approx(1)
    np.testing.assert_allclose(psf[1:, 1:], psf[1:, 1:][::-1, ::-1], atol=1e-14)
