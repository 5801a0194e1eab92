"""Planes that are exposed twice tell how well an exposure repeats itself: whether the microscope shakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from focusd.focus.likelihood import compare
from focusd.focus.measurement import Measurement
from focusd.focus.repeating import repeats_of
from focusd.focus.transfer import DIMMING, Repeats, Transfer
from focusd.optics.bands import ring_radii
from tests.focus.exposures import BLOCK_PX, exposure

STEEP = (ring_radii(BLOCK_PX) / ring_radii(BLOCK_PX).max()) ** 2
REPEATED_UM = np.linspace(-8.0, 8.0, 40)
SIZE = 0.6


def smeared(seen: Measurement, size: float) -> Measurement:
    blocks = seen.blocks
    signal = blocks.power - blocks.noise[..., None]
    return replace(
        seen, blocks=replace(blocks, power=signal * np.exp(-size * STEEP) + blocks.noise[..., None])
    )


def test_a_steady_microscope_has_no_scatter_and_does_not_shake() -> None:
    planes = [exposure(z_um) for z_um in REPEATED_UM]
    repeats = repeats_of(planes, planes)
    assert repeats.shaken is None
    assert repeats.scatter == pytest.approx(0.0, abs=1e-6)


def test_without_a_repeated_plane_an_exposure_is_taken_to_repeat_itself() -> None:
    repeats = repeats_of([exposure(0.0)], [])
    assert repeats.shaken is None
    assert not repeats.scatter.any()


def test_what_smears_take_is_told_with_its_size() -> None:
    rng = np.random.default_rng(4)
    planes = [smeared(exposure(z_um), SIZE * rng.standard_normal()) for z_um in REPEATED_UM]
    again = [smeared(exposure(z_um), SIZE * rng.standard_normal()) for z_um in REPEATED_UM]

    repeats = repeats_of(planes, again)

    assert repeats.shaken is not None
    seen = slice(0, 25)  # beyond that bands noise hides them
    told = np.sqrt((repeats.shaken**2).sum(0))
    assert told[seen] == pytest.approx(SIZE * STEEP[seen], rel=0.4, abs=0.01)
    assert repeats.scatter[seen].max() < 0.1


def test_frames_that_are_smeared_differently_tell_the_same_focus() -> None:
    planes_um = np.arange(-100, 101, 2.0)
    stack = [exposure(z_um) for z_um in planes_um]
    every = np.ones(stack[0].blocks.noise.shape, bool)
    spectra = [each.spectrum(every) for each in stack]
    steady = Transfer.of_stack(planes_um, spectra, 6.0)
    shaky = Transfer.of_stack(planes_um, spectra, 6.0, Repeats(np.zeros(len(STEEP)), SIZE * STEEP[None]))
    frames_um, candidates_um = np.array([-4.0, 3.0, 10.0]), np.arange(-30, 30.5, 0.5)
    frames = [
        smeared(exposure(z_um, 5.0), size).spectrum(every)
        for z_um, size in zip(frames_um, (0.0, 1.2, 0.4), strict=True)
    ]

    misled, told = (compare(frames_um, frames, each, candidates_um, 0.5) for each in (steady, shaky))

    assert candidates_um[told.chi2.argmin()] == pytest.approx(5.0, abs=0.5)
    assert told.chi2.min() < 0.2 * misled.chi2.min()
    assert steady.nuisances == pytest.approx(DIMMING)
    assert shaky.nuisances.shape == (2, len(STEEP))
