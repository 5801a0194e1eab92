"""Scoring of frames: the same path for calibration and for autofocus."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.errors import RequestError
from focusd.focus.measurement import Measurement
from focusd.optics.bands import BlockSpectra
from focusd.scoring.backends import Backend, Backends, CpuBackend, score_tiles
from focusd.scoring.pace import Pace
from focusd.scoring.spectra import Region, block_spectra
from focusd.scoring.tiles import Tiles, informative, tile_grid
from focusd.scoring.views import CANONICAL_SAMPLING, TILE_PX, Views, levels, resample, views_in, views_of
from focusd.scoring.weights import Model

_LARGEST_PIXEL = 1e15
"""The square of a larger one leaves single precision."""


class Scorer:
    """Scores frames of one instrument with one model.

    Args:
        model: from `load_model`.
        sampling: the frames' pixel in λ/NA; None if unknown, then the calibration absorbs the scale.
        backends: where it is computed; None: on the CPU.
        max_tiles: of a frame; None: all.
        budget_s: of a frame's scores: on a slow machine fewer tiles are scored, as many as fit; None: any.
    """

    def __init__(
        self,
        model: Model,
        sampling: float | None,
        backends: Backends | None = None,
        max_tiles: int | None = None,
        budget_s: float | None = None,
    ) -> None:
        self.model = model
        self.sampling = sampling
        self._backends = backends or Backends(CpuBackend(model.network))
        self._pace = Pace(max_tiles, budget_s)
        self._turn = threading.Lock()

    def close(self) -> None:
        """End the threads; nothing can be scored afterwards."""
        self._backends.close()

    @property
    def backend(self) -> str:
        """The name of the backend that serves now."""
        return self._backends.serving.name

    def score(
        self,
        pixels: NDArray[np.generic],
        region: Region | None = None,
        like: Measurement | None = None,
        spectra: BlockSpectra | None = None,
        only: NDArray[np.bool_] | None = None,
    ) -> Measurement:
        """Score a frame, or the tiles of a region of it (their surroundings are still looked at).

        Where there are more than `max_tiles`, or than fit into the budget, those of most contrast, spread over the
        region. A tile's σ holds for any number of them: in one field they err together.

        Args:
            pixels: (y, x), unsigned integers or floats, any size.
            region: part of the frame that counts.
            like: of an earlier frame of the same size: the same tiles are scored.
            spectra: of this frame and region, where they are known.
            only: (rows, columns) of the tiles of `like`, which to score; None: all. The others are NaN.

        Returns:
            What the frame shows; the scorer does not know its z.

        Raises:
            RequestError: the frame is empty, not two-dimensional, signed or not finite, or the region is
                outside of it.
            ScoringError: no backend gives scores.
        """
        counts = _checked(pixels)
        region = _check_region(region, pixels.shape)
        with self._turn:  # a GPU's buffers hold one frame
            return self._backends.run(
                lambda backend: self._score(backend, counts, region, like, spectra, only)
            )

    def spectra(
        self,
        pixels: NDArray[np.generic],
        region: Region | None = None,
        *,
        thinned: bool = False,
        known: BlockSpectra | None = None,
    ) -> BlockSpectra:
        """The spectra alone, which take a third of the time and tell most of what a search wants to know.

        Args:
            thinned: of a quarter of the blocks, in the caller's own thread: to wake others costs as much time.
            known: these, where they have been computed; the others join them, likewise, while the frame is scored.

        Raises:
            RequestError: as for `score`.
        """
        counts = _checked(pixels)
        region = _check_region(region, pixels.shape)
        if thinned or known:
            return block_spectra(counts, region, thinned=thinned, known=known)
        return self._spectra(counts, region)

    def _spectra(self, counts: NDArray[np.generic], region: Region) -> BlockSpectra:
        return block_spectra(counts, region, self._backends.map, self._backends.threads)

    @torch.inference_mode()
    def _score(
        self,
        backend: Backend,
        counts: NDArray[np.generic],
        region: Region,
        like: Measurement | None,
        spectra: BlockSpectra | None,
        only: NDArray[np.bool_] | None,
    ) -> Measurement:
        began_s = time.perf_counter()
        frame, factor = resample(backend.load(counts), self.sampling)
        # The network reads blur in pixels; the calibration absorbs the scale where it is not known.
        scale = 1.0 if self.sampling is None else self.sampling / factor / CANONICAL_SAMPLING
        cut: Callable[[Tensor, Tensor], Views]
        if like is None:
            pyramid = levels(frame, backend.map)
            tiles, cut = self._choose(region, factor, pyramid), partial(views_in, pyramid)
            asked = np.ones(tiles.y.shape, bool)
        else:
            tiles, asked = _tiles_of(like, factor), np.ones(like.b.shape, bool) if only is None else only
            cut = views_of(frame, int(asked.sum()), backend.map)
        scores = np.full((3, *tiles.y.shape), np.nan)
        scores[:, asked] = score_tiles(backend, cut, tiles.y[asked], tiles.x[asked])
        if asked.all():  # a few have another share of what all cost together
            self._pace.took(time.perf_counter() - began_s, tiles.y.numel())
        b, log_sigma, structure = scores
        return Measurement(
            z_um=math.nan,
            b=b * scale,
            sigma=np.exp(log_sigma) * scale,
            structure=1 / (1 + np.exp(-structure)),
            y_px=(tiles.y.numpy() + TILE_PX / 2) / factor,
            x_px=(tiles.x.numpy() + TILE_PX / 2) / factor,
            blocks=spectra or self._spectra(counts, region),
        )

    def _choose(self, region: Region, factor: float, pyramid: list[Tensor]) -> Tiles:
        return informative(tile_grid(region, factor), pyramid[-1], self._pace.tiles)


def _tiles_of(measure: Measurement, factor: float) -> Tiles:
    """The tiles that were scored."""
    first = (np.rint(centre * factor - TILE_PX / 2) for centre in (measure.y_px, measure.x_px))
    return Tiles(*(torch.from_numpy(each.astype(np.int64)) for each in first))


def _checked(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """The frame, if it is one: a camera's 8 and 16 bit as they are, which cannot be out of range; others as float32."""
    if pixels.ndim != 2 or pixels.size == 0:
        raise RequestError(f"a frame has two axes (y, x) and pixels in it, not the shape {pixels.shape}")
    if pixels.dtype.kind not in "uf":
        raise RequestError(f"pixels are unsigned integers or floats, not {pixels.dtype}")
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels
    with np.errstate(over="ignore"):
        counts = pixels.astype(np.float32)
    if not (np.abs(counts) <= _LARGEST_PIXEL).all():  # also true of NaN
        raise RequestError(f"the frame holds pixels that are NaN, infinite or beyond {_LARGEST_PIXEL:g}")
    return counts


def _check_region(region: Region | None, shape: tuple[int, ...]) -> Region:
    if region is None:
        return (0, 0, shape[0], shape[1])
    y, x, height, width = region
    if y < 0 or x < 0 or height < 1 or width < 1 or y + height > shape[0] or x + width > shape[1]:
        raise RequestError(f"the region (y, x, height, width) = {region} is not inside the frame of {shape}")
    return region
