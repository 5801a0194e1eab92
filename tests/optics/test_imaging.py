"""Blur, vignetting and the camera against scipy and against the noise model."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from focusd.optics.imaging import Camera, blur, kernel_transfer, vignette


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(32, 32), (31, 47), (50, 24), (9, 9)])
@pytest.mark.parametrize("size", [8, 9])
def test_blur_is_circular_convolution(shape: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(2)
    scene, kernel = rng.random((2, *shape)), rng.random((2, size, size))
    origin_first = np.fft.ifftshift(kernel, axes=(-2, -1))

    blurred = blur(torch.as_tensor(scene), torch.as_tensor(origin_first)).numpy()

    for i in range(2):
        np.testing.assert_allclose(blurred[i], ndimage.convolve(scene[i], kernel[i], mode="wrap"), rtol=1e-10)


def test_transfer_of_a_point_is_one() -> None:
    point = torch.zeros(1, 8, 8, dtype=torch.float64)
    point[0, 0, 0] = 1
    transfer = kernel_transfer(point, (15, 22))
    np.testing.assert_allclose(transfer.numpy(), np.ones((1, 15, 12)), atol=1e-12)


def test_vignette_falls_to_the_corners() -> None:
    light = vignette((21, 31), 0.4, torch.empty(0, dtype=torch.float64)).numpy()
    assert light[10, 15] == pytest.approx(1)
    np.testing.assert_allclose(light[[0, 0, -1, -1], [0, -1, 0, -1]], 0.6)
    np.testing.assert_allclose(light, light[::-1, ::-1])


@pytest.mark.parametrize("electrons", [0.0, 3.0, 60.0, 150.0, 8000.0])
def test_mean_and_variance_of_an_exposure(electrons: float) -> None:
    """Counts = gain·(Poisson(N) + read noise) + offset, rounded: σ² = gain²·(N + r²) + 1/12.

    200,000 pixels: five standard errors of the mean, and 3 % for the variance (five standard errors are
    1.6 %, a little more for few electrons).
    """
    camera = Camera(full_well=20000.0, read_noise=2.5, offset=400.0)
    gain = (camera.full_scale - camera.offset) / camera.full_well
    counts = camera.expose(torch.full((400, 500), electrons, dtype=torch.float64), _generator()).numpy()

    variance = gain**2 * (electrons + camera.read_noise**2) + 1 / 12
    standard_error = np.sqrt(variance / counts.size)
    assert counts.mean() == pytest.approx(electrons * gain + camera.offset, abs=5 * standard_error)
    assert counts.var() == pytest.approx(variance, rel=0.03)


def test_dim_pixels_have_poisson_statistics() -> None:
    """At two electrons a Gaussian would not do: the third central moment of a Poisson variate is its mean."""
    camera = Camera(full_well=655.35, read_noise=0.0, offset=0.0)  # 100 counts an electron
    counts = camera.expose(torch.full((300, 1000), 2.0), _generator()).numpy() / 100
    assert np.mean((counts - counts.mean()) ** 3) == pytest.approx(2.0, rel=0.05)
    assert np.mean(counts == 0) == pytest.approx(np.exp(-2), rel=0.03)


@pytest.mark.parametrize("bit_depth", [8, 12, 16])
def test_counts_are_whole_and_clipped(bit_depth: int) -> None:
    camera = Camera(bit_depth=bit_depth, full_well=1000.0, offset=10.0)
    ramp = torch.linspace(-50, 2000, 4096).reshape(64, 64)
    counts = camera.expose(ramp, _generator()).numpy()

    assert camera.full_scale == 2**bit_depth - 1
    assert np.all(counts == np.round(counts))
    assert counts.min() >= 0
    assert counts.max() == camera.full_scale
    assert np.all(counts[ramp.numpy() > 1300] == camera.full_scale)


def test_read_noise_does_not_go_below_zero() -> None:
    counts = Camera(offset=0.0, read_noise=50.0).expose(torch.zeros(64, 64), _generator())
    assert float(counts.min()) == 0
    assert float(counts.max()) > 0


@pytest.mark.parametrize("electrons", [20.0, 5000.0])
def test_exposures_repeat_from_a_seed(electrons: float) -> None:
    scene = torch.full((32, 32), electrons)
    first, again, other = (Camera().expose(scene, _generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
