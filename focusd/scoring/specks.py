"""The whole of a speck of dust, of which only the higher frequencies were seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

Image = NDArray[np.float32]
Filter = Callable[[Image], Image]

_SIGMAS, _LEAST = 5.0, 0.02
"""What a speck stands out by: over the pattern elsewhere, and of the light."""
_GROWN_PX = 3
_MOST_SHARE = 0.25
"""Of the field: where specks cover more of it, they are no specks."""
_ITERATIONS = 6
"""A speck is so small that its missing frequencies hold a fifth of it, and each iteration leaves so much of them."""


def specks_of(pattern: Image, seen: Filter) -> Image:
    """The specks in a pattern (y, x), with the frequencies that were not seen, and zero elsewhere.

    A speck ends where it ends: what is zero outside and agrees with what was seen inside has only one continuation to
    other frequencies (Papoulis, IEEE Trans. Circuits Syst. 22 (1975) 735).

    Args:
        pattern: (y, x), what was seen.
        seen: what is seen of an image.
    """
    inside = _inside(pattern)
    specks = np.where(inside, pattern, np.float32(0))
    if not inside.any() or inside.mean() > _MOST_SHARE:
        return np.zeros_like(pattern)
    for _ in range(_ITERATIONS):
        specks = np.where(inside, pattern + specks - seen(specks), np.float32(0))
    return specks


def _inside(pattern: Image) -> NDArray[np.bool_]:
    """Where the specks are, with what is close around them."""
    spread = 1.4826 * float(np.median(np.abs(pattern)))
    stands_out = np.abs(pattern) > max(_SIGMAS * spread, _LEAST)
    return np.asarray(binary_dilation(stands_out, iterations=_GROWN_PX))
