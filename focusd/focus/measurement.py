"""What a decision is made from: the scores and the spectra of one exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from focusd.optics.bands import NOISE_ERROR, BlockSpectra

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SURE = 0.97
"""Probability of structure in one exposure that outweighs its absence in others."""
SPREAD_TILES = 4
"""One tile of so many, along the diagonals; and at least so many."""
_LEAST_CONTRAST = 0.02
"""Of the strongest block's structure: weaker ones only add noise."""
_STRUCTURE_FROM = 4
"""First band that counts as structure: uneven illumination lies below."""
_OVERLAP = 0.55
"""Half-overlapping windowed blocks hold so many independent values each, of those of one block alone."""
_SAME_NOISE = 0.15
"""Relative difference; the corners of one block tell the noise to 6 %, those of nine to 2 %."""


@dataclass(frozen=True)
class Spectrum:
    """Power of one exposure.

    Attributes:
        power: (bands,) mean of the blocks that count.
        noise: of white noise, in the same units.
        modes: (bands,) independent Fourier modes behind each value.
        spread: (bands,) as `optics.bands.band_spread`.
        noise_error: relative error of the noise's power, of all bands or (bands,).
    """

    power: Array
    noise: float
    modes: Array
    spread: Array
    noise_error: Array | float = NOISE_ERROR


@dataclass(frozen=True)
class NoisePair:
    """What two frames of one z say of the camera's noise.

    Attributes:
        spectra: of their difference, with the power that the noise of one of them has.
        moved_px: how far the image had moved from the one to the other; the difference was taken without that.
    """

    spectra: BlockSpectra
    moved_px: float


@dataclass(frozen=True)
class Measurement:
    """What one frame shows: the network's scores of its tiles, and its spectra. NaN: the tile was not scored.

    Attributes:
        z_um: where it was exposed; NaN: not known yet.
        b: (rows, columns) blurriness of each tile, 0 sharp, 1 three waves RMS of defocus.
        sigma: (rows, columns) standard deviation of b.
        structure: (rows, columns) probability that the tile holds something to focus on.
        y_px, x_px: (rows, columns) centres of the tiles, in pixels of the frame.
        blocks: power spectra, on a grid of their own.
        noise: of this frame and the one before, where both are of one z; None: they are not, or nobody asked.
    """

    z_um: float
    b: Array
    sigma: Array
    structure: Array
    y_px: Array
    x_px: Array
    blocks: BlockSpectra
    noise: NoisePair | None = None

    def mean_b(self, seen: Mask) -> float:
        """Average of b over the tiles that are seen, each weighted by its precision."""
        scored = self._scored(seen)
        weight = 1 / self.sigma[scored] ** 2
        return float((weight * self.b[scored]).sum() / weight.sum())

    def mean_sigma(self, seen: Mask) -> float:
        """Of b over the tiles that are seen, which err together."""
        return float(self.sigma[self._scored(seen)].mean())

    def scored_on(self, tiles: Mask | None) -> Measurement:
        """As if these tiles alone had been scored; None: as it is."""
        if tiles is None:
            return self
        b, sigma, structure = (np.where(tiles, each, np.nan) for each in (self.b, self.sigma, self.structure))
        return replace(self, b=b, sigma=sigma, structure=structure)

    def with_spectra(self, blocks: BlockSpectra) -> Measurement:
        """The same scores with other spectra of the same frame."""
        return replace(self, blocks=blocks)

    def _scored(self, seen: Mask) -> Mask:
        """Tiles that are seen and were scored; all scored ones if none is both."""
        scored = np.isfinite(self.b)
        both = seen & scored
        return both if both.any() else scored

    def spectrum(self, chosen: Mask) -> Spectrum:
        """Power of the chosen blocks together."""
        blocks, count = self.blocks, int(chosen.sum())
        modes = blocks.modes * independent_blocks(count)
        return Spectrum(
            blocks.power[chosen].mean(0),
            float(blocks.noise[chosen].mean()),
            modes,
            blocks.spread,
            blocks.noise_error,
        )


def independent_blocks(count: int) -> float:
    """Return how many blocks tell as much as so many that overlap."""
    return 1 if count == 1 else _OVERLAP * count


def common_noise(noise: Array) -> Array:
    """The noise of each frame (frames, …): the mean of those that agree with it, as frames lit alike do.

    The corners of one spectrum tell it too badly, and the lowest of many is too low: of a calibration's stack by two
    standard deviations, which moved the focus by 0.02 µm.
    """
    agree = np.abs(noise[None] - noise[:, None]) <= _SAME_NOISE * noise[:, None]
    return np.asarray((agree * noise[None]).sum(1) / agree.sum(1))


def tiles_with_structure(measurements: Sequence[Measurement], threshold: float) -> Mask:
    """Tiles that hold something to focus on in at least half of the exposures that scored them, (rows, columns)."""
    scored = np.sum([np.isfinite(o.structure) for o in measurements], axis=0)
    votes = np.sum([o.structure >= threshold for o in measurements], axis=0)
    return np.asarray(votes >= 0.5 * scored)


def tiles_surely_seen(measurements: Sequence[Measurement], planes: int = 1) -> Mask:
    """Tiles that surely hold something in so many exposures or more, as small or faint things do near focus."""
    sure = np.sum([o.structure >= SURE for o in measurements], axis=0)
    return np.asarray(sure >= planes)


def telling_tiles(first: Measurement, threshold: float) -> Mask | None:
    """A few of the tiles, evenly spread, if the first exposure of a run shows that all hold something; None: all.

    Of one field they err together: more of them tell little more, and take longer than a move of the stage.
    """
    if not (first.structure >= threshold).all():
        return None
    tiles = np.indices(first.b.shape).sum(0) % SPREAD_TILES == SPREAD_TILES - 1
    return np.asarray(tiles) if tiles.sum() >= SPREAD_TILES else None


def blocks_with_structure(measurements: Sequence[Measurement]) -> Mask:
    """Blocks that hold a fair part of the field's structure, (rows, columns); at least one."""
    strength = np.max([strength_of(o.blocks) for o in measurements], axis=0)
    return np.asarray(strength >= _LEAST_CONTRAST * strength.max())


def strength_of(blocks: BlockSpectra) -> Array:
    """(rows, columns) power above the noise, of what may be structure."""
    signal = (blocks.power - blocks.noise[..., None])[..., _STRUCTURE_FROM:]
    return np.asarray((signal * blocks.modes[_STRUCTURE_FROM:]).sum(-1).clip(0))
