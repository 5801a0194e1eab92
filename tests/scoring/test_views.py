"""Preprocessing against slices, padding and spectra written out by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from focusd.scoring.views import (
    BINNINGS,
    CANONICAL_SAMPLING,
    RINGS,
    SAMPLING_TOLERANCE,
    TILE_PX,
    Views,
    levels,
    radial_spectra,
    resample,
    tile_starts,
    views_around,
    views_at,
    views_of,
)

HEIGHT, WIDTH = 640, 768


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    """A frame of counts without any structure, so that each slice of it is unlike every other."""
    return torch.rand((height, width), generator=torch.Generator().manual_seed(seed)) * 1000 + 200


def at(frame: Tensor, *places: tuple[int, int]) -> Views:
    """The views of the tiles that start at some places (y, x)."""
    y, x = torch.tensor(places).unbind(1)
    return views_at(frame, y, x)


def standard(crop: Tensor) -> np.ndarray:
    """Zero mean and unit variance, in double precision."""
    pixels = crop.double().numpy()
    return np.asarray((pixels - pixels.mean()) / pixels.std())


def blocks(crop: Tensor, binning: int) -> Tensor:
    """Averages over blocks."""
    rows, columns = (n // binning for n in crop.shape)
    return crop.reshape(rows, binning, columns, binning).mean((1, 3))


@given(st.integers(TILE_PX, 6000))
def test_tiles_cover_a_frame_from_edge_to_edge_evenly_and_are_as_few_as_can_be(extent: int) -> None:
    starts = tile_starts(extent)
    steps = [after - before for before, after in pairwise(starts)]
    assert starts[0] == 0
    assert starts[-1] == extent - TILE_PX
    assert all(0 < step <= TILE_PX for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert len(starts) == math.ceil(extent / TILE_PX)


@given(st.integers(1, TILE_PX - 1))
def test_a_frame_smaller_than_a_tile_has_one_tile_around_it(extent: int) -> None:
    (start,) = tile_starts(extent)
    before, after = -start, start + TILE_PX - extent
    assert start < 0
    assert 0 <= before - after <= 1


def test_views_have_their_shapes_and_each_is_normalised() -> None:
    views = at(noise(HEIGHT, WIDTH), (0, 0), (31, 77), (512, 640))
    assert views.pixels.shape == (3, len(BINNINGS), TILE_PX, TILE_PX)
    assert views.spectra.shape == (3, len(BINNINGS), RINGS)
    assert views.contrast.shape == (3, len(BINNINGS))
    assert views.pixels.mean((-2, -1)).numpy() == pytest.approx(np.zeros((3, 3)), abs=1e-4)
    assert views.pixels.var((-2, -1)).numpy() == pytest.approx(np.ones((3, 3)), abs=1e-3)


@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (128, 513)])
def test_a_tile_is_the_frames_slice_also_where_the_frame_is_not_square(shape: tuple[int, int]) -> None:
    frame = noise(*shape)
    places = [(0, 0), (0, shape[1] - TILE_PX), (shape[0] - TILE_PX, 5), (shape[0] - TILE_PX, 0)]
    seen = at(frame, *places).pixels[:, 0].numpy()
    for tile, (y, x) in zip(seen, places, strict=True):
        expected = standard(frame[y : y + TILE_PX, x : x + TILE_PX])
        np.testing.assert_allclose(tile, expected, atol=1e-3)


@pytest.mark.parametrize(("level", "binning"), [(1, 2), (2, 4)])
def test_binned_views_are_centred_on_the_tile(level: int, binning: int) -> None:
    frame, y, x = noise(HEIGHT, WIDTH), 256, 320
    half = binning * TILE_PX // 2
    row, column = y + TILE_PX // 2, x + TILE_PX // 2
    around = frame[row - half : row + half, column - half : column + half]
    view = at(frame, (y, x)).pixels[0, level].numpy()
    np.testing.assert_allclose(view, standard(blocks(around, binning)), atol=1e-3)


@pytest.mark.parametrize(("level", "binning"), [(1, 2), (2, 4)])
def test_binned_views_of_a_corner_tile_stay_inside_the_frame(level: int, binning: int) -> None:
    frame = noise(HEIGHT, WIDTH)
    extent = binning * TILE_PX
    corner = frame[HEIGHT - extent :, WIDTH - extent :]
    view = at(frame, (HEIGHT - TILE_PX, WIDTH - TILE_PX)).pixels[0, level].numpy()
    np.testing.assert_allclose(view, standard(blocks(corner, binning)), atol=1e-3)


def test_a_frame_smaller_than_a_tile_is_completed_by_reflection() -> None:
    frame = noise(100, 90)
    view = at(frame, (tile_starts(100)[0], tile_starts(90)[0])).pixels[0, 0].numpy()
    padded = np.pad(frame.numpy(), [(14, 14), (19, 19)], mode="symmetric")
    np.testing.assert_allclose(view, standard(torch.from_numpy(padded)), atol=1e-3)


def test_a_frame_smaller_than_a_binned_view_is_completed_by_reflection() -> None:
    frame = noise(400, 400)
    view = at(frame, (136, 136)).pixels[0, 2].numpy()
    padded = np.pad(blocks(frame, 4).numpy(), [(14, 14), (14, 14)], mode="symmetric")
    np.testing.assert_allclose(view, standard(torch.from_numpy(padded)), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 2), (5, 129)])
def test_the_smallest_frames_have_finite_views(shape: tuple[int, int]) -> None:
    views = at(noise(*shape), (tile_starts(shape[0])[0], tile_starts(shape[1])[-1]))
    assert views.pixels.shape == (1, 3, TILE_PX, TILE_PX)
    assert all(torch.isfinite(part).all() for part in (views.pixels, views.spectra, views.contrast))


@pytest.mark.parametrize("level", [0.0, 1.0, 100.0, 65535.0])
def test_a_constant_tile_is_zeros_of_the_least_contrast(level: float) -> None:
    views = at(torch.full((300, 300), level), (10, 20))
    assert float(views.pixels.abs().max()) < 1e-2
    assert torch.isfinite(views.spectra).all()
    assert views.contrast.numpy() == pytest.approx(np.full((1, 3), -4.0))


def test_gain_changes_nothing() -> None:
    frame, place = noise(300, 400), (50, 60)
    dim, bright = at(frame, place), at(frame * 37.5, place)
    torch.testing.assert_close(bright.pixels, dim.pixels, atol=1e-3, rtol=0)
    torch.testing.assert_close(bright.spectra, dim.spectra, atol=1e-3, rtol=0)
    torch.testing.assert_close(bright.contrast, dim.contrast, atol=1e-4, rtol=0)


def test_offset_changes_the_contrast_alone() -> None:
    frame, place = noise(300, 400), (50, 60)
    before, after = at(frame, place), at(frame + 5000, place)
    torch.testing.assert_close(after.pixels, before.pixels, atol=1e-2, rtol=0)
    torch.testing.assert_close(after.spectra, before.spectra, atol=1e-2, rtol=0)
    assert bool((after.contrast < before.contrast - 0.5).all())


def test_contrast_is_the_logarithm_of_deviation_over_mean() -> None:
    frame = noise(TILE_PX, TILE_PX)
    expected = math.log10(float(frame.std(correction=0) / frame.mean()))
    assert float(at(frame, (0, 0)).contrast[0, 0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("cycles_y", "cycles_x"), [(0, 20), (33, 0), (10, 12), (-30, 41), (0, 2)])
def test_a_wave_peaks_in_the_ring_of_its_frequency(cycles_y: int, cycles_x: int) -> None:
    steps = torch.arange(TILE_PX) / TILE_PX
    wave = torch.cos(2 * math.pi * (cycles_y * steps[:, None] + cycles_x * steps[None, :]))
    spectrum = radial_spectra(wave[None, None])
    assert spectrum.shape == (1, 1, RINGS)
    assert int(spectrum[0, 0].argmax()) == math.floor(math.hypot(cycles_y, cycles_x))


def test_white_noise_has_a_flat_spectrum_of_the_windows_power() -> None:
    """Orthonormal transform: the power is the mean of the squared window, (3/8)² but for the end points."""
    generator = torch.Generator().manual_seed(3)
    spectra = radial_spectra(torch.randn((64, 3, TILE_PX, TILE_PX), generator=generator))
    mean = (10**spectra).flatten(0, 1).mean(0).log10()[8:].numpy()
    power = (0.375 * (TILE_PX - 1) / TILE_PX) ** 2
    assert mean == pytest.approx(np.full(RINGS - 8, math.log10(power)), abs=0.03)


def test_radial_spectra_do_not_know_directions() -> None:
    """Mirror images are alike; turned ones nearly, for the half-plane's own axis counts twice in a ring."""
    pixels = functional.avg_pool2d(noise(TILE_PX, TILE_PX)[None, None], (1, 5), stride=1, padding=(0, 2))
    spectra = radial_spectra(pixels)
    torch.testing.assert_close(radial_spectra(pixels.flip(-1)), spectra, atol=1e-3, rtol=0)
    torch.testing.assert_close(radial_spectra(pixels.flip(-2)), spectra, atol=1e-3, rtol=0)
    torch.testing.assert_close(radial_spectra(pixels.mT)[..., 4:], spectra[..., 4:], atol=0.1, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 1 - 0.99 * SAMPLING_TOLERANCE, 1 + 0.99 * SAMPLING_TOLERANCE, None])
