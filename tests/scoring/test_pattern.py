"""What stays sharp at every z is learnt where there is something, and only there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.dirt import Dirt
from bench.synthetic import BACKGROUND, INSTRUMENT, held_out_objects, optical_transfers
from focusd.focus.measurement import Measurement
from focusd.focus.sensor import BAD, Plane
from focusd.scoring.pattern import learn_pattern
from focusd.scoring.spectra import block_spectra

SHAPE = (512, 512)
PLANES_UM = np.linspace(-98, 98, 39)
ELECTRONS = 8000.0
NONE = np.zeros((1, 1))


@cache
def blurs() -> Tensor:
    return optical_transfers(PLANES_UM)


@cache
def objects() -> list[NDArray[np.float32]]:
    return held_out_objects(None, 3, 11)


def learnt(dirt: Dirt, contrast: float | None = None, texture: int = 0) -> Plane | None:
    """From a stack.

    Args:
        contrast: standard deviation of the object over its mean; None: as it is.
    """
    light = objects()[texture] + np.float32(BACKGROUND)
    if contrast is not None:
        light = (0.6 * (1 + contrast * (light - light.mean()) / light.std())).astype(np.float32)
    spectrum, rng = torch.fft.rfft2(torch.from_numpy(light)), np.random.default_rng(1)
    frames, measured = [], []
    for z_um, blur in zip(PLANES_UM, blurs(), strict=True):
        image = ELECTRONS * torch.fft.irfft2(spectrum * blur, s=SHAPE).clamp(min=0).numpy()
        shown = dirt.shown(image, ELECTRONS)
        frames.append((shown + rng.standard_normal(SHAPE) * np.sqrt(shown)).astype(np.uint16))
        blocks = block_spectra(frames[-1], (0, 0, *SHAPE))
        measured.append(Measurement(float(z_um), NONE, NONE, NONE, NONE, NONE, blocks))
    return learn_pattern(lambda number: frames[number], measured, INSTRUMENT)


@pytest.mark.parametrize(("texture", "contrast"), [(0, None), (1, None), (2, None), (1, 0.04)])
def test_a_clean_camera_has_no_pattern(texture: int, contrast: float | None) -> None:
    assert learnt(Dirt(), contrast, texture) is None


@pytest.mark.parametrize(
    ("dirt", "contrast", "left"),
    [
        (Dirt(specks=30), None, 0.6),
        (Dirt(specks=30, absorption=0.05), 0.04, 0.6),
        (Dirt(specks=200, absorption=0.6), None, 0.3),
        (Dirt(fixed=0.01), None, 0.5),
    ],
)
def test_most_of_dust_and_fixed_pattern_is_learnt(dirt: Dirt, contrast: float | None, left: float) -> None:
    pattern, true = learnt(dirt, contrast), dirt.response(SHAPE, 5) - 1
    assert pattern is not None
    assert (pattern.values - true).std() < left * true.std()
    assert len(pattern.packed) < 0.6 * true.size


def test_hot_pixels_are_found() -> None:
    dirt = Dirt(hot=200)
    pattern, hot = learnt(dirt), dirt.hot_pixels(SHAPE, 5) > 0.5
    assert pattern is not None
    assert (np.abs(pattern.values) > BAD)[hot].mean() > 0.9
