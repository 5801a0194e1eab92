"""The focus of each block of a field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_SIGMA_UM, MAX_SIGMA_UM = 1e-3, 1e3
"""No block knows its focus better; one that knows it worse does not count."""


@dataclass(frozen=True)
class LocalMap:
    """The focus of each block of a field.

    Attributes:
        focus_um: (rows, columns) z at which the block is in focus; NaN where it does not count.
        sigma_um: (rows, columns) standard uncertainty of it.
        y_px, x_px: (rows, columns) centres of the blocks.
        block_px: side of a block. Blocks that overlap are taken to share errors as they share area; where a window
            makes their edges count less, the uncertainties of the plane are on the safe side.
    """

    focus_um: Array
    sigma_um: Array
    y_px: Array
    x_px: Array
    block_px: float = 256.0

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(rows, columns) blocks that count."""
        return np.isfinite(self.focus_um) & (self.sigma_um > 0) & (self.sigma_um <= MAX_SIGMA_UM)

    @property
    def height_px(self) -> float:
        """Of the field that the blocks cover."""
        return float(np.ptp(self.y_px)) + self.block_px

    @property
    def width_px(self) -> float:
        """Of the field that the blocks cover."""
        return float(np.ptp(self.x_px)) + self.block_px

    @property
    def counted(self) -> tuple[Array, Array]:
        """Focus and σ of the blocks that count, (n,) each."""
        return self.focus_um[self.counts], self.sigma_um[self.counts].clip(MIN_SIGMA_UM)


def overlapping(y_px: Array, x_px: Array, block_px: float) -> int:
    """How many blocks in a row of a grid share area with the first of them, that one included."""
    pitches_px = [float(p) for p in (*np.diff(y_px[:2, 0]), *np.diff(x_px[0, :2])) if p > 0]
    return max(1, round(block_px / min(pitches_px))) if pitches_px else 1


def shared_area(y_px: Array, x_px: Array, block_px: float) -> Array:
    """(n, n) share of their area that each two blocks have in common: the correlation of their errors."""
    along = [np.clip(1 - np.abs(p[:, None] - p[None, :]) / block_px, 0, 1) for p in (y_px, x_px)]
    return np.asarray(along[0] * along[1])
