"""The Cramér–Rao bound against maximum likelihood on many noisy trials of a small case."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.bound import bounds

SIZE, NOISE, TRUE_UM = 16, 1.0, 0.3
PLANES_UM = (-1.5, 0.5, 2.0)
FY, FX = torch.fft.fftfreq(SIZE)[:, None].double(), torch.fft.rfftfreq(SIZE)[None, :].double()


def response(defocus_um: Tensor) -> Tensor:
    """Some complex transfer that changes with defocus; (…, y, x // 2 + 1)."""
    z = defocus_um[..., None, None]
    return torch.exp(-(FY**2 + FX**2) * (z - 0.2) ** 2 * 4 + 1j * FX * z)


def slope(defocus_um: Tensor) -> Tensor:
    return (response(defocus_um + 1e-5) - response(defocus_um - 1e-5)) / 2e-5


def spectrum(image: Tensor) -> Tensor:
    transformed: Tensor = torch.fft.rfft2(image, norm="ortho")
    return transformed


@pytest.fixture(scope="module")
def light() -> Tensor:
    return 30 * torch.rand((SIZE, SIZE), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def bound_of(light: Tensor, defocus: Tensor) -> list[float]:
    frames = zip(response(defocus), slope(defocus), strict=True)
    return list(bounds(spectrum(light).abs() ** 2, NOISE, frames))


def estimates(light: Tensor, trials: int) -> Tensor:
    """Maximum likelihood, the object of each candidate fitted away."""
    planes = torch.tensor(PLANES_UM, dtype=torch.float64)
    clean = torch.fft.irfft2(spectrum(light) * response(planes - TRUE_UM), s=(SIZE, SIZE), norm="ortho")
    generator = torch.Generator().manual_seed(5)
    candidates = TRUE_UM + torch.linspace(-0.15, 0.15, 301, dtype=torch.float64)
    h = response(planes[None, :] - candidates[:, None])
    unit = h / (h.abs() ** 2).sum(1, keepdim=True).sqrt()
    found = []
    for _ in range(trials):
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64) * NOISE**0.5
        explained = (unit.conj() * spectrum(clean + noise)).sum(1).abs() ** 2
        explained[..., 1:-1] *= 2
        found.append(candidates[explained.sum((-2, -1)).argmax()])
    return torch.stack(found)


def test_maximum_likelihood_reaches_the_bound(light: Tensor) -> None:
    bound = bound_of(light, torch.tensor(PLANES_UM, dtype=torch.float64) - TRUE_UM)[-1]
    error = estimates(light, 1500) - TRUE_UM
    assert float(error.square().mean().sqrt()) == pytest.approx(bound, rel=0.06)


def test_one_frame_tells_nothing_and_each_further_one_helps(light: Tensor) -> None:
    after = bound_of(light, torch.tensor([-1.2, 0.2, 1.7], dtype=torch.float64))
    assert after[0] > 1e4 * after[1]
    assert after[1] > after[2]


def test_the_same_plane_again_tells_nothing(light: Tensor) -> None:
    assert min(bound_of(light, torch.full((3,), 0.7, dtype=torch.float64))) > 1e4


def test_twice_the_light_halves_it(light: Tensor) -> None:
    defocus = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert bound_of(2 * light, defocus)[1] == pytest.approx(bound_of(light, defocus)[1] / 2)


def test_an_empty_field_has_no_bound() -> None:
    empty = bound_of(torch.zeros((SIZE, SIZE), dtype=torch.float64), torch.tensor([-1.0, 1.0]))
    assert np.isinf(empty).all()
