"""What a decision is made from: the scores of one exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """The scores of one frame.

    Attributes:
        z_um: where it was exposed.
        b: (rows, columns) blurriness of each tile, 0 sharp.
        sigma: (rows, columns) standard deviation of b.
        structure: (rows, columns) probability that the tile holds something to focus on.
    """

    z_um: float
    b: Array
    sigma: Array
    structure: Array

    def mean_b(self, seen: NDArray[np.bool_]) -> float:
        """Average of b over the tiles that are seen, each weighted by its precision."""
        weight = seen / self.sigma**2
        return float((weight * self.b).sum() / weight.sum())


def tiles_with_structure(observations: list[Observation], threshold: float) -> NDArray[np.bool_]:
    """Tiles that hold something to focus on in at least half of the exposures, (rows, columns)."""
    votes = np.mean([o.structure >= threshold for o in observations], axis=0)
    return np.asarray(votes >= 0.5)
