"""What a camera shows at every z, as benches and tests simulate it: dust, fixed pattern and hot pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Dirt:
    """How dirty a camera is.

    Attributes:
        specks: of dust, 2 to 6 px in radius.
        absorption: of a speck at its middle, at most; at least a sixth of that.
        fixed: standard deviation of the pixels' gains.
        hot: pixels that show more light than there is, up to all.
    """

    specks: int = 0
    absorption: float = 0.3
    fixed: float = 0.0
    hot: int = 0

    @lru_cache(8)  # noqa: B019, a frozen few
    def response(self, shape: tuple[int, int], seed: int) -> Image:
        """Factor (y, x) by which each pixel shows the light."""
        rng = np.random.default_rng(seed)
        gain = 1 + self.fixed * rng.standard_normal(shape)
        y, x = np.indices(shape)
        for _ in range(self.specks):
            centre, radius = rng.uniform((0, 0), shape), rng.uniform(2, 6)
            absorbed = rng.uniform(self.absorption / 6, self.absorption)
            gain *= 1 - absorbed * np.clip(radius - np.hypot(y - centre[0], x - centre[1]) + 0.5, 0, 1)
        return gain

    @lru_cache(8)  # noqa: B019
    def hot_pixels(self, shape: tuple[int, int], seed: int) -> Image:
        """Share (y, x) of the full scale that each pixel shows without light."""
        rng = np.random.default_rng(seed + 1)
        shown = np.zeros(shape)
        places = tuple(rng.integers(0, extent, self.hot) for extent in shape)
        shown[places] = rng.uniform(0.02, 1, self.hot)
        return shown

    def shown(self, light: NDArray[np.floating], full_scale: float, seed: int = 5) -> Image:
        """What the camera shows of the light (y, x), in the same units."""
        shape = light.shape[0], light.shape[1]
        soiled = light * self.response(shape, seed) + self.hot_pixels(shape, seed) * full_scale
        return np.asarray(soiled, np.float64)