def test_a_frame_near_the_canonical_sampling_or_of_an_unknown_one_is_left_alone(ratio: float | None) -> None:
    frame = noise(50, 70)
    same, factor = resample(frame, None if ratio is None else ratio * CANONICAL_SAMPLING)
    assert same is frame
    assert factor == 1.0


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.2, 2.0])
def test_a_frame_is_scaled_by_its_sampling_over_the_canonical_one(ratio: float) -> None:
    y, x = torch.arange(120)[:, None] - 59.5, torch.arange(200)[None, :] - 79.5
    blob = torch.exp(-(y**2 + x**2) / (2 * 9.0**2))
    scaled, factor = resample(blob, ratio * CANONICAL_SAMPLING)
    assert factor == pytest.approx(ratio)
    assert scaled.shape == (round(120 * ratio), round(200 * ratio))
    column = scaled.sum(0) / scaled.sum()
    place = torch.arange(len(column)) + 0.5
    centre = float((column * place).sum())
    assert centre == pytest.approx(80 * ratio, abs=0.05)
    assert float((column * (place - centre) ** 2).sum()) ** 0.5 == pytest.approx(9.0 * ratio, rel=0.05)


@pytest.mark.parametrize("ratio", [0.4, 1.7])
def test_resampling_keeps_the_mean(ratio: float) -> None:
    frame = noise(150, 220)
    scaled, _ = resample(frame, ratio * CANONICAL_SAMPLING)
    assert float(scaled.mean()) == pytest.approx(float(frame.mean()), rel=0.005)


