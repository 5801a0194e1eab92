"""From a frame to what the network sees: the one preprocessing path of training, calibration and autofocus.

A location of the frame is a 128×128 px tile. The network sees it three times, each 128×128 px: as it is, and
the surroundings at 2× and 4× binning. Far from focus the blur is wider than the tile itself, and only the
binned views hold it. Each view is normalised by itself; its radial power spectrum goes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

PREPROCESSING_VERSION = 1
"""Calibrations record it: scores of another preprocessing are not comparable."""

TILE_PX = 128
BINNINGS = (1, 2, 4)
RINGS = 64
"""Rings of the radial power spectrum; one frequency step of the tile's FFT each."""

CANONICAL_SAMPLING = 0.35
"""Pixel, in λ/NA, at which the network scores; 10×/0.3 with 6.5 µm pixels has 0.354."""

SAMPLING_TOLERANCE = 0.1
"""Frames within this fraction of the canonical sampling are not resampled, which would cost detail."""


_SEEN_PX = BINNINGS[-1] * TILE_PX + BINNINGS[-1] - 1
"""Of a frame by the views of one tile; at its ends they see what is left over by the binning, too."""
_LEAST_CONTRAST = 1e-4
_ROWS = 256
"""Binned at a time."""


@dataclass(frozen=True)
class Views:
    """A batch of locations.

    Attributes:
        pixels: (batch, 3, 128, 128), each view with zero mean and unit variance.
        spectra: (batch, 3, 64), log₁₀ of each view's radial power spectrum.
        contrast: (batch, 3), log₁₀ of each view's relative contrast (SD over mean level).
    """

    pixels: Tensor
    spectra: Tensor
    contrast: Tensor


def resample(frame: Tensor, sampling: float | None) -> tuple[Tensor, float]:
    """A frame (y, x) brought to the canonical sampling, and the factor by which its axes were scaled.

    Args:
        sampling: the frame's pixel in λ/NA; None leaves the frame alone and the scale to the calibration.
    """
    if sampling is None or abs(sampling / CANONICAL_SAMPLING - 1) <= SAMPLING_TOLERANCE:
        return frame, 1.0
    factor = sampling / CANONICAL_SAMPLING
    shape = [max(1, round(n * factor)) for n in frame.shape]
    scaled = functional.interpolate(frame[None, None].float(), size=shape, mode="bilinear", antialias=True)
    return scaled[0, 0], factor


