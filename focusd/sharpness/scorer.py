"""Scoring of frames: the same path for calibration and for autofocus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.errors import RequestError
from focusd.sharpness.network import Score
from focusd.sharpness.spectra import Region, Spectra, block_spectra
from focusd.sharpness.views import CANONICAL_SAMPLING, TILE_PX, blank, resample, tile_starts, views_at
from focusd.sharpness.weights import Model

Array = NDArray[np.float64]

_SURELY_EMPTY = -20.0
"""Logit of structure."""
_LARGEST_PIXEL = 1e15
"""The square of a larger one leaves single precision."""


@dataclass(frozen=True)
class FocusMeasure:
    """The network's answer for each tile of a frame; all arrays (rows, columns).

    Attributes:
        b: blurriness, 0 sharp, 1 three waves RMS of defocus.
        sigma: its standard deviation.
        structure: probability that the tile holds something to focus on.
        y_px, x_px: tile centres, in pixels of the frame.
        spectra: power spectra of the frame's blocks, on a grid of their own.
    """

    b: Array
    sigma: Array
    structure: Array
    y_px: Array
    x_px: Array
    spectra: Spectra


class Scorer:
    """Scores frames of one instrument with one model.

    Args:
        model: from `load_model`.
        sampling: the frames' pixel in λ/NA; None if unknown, then the calibration absorbs the scale.
        batch: tiles scored at once.
    """

    def __init__(self, model: Model, sampling: float | None, batch: int = 64) -> None:
        self.model = model
        self.sampling = sampling
        self._batch = batch
        self._network = model.network

    def score(self, pixels: NDArray[np.generic], region: Region | None = None) -> FocusMeasure:
        """Score a frame, or the tiles of a region of it (their surroundings are still looked at).

        Args:
            pixels: (y, x), unsigned integers or floats, any size.
            region: part of the frame that counts.

        Raises:
            RequestError: the frame is empty, not two-dimensional, signed or not finite, or the region is
                outside of it.
        """
        counts = _checked(pixels)
        region = _check_region(region, pixels.shape)
        frame, factor = resample(torch.from_numpy(counts), self.sampling)
        # The network reads blur in pixels; the calibration absorbs the scale where it is not known.
        scale = 1.0 if self.sampling is None else self.sampling / factor / CANONICAL_SAMPLING
        rows, columns = _tile_grid(region, factor)
        y, x = (t.flatten() for t in torch.meshgrid(rows, columns, indexing="ij"))
        score = self._score_tiles(frame, y, x)
        shape = (len(rows), len(columns))
        b, log_sigma, structure = (part.double().numpy().reshape(shape) for part in score)
        return FocusMeasure(
            b=b * scale,
            sigma=np.exp(log_sigma) * scale,
            structure=1 / (1 + np.exp(-structure)),
            y_px=(y.numpy().reshape(shape) + TILE_PX / 2) / factor,
            x_px=(x.numpy().reshape(shape) + TILE_PX / 2) / factor,
            spectra=block_spectra(counts, region),
        )

    @torch.inference_mode()
    def _score_tiles(self, frame: Tensor, y: Tensor, x: Tensor) -> Score:
        parts = []
        for start in range(0, len(y), self._batch):
            views = views_at(frame, y[start : start + self._batch], x[start : start + self._batch])
            pixels = views.pixels.contiguous(memory_format=torch.channels_last)
            score = self._network(pixels, views.spectra, views.contrast)
            parts.append(score._replace(structure=score.structure.masked_fill(blank(views), _SURELY_EMPTY)))
        return Score(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _tile_grid(region: Region, factor: float) -> tuple[Tensor, Tensor]:
    """First pixels of the region's rows and columns of tiles, in the resampled frame."""
    y, x, height, width = (round(value * factor) for value in region)
    rows = [y + start for start in tile_starts(height)]
    columns = [x + start for start in tile_starts(width)]
    return torch.tensor(rows), torch.tensor(columns)


def _checked(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """The frame in single precision, if it is one."""
    if pixels.ndim != 2 or pixels.size == 0:
        raise RequestError(f"a frame has two axes (y, x) and pixels in it, not the shape {pixels.shape}")
    if pixels.dtype.kind not in "uf":
        raise RequestError(f"pixels are unsigned integers or floats, not {pixels.dtype}")
    with np.errstate(over="ignore"):
        counts = pixels.astype(np.float32)
    wide = (
        pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2
    )  # a camera's 8 and 16 bit cannot be out of range
    if wide and not (np.abs(counts) <= _LARGEST_PIXEL).all():  # also true of NaN
        raise RequestError(f"the frame holds pixels that are NaN, infinite or beyond {_LARGEST_PIXEL:g}")
    return counts


def _check_region(region: Region | None, shape: tuple[int, ...]) -> Region:
    if region is None:
        return (0, 0, shape[0], shape[1])
    y, x, height, width = region
    if y < 0 or x < 0 or height < 1 or width < 1 or y + height > shape[0] or x + width > shape[1]:
        raise RequestError(f"the region (y, x, height, width) = {region} is not inside the frame of {shape}")
    return region
