"""Noise that is not white, told from pairs of frames of one z."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from focusd.focus.measurement import Measurement, NoisePair
from focusd.focus.noise import noise_in
from focusd.optics.bands import BlockSpectra
from focusd.scoring.spectra import block_spectra
from tests.focus.exposures import exposure

SIDE_PX = 512
REGION = (0, 0, SIDE_PX, SIDE_PX)


def frame(seed: int, smooth_px: float, sigma: float = 30.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, (SIDE_PX, SIDE_PX))
    filtered = gaussian_filter(noise, smooth_px, mode="wrap") if smooth_px else noise
    return np.rint(1000 + filtered).astype(np.uint16)


def spectra(pixels: np.ndarray) -> BlockSpectra:
    return block_spectra(pixels, REGION)


def pair(seed: int, smooth_px: float) -> Measurement:
    one, other = frame(seed, smooth_px), frame(seed + 1, smooth_px)
    difference = (other.astype(np.float32) - one) / np.float32(np.sqrt(2))
    told = NoisePair(replace(spectra(difference), level=1000.0), 0.0)
    return replace(exposure(0.0), blocks=spectra(other), noise=told)


def test_white_noise_changes_nothing() -> None:
    assert noise_in([pair(seed, 0.0) for seed in (1, 3, 5)]) is None


def test_without_a_pair_noise_is_taken_for_white() -> None:
    assert noise_in([exposure(z_um) for z_um in (-5.0, 0.0, 5.0)]) is None


@pytest.mark.parametrize("smooth_px", [0.4, 0.6, 1.0])
def test_the_noise_of_a_camera_that_smooths_is_white_again(smooth_px: float) -> None:
    noise = noise_in([pair(seed, smooth_px) for seed in (1, 3, 5)])
    assert noise is not None
    white = noise.whiten(spectra(frame(99, smooth_px)))
    assert white.power.mean((0, 1)) == pytest.approx(white.noise.mean(), rel=0.25)
    assert white.noise_error is noise.error


def test_what_is_whitened_can_be_coloured_again() -> None:
    noise = noise_in([pair(seed, 0.5) for seed in (1, 3, 5)])
    assert noise is not None
    blocks = spectra(frame(7, 0.5))
    assert noise.colour(noise.whiten(blocks)).power == pytest.approx(blocks.power)


def test_corners_that_hold_the_sample_do_not_tell_the_noise() -> None:
    """Those of a colour mosaic do; then the light tells how much noise there is."""
    stack = [pair(seed, 0.0) for seed in (1, 3, 5)]
    lit = [replace(m, blocks=replace(m.blocks, noise=3 * m.blocks.noise)) for m in stack]
    noise = noise_in(lit)
    assert noise is not None
    blocks = replace(lit[0].blocks, level=2000.0)
    assert noise.whiten(blocks).noise.mean() == pytest.approx(2 * 30.0**2, rel=0.1)