def tile_starts(extent: int) -> list[int]:
    """First pixels of the tiles along one axis: as few as cover it, evenly spread, the edge included."""
    if extent <= TILE_PX:
        return [(extent - TILE_PX) // 2]  # negative: the tile is completed by reflection
    count = math.ceil(extent / TILE_PX)
    return [round(i * (extent - TILE_PX) / (count - 1)) for i in range(count)]


def views_at(frame: Tensor, y: Tensor, x: Tensor) -> Views:
    """The views of the tiles whose first pixels are (y, x).

    Args:
        frame: (height, width), float, any scale.
        y, x: (batch,) whole numbers.
    """
    return views_in(levels(frame), y, x)


def levels(frame: Tensor, each: Callable[..., Iterable[Tensor]] = map) -> list[Tensor]:
    """The frame at each binning, no level smaller than a view: what all views of one frame are cut from.

    Args:
        frame: (height, width), any numbers; the binned ones are in single precision.
        each: like the builtin `map`: where a few rows at a time are computed.
    """
    binned = [frame]
    for before, binning in pairwise(BINNINGS):  # from level to level, which is half the work
        parts = each(partial(_binned, binning=binning // before), _few_rows(binned[-1]))
        binned.append(torch.cat(list(parts)))
    return [_completed(_completed(level).mT).mT for level in binned]


def _few_rows(frame: Tensor) -> list[Tensor]:
    """The frame in stretches that fit into a core's cache: whole blocks, but for the rest in the last one.

    On a GPU in one: there each step costs, not its size.
    """
    first = range(_ROWS, len(frame) - _ROWS + 1, _ROWS) if frame.is_cpu else ()
    return list(torch.tensor_split(frame, list(first)))


def views_in(levels: list[Tensor], y: Tensor, x: Tensor) -> Views:
    """As `views_at`, from the `levels` of a frame."""
    return normalise(_crops(levels, y, x))


def views_of(
    frame: Tensor, count: int, each: Callable[..., Iterable[Tensor]] = map
) -> Callable[[Tensor, Tensor], Views]:
    """What cuts the views of so many tiles of a frame, a batch of them at a time.

    Args:
        each: as of `levels`, which very few tiles on a CPU do without.
    """
    few = count * (BINNINGS[-1] * TILE_PX) ** 2 <= frame.numel() / 2
    if frame.is_cpu and few and min(frame.shape) >= BINNINGS[-1] * TILE_PX:
        return partial(views_around, frame)
    return partial(views_in, levels(frame, each))


def views_around(frame: Tensor, y: Tensor, x: Tensor) -> Views:
    """As `views_at`, from as much of the frame as each tile's views see: of few tiles that is less than all of it.

    Args:
        frame: no smaller than what one tile's views see.
    """
    firsts = [
        torch.stack([_first(start, binning, extent // binning) for binning in BINNINGS], dim=1).tolist()
        for start, extent in zip((y, x), frame.shape, strict=True)
    ]
    return normalise(torch.stack([_crops_around(frame, *first) for first in zip(*firsts, strict=True)]))


def _crops_around(frame: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """What the views of one tile see, (3, 128, 128), from their first pixels at each binning."""
    row, column = BINNINGS[-1] * rows[-1], BINNINGS[-1] * columns[-1]
    level = frame[row : row + _SEEN_PX, column : column + _SEEN_PX]
    crops = torch.empty((len(BINNINGS), TILE_PX, TILE_PX))
    for crop, before, binning, y, x in zip(crops, (1, *BINNINGS), BINNINGS, rows, columns, strict=False):
        level = _binned(level, binning // before) if binning > before else level
        y, x = y - row // binning, x - column // binning
        crop[:] = level[y : y + TILE_PX, x : x + TILE_PX]
    return crops


def _windows(level: Tensor) -> Tensor:
    """All views of a level, (rows, columns, 128, 128), by their first pixels."""
    return level.unfold(0, TILE_PX, 1).unfold(1, TILE_PX, 1)


def _crops(levels: list[Tensor], y: Tensor, x: Tensor) -> Tensor:
    """What the views see before they are normalised, (batch, 3, 128, 128)."""
    y, x = (start.to(levels[0].device) for start in (y, x))
    crops = []
    for binning, level in zip(BINNINGS, levels, strict=True):
        first = _first(y, binning, level.shape[0]), _first(x, binning, level.shape[1])
        crops.append(_windows(level)[first].float())
    return torch.stack(crops, dim=1)


def _binned(frame: Tensor, binning: int) -> Tensor:
    """The frame averaged over blocks, in single precision; a frame smaller than a block is one pixel."""
    frame = frame.float()
    block = [min(binning, extent) for extent in frame.shape]
    # Sums of whole slices are ten times as fast as pooling on a CPU; to divide them once is half the rest.
    return _summed(_summed(frame, block[0]).mT, block[1]).mT.div_(math.prod(block))


def _summed(frame: Tensor, block: int) -> Tensor:
    """Rows, each the sum of a block of them."""
    whole = len(frame) // block * block
    first, *rest = (frame[row:whole:block] for row in range(block))
    total = first + rest[0] if rest else first.clone()
    for row in rest[1:]:
        total += row
    return total


def _completed(level: Tensor) -> Tensor:
    """The level, its rows repeated by reflection on both sides where they are fewer than a view's."""
    extent = len(level)
    if extent >= TILE_PX:
        return level
    index = torch.arange(TILE_PX, device=level.device) + (extent - TILE_PX) // 2
    folded = index.remainder(2 * extent)
    return level[torch.where(folded < extent, folded, 2 * extent - 1 - folded)]


def _first(start: Tensor, binning: int, extent: int) -> Tensor:
    """First pixels (batch,) of the windows centred on tiles, shifted into the level."""
    return ((start + TILE_PX // 2) // binning - TILE_PX // 2).clamp(0, extent - TILE_PX)


def normalise(crops: Tensor) -> Views:
    """Views of raw crops (batch, 3, 128, 128)."""
    mean = crops.mean((-2, -1), keepdim=True)
    centred = crops - mean
    deviation = centred.square().mean((-2, -1), keepdim=True).sqrt()
    floor = 1e-4 * mean.abs() + 1e-6  # a constant view becomes zeros, not amplified rounding
    pixels = centred.div_(torch.maximum(deviation, floor))
    contrast = torch.log10((deviation / (mean.abs() + floor)).clamp(_LEAST_CONTRAST, 10.0))[..., 0, 0]
    return Views(pixels, radial_spectra(pixels), contrast)


def blank(views: Views) -> Tensor:
    """Which locations are constant in every view, as a closed shutter or a saturated lamp makes them: (batch,) bool.

    Training never shows such ones: a real camera has noise.
    """
    return (views.contrast <= math.log10(1.02 * _LEAST_CONTRAST)).all(1)


def radial_spectra(pixels: Tensor) -> Tensor:
    """log₁₀ of the mean power on rings of spatial frequency, (batch, 3, 64), of Hann-windowed views."""
    window = torch.hann_window(TILE_PX, periodic=False, dtype=pixels.dtype, device=pixels.device)
    transform = torch.fft.rfft2(pixels * (window[:, None] * window), norm="ortho")
    power = transform.real.square().add_(transform.imag.square())
    return torch.log10(power.flatten(-2) @ _ring_weights(pixels) + 1e-6)


def _ring_weights(like: Tensor) -> Tensor:
    """Matrix (frequencies of an rfft2, 64) that averages over rings; ring k holds |f| in [k, k+1)/128."""
    key = (like.dtype, like.device)
    if key not in _RING_CACHE:
        fy = torch.fft.fftfreq(TILE_PX, 1 / TILE_PX)
        fx = torch.fft.rfftfreq(TILE_PX, 1 / TILE_PX)
        ring = torch.hypot(fy[:, None], fx[None, :]).floor().long().flatten()
        member = functional.one_hot(ring, int(ring.max()) + 1)[:, :RINGS].to(like)
        _RING_CACHE[key] = member / member.sum(0)
    return _RING_CACHE[key]


_RING_CACHE: dict[tuple[torch.dtype, torch.device], Tensor] = {}
