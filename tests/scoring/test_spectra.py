"""Power spectra of a frame's blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from focusd.optics.bands import band_modes, band_of, mean_in_bands
from focusd.scoring.spectra import BLOCK_PX, MAX_BLOCKS, QUANTISATION, block_spectra


def whole(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    return (0, 0, *shape)


def noise(shape: tuple[int, int], sd: float) -> np.ndarray:
    return (1000 + sd * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(512, 512), (300, 700), (200, 260), (64, 80)])
def test_white_noise_has_its_variance_in_every_band(shape: tuple[int, int]) -> None:
    spectra = block_spectra(noise(shape, 7.0), whole(shape))
    mean = spectra.power.mean((0, 1))
    tolerance = 6 / np.sqrt(band_modes(spectra.size_px))
    assert (np.abs(mean / 49 - 1) < tolerance).all()
    assert spectra.noise.mean() == pytest.approx(49, rel=0.5)


@pytest.mark.parametrize("size", [8, 75, 100, 256])
def test_a_band_holds_the_mean_of_its_frequencies_and_the_last_one_the_corners(size: int) -> None:
    blocks = np.random.default_rng(1).standard_normal((3, size, size))
    spectra = np.fft.rfft2(blocks)
    squares = np.stack([spectra.real**2, spectra.imag**2], axis=-1).astype(np.float32)
    power, band = np.abs(spectra) ** 2, band_of(size)
    expected = [power[:, band == number].mean(-1) for number in range(band.max() + 1)]
    assert mean_in_bands(squares) == pytest.approx(np.stack(expected, axis=-1), rel=1e-4)


@pytest.mark.parametrize("shape", [(512, 512), (2048, 2048), (256, 4096), (100, 300)])
def test_blocks_cover_the_frame(shape: tuple[int, int]) -> None:
    spectra = block_spectra(noise(shape, 1.0), whole(shape))
    half = spectra.size_px / 2
    assert spectra.power.shape[:2] == spectra.noise.shape == spectra.y_px.shape == spectra.x_px.shape
    assert spectra.noise.size <= MAX_BLOCKS
    assert (spectra.y_px.min(), spectra.x_px.min()) == (half, half)
    assert (spectra.y_px.max(), spectra.x_px.max()) == (shape[0] - half, shape[1] - half)


@pytest.mark.parametrize("shape", [(2048, 2048), (512, 1024), (300, 300), (100, 300)])
def test_thinned_spectra_are_those_of_every_other_block(shape: tuple[int, int]) -> None:
    frame = noise(shape, 5.0)
    some, chosen = (
        block_spectra(frame, whole(shape), thinned=True),
        block_spectra(frame, whole(shape)).thinned(),
    )
    for name in ("power", "noise", "y_px", "x_px"):
        assert getattr(some, name) == pytest.approx(getattr(chosen, name), rel=1e-4), name
    assert some.size_px == chosen.size_px


@pytest.mark.parametrize("shape", [(2048, 2048), (512, 1024), (300, 300), (100, 300)])
def test_thinned_spectra_are_completed_without_being_computed_again(shape: tuple[int, int]) -> None:
    frame = noise(shape, 5.0)
    some, all_at_once = block_spectra(frame, whole(shape), thinned=True), block_spectra(frame, whole(shape))
    completed = block_spectra(frame, whole(shape), known=some)
    assert completed.power == pytest.approx(all_at_once.power, rel=1e-4)
    assert completed.noise == pytest.approx(all_at_once.noise, rel=1e-4)
    marked = block_spectra(frame, whole(shape), known=replace(some, power=1e9 * some.power))
    assert (marked.power > 1e6 * all_at_once.power).all(-1).sum() == some.noise.size


def test_a_region_chooses_its_blocks() -> None:
    frame = noise((768, 768), 1.0)
    frame[:256, :256] += 500 * np.random.default_rng(2).standard_normal((256, 256)).astype(np.float32)
    inside = block_spectra(frame, (0, 0, 256, 256))
    outside = block_spectra(frame, (384, 384, 200, 300))
    assert inside.power.shape[:2] == (1, 1)
    assert inside.power.min() > 100 * outside.power.max()


def test_a_region_smaller_than_a_block_is_looked_at_with_its_surroundings() -> None:
    spectra = block_spectra(noise((512, 512), 1.0), (500, 0, 12, 12))
    assert (spectra.y_px.item(), spectra.x_px.item()) == (512 - BLOCK_PX / 2, BLOCK_PX / 2)


def test_the_power_of_a_grating_lies_in_its_band() -> None:
    x = np.arange(512)
    frame = np.broadcast_to(100 + 10 * np.sin(2 * np.pi * x * 40 / 256), (512, 512)).astype(np.float32)
    power = block_spectra(frame, whole((512, 512))).power.mean((0, 1))
    top = int(power.argmax())
    assert power[top] > 1e4 * np.delete(power, [top - 1, top, top + 1]).max()


def test_the_smallest_frames_have_spectra() -> None:
    assert np.isfinite(block_spectra(noise((20, 32), 1.0), whole((20, 32))).power).all()


@pytest.mark.parametrize("value", [0, 77, 65535])
def test_a_constant_frame_has_the_noise_of_counting(value: int) -> None:
    spectra = block_spectra(np.full((256, 256), value, np.uint16), whole((256, 256)))
    assert (spectra.noise == QUANTISATION).all()
    assert (spectra.power == QUANTISATION).all()
