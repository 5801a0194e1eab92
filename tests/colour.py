"""Colour cameras as tests simulate them: a mosaic of red, green and blue pixels, and what becomes of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

Image = NDArray[np.float64]
RED, BLUE = (0, 0), (1, 1)
"""Rows and columns, modulo 2, of the pixels of these colours; all others are green."""
NEUTRAL_GAINS = (0.55, 1.0, 0.65)
"""Of red, green and blue in white light, before any white balance."""

_CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
_SQUARE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
_AT_GREEN = (
    np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
)
_IN_ROW = (
    np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]])
    / 8
)
_ACROSS = (
    np.array(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    )
    / 8
)


def mosaic(rgb: Image) -> Image:
    """What a raw colour camera records (y, x) of an image (y, x, 3)."""
    raw = rgb[..., 1].copy()
    for component, (row, column) in ((0, RED), (2, BLUE)):
        raw[row::2, column::2] = rgb[row::2, column::2, component]
    return raw


def bilinear(raw: Image) -> Image:
    """The mosaic (y, x) demosaiced by neighbours' means, (y, x, 3)."""
    planes = _planes(raw)
    kernels = (_SQUARE, _CROSS, _SQUARE)
    return np.stack([convolve(p, k, mode="mirror") for p, k in zip(planes, kernels, strict=True)], axis=-1)


def malvar(raw: Image) -> Image:
    """The mosaic (y, x) demosaiced by the linear filters of Malvar, He and Cutler, (y, x, 3)."""
    green, row, column, across = (
        convolve(raw, kernel, mode="mirror") for kernel in (_AT_GREEN, _IN_ROW, _IN_ROW.T, _ACROSS)
    )
    rgb = np.repeat(raw[..., None], 3, axis=-1)
    for place, other in ((RED, BLUE), (BLUE, RED)):
        own, foreign = (0, 2) if place == RED else (2, 0)
        at = slice(place[0], None, 2), slice(place[1], None, 2)
        rgb[(*at, 1)] = green[at]
        rgb[(*at, foreign)] = across[at]
        beside = slice(place[0], None, 2), slice(other[1], None, 2)
        below = slice(other[0], None, 2), slice(place[1], None, 2)
        rgb[(*beside, own)], rgb[(*below, own)] = row[beside], column[below]
    return rgb


def _planes(raw: Image) -> list[Image]:
    """The pixels of each colour where they are, and zeros elsewhere."""
    masks = [np.zeros(raw.shape), np.ones(raw.shape), np.zeros(raw.shape)]
    for component, (row, column) in ((0, RED), (2, BLUE)):
        masks[component][row::2, column::2] = 1
        masks[1][row::2, column::2] = 0
    return [raw * mask for mask in masks]
