"""Frames of one z that have moved against each other are laid on each other before their difference is noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from focusd.scoring.aligning import Image, aligned

SHAPE = (256, 320)
NOISE = 30.0


def noisy(seed: int) -> Image:
    return np.random.default_rng(seed).normal(0, NOISE, SHAPE).astype(np.float32)


def scene() -> Image:
    detail = gaussian_filter(np.random.default_rng(9).standard_normal(SHAPE), 2, mode="wrap")
    return np.asarray(1000 + 400 * detail / detail.std(), np.float32)


def moved(image: Image, by_px: tuple[float, float]) -> Image:
    return np.asarray(np.fft.ifft2(fourier_shift(np.fft.fft2(image), by_px)).real, np.float32)


@pytest.mark.parametrize("by_px", [(0.5, -0.3), (2.25, 1.0), (-6.0, 4.5)])
def test_what_has_moved_is_moved_back_and_noise_alone_is_left(by_px: tuple[float, float]) -> None:
    one, other = scene() + noisy(1), moved(scene(), by_px) + noisy(2)

    back, moved_px = aligned(one, other)

    assert moved_px == pytest.approx(np.hypot(*by_px), abs=0.1)
    inside = (slice(16, -16),) * 2
    assert (other - one)[inside].std() > 1.5 * NOISE
    assert (other - back)[inside].std() == pytest.approx(np.sqrt(2) * NOISE, rel=0.1)


@pytest.mark.parametrize("shown", [scene(), np.full(SHAPE, 1000, np.float32)], ids=["a scene", "nothing"])
def test_frames_that_rest_are_left_as_they_are(shown: Image) -> None:
    one, other = shown + noisy(1), shown + noisy(2)
    back, moved_px = aligned(one, other)
    assert back is one
    assert moved_px == 0.0