def test_detail_too_fine_for_the_new_pixels_does_not_turn_into_other_detail() -> None:
    """A wave of 0.42 cycles a pixel, which 0.4 times as many pixels would show as a slow one."""
    wave = torch.cos(2 * math.pi * 0.42 * torch.arange(200))[None, :].expand(60, 200)
    scaled, _ = resample(wave, 0.4 * CANONICAL_SAMPLING)
    assert float(scaled[:, 4:-4].abs().max()) < 0.1


def test_no_frame_is_resampled_to_nothing() -> None:
    assert resample(torch.ones(1, 3), 0.1 * CANONICAL_SAMPLING)[0].shape == (1, 1)


@pytest.mark.parametrize("shape", [(2048, 2048), (1023, 1302), (515, 514), (512, 700), (1025, 512)])
def test_the_surroundings_of_a_tile_are_all_that_its_views_see(shape: tuple[int, int]) -> None:
    frame = torch.rand(shape) * 1000
    y, x = places(shape, 6)
    assert_same(views_around(frame, y, x), views_at(frame, y, x))


@pytest.mark.parametrize("shape", [(2048, 2048), (1023, 1302), (4000, 300), (513, 300), (60, 700), (700, 60)])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_however_few_tiles_are_cut_they_are_the_same(shape: tuple[int, int], count: int) -> None:
    frame = torch.randint(0, 65536, shape).to(torch.uint16)
    y, x = places(shape, count)
    assert_same(views_of(frame, count)(y, x), views_at(frame, y, x))


def places(shape: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Tiles (y, x) of a frame, the first and the last among them where there are two."""
    y, x = (torch.randint(0, max(1, extent - TILE_PX), (count,)) for extent in shape)
    y[:2], x[:2] = (torch.tensor([0, extent - TILE_PX])[:count] for extent in shape)
    return y, x


def assert_same(some: Views, others: Views) -> None:
    for part, expected in zip(vars(some).values(), vars(others).values(), strict=True):
        torch.testing.assert_close(part, expected)


@pytest.mark.parametrize("shape", [(2048, 515), (769, 600), (1025, 513), (512, 512), (1022, 530)])
def test_a_frame_binned_in_stretches_is_the_frame_binned_as_a_whole(shape: tuple[int, int]) -> None:
    frame = torch.randint(0, 65536, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    for level, binning in zip(levels(frame)[1:], BINNINGS[1:], strict=True):
        assert level.equal(functional.avg_pool2d(frame.float()[None, None], binning)[0, 0])
