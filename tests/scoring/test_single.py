"""The sharpness of a client's frames, by which a hold knows whether they are still in focus."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from focusd.scoring.single import sharpness


def frame(blur_px: float, electrons: float, seed: int) -> NDArray[np.uint16]:
    """A texture, out of focus by so much, as a camera exposes it, two counts an electron."""
    texture = ndimage.gaussian_filter(
        np.random.default_rng(1).normal(size=(512, 512)), (blur_px**2 + 4) ** 0.5
    )
    light = electrons * (1 + texture / 0.2).clip(0.05)
    counts: NDArray[np.uint16] = (2 * np.random.default_rng(seed).poisson(light)).astype(np.uint16)
    return counts


@pytest.mark.parametrize("electrons", [10.0, 8000.0])
def test_a_loss_of_sharpness_is_the_same_in_little_light(electrons: float) -> None:
    sharp, blurred = (sharpness(frame(blur_px, electrons, 2), None) for blur_px in (0.0, 1.5))
    assert blurred / sharp == pytest.approx(0.45, abs=0.1)
    again = sharpness(frame(0.0, electrons, 3), None)
    assert again == pytest.approx(sharp, rel=0.1), "it repeats"


def test_noise_is_no_sharpness_and_no_light_has_none() -> None:
    noise = np.random.default_rng(1).poisson(10.0, (512, 512)).astype(np.uint16)
    assert abs(sharpness(noise, None)) < 0.01
    assert sharpness(np.zeros((64, 64), np.uint16), None) == 0.0
    assert sharpness(np.ones((2, 2), np.uint16), None) == 0.0
    assert sharpness(noise, (0, 0, 1, 1)) == 0.0
