"""Objects for the simulated microscope: images that scikit-image ships, and procedural ones.

Each is a radiance in 0 … 1, sharp down to the pixel, and periodic where it is procedural.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from skimage import data

Image = NDArray[np.float32]
Shape = tuple[int, int]


def photograph(shape: Shape, seed: int, *, load: Callable[[], NDArray[np.uint8]], shrink: int = 1) -> Image:
    """A random crop, flipped at random, of an image; one that is too small is tiled with its mirror images.

    Args:
        shrink: factor by which a soft image is reduced, averaging areas, until it is sharp.
    """
    random = np.random.default_rng(seed)
    image = _shrunk(_grey(load()), shrink)
    image = image[:: random.choice((-1, 1)), :: random.choice((-1, 1))]
    image = np.pad(
        image, [(0, max(0, want - have)) for want, have in zip(shape, image.shape, strict=True)], "symmetric"
    )
    y, x = (int(random.integers(have - want + 1)) for want, have in zip(shape, image.shape, strict=True))
    return _stretched(image[y : y + shape[0], x : x + shape[1]])


def cells(shape: Shape, seed: int) -> Image:
    """Fluorescent cells: dim granular bodies, bright nuclei with nucleoli, scattered bright vesicles."""
    random = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    grain = 0.55 + 0.45 * _noise(shape, random, slope=0.7)
    for _ in range(_count(shape, 1.0 / 2500)):
        centre, radius, angle = (
            random.uniform((0, 0), shape),
            random.uniform(14, 26),
            random.uniform(0, np.pi),
        )
        _draw_ellipse(
            image, centre, (radius, radius * random.uniform(0.6, 1)), angle, random.uniform(0.15, 0.35)
        )
        nucleus = radius * random.uniform(0.35, 0.5)
        _draw_ellipse(image, centre, (nucleus, nucleus * 0.8), angle, random.uniform(0.5, 0.9))
        for spot in random.normal(centre, nucleus / 3, (2, 2)):
            _draw_ellipse(image, spot, (1.6, 1.6), 0.0, 0.05)
    places = random.uniform((0, 0), shape, (_count(shape, 1.0 / 150), 2))
    _splat(image, places, 0.8 * image[tuple(places.astype(int).T)])
    return _stretched(image * grain)


def filaments(shape: Shape, seed: int) -> Image:
    """Smoothly bending fibres, about two pixels wide, of various brightness."""
    random = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    for _ in range(_count(shape, 1.0 / 3500)):
        steps = int(random.integers(300, 1200))
        angle = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.02, steps))
        path = random.uniform((0, 0), shape) + 0.5 * np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1), 0)
        _splat(image, path, np.full(steps, random.uniform(0.1, 0.4)))
    return _stretched(np.minimum(image, 1))


def beads(shape: Shape, seed: int) -> Image:
    """Beads: points, and a few larger discs with sharp edges."""
    random = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    for _ in range(_count(shape, 1.0 / 4000)):
        radius = random.uniform(2, 6)
        _draw_ellipse(image, random.uniform((0, 0), shape), (radius, radius), 0.0, random.uniform(0.3, 1))
    points = _count(shape, 1.0 / 900)
    _splat(image, random.uniform((0, 0), shape, (points, 2)), random.uniform(0.5, 2, points))
    return np.clip(image, 0, 1)


def cloud(shape: Shape, seed: int) -> Image:
    """1/f noise: structure of every size, as in most natural scenes."""
    return _stretched(_noise(shape, np.random.default_rng(seed), slope=1.0))


def empty(shape: Shape, seed: int) -> Image:
    """Nothing to focus on: an evenly lit field."""
    return np.full(shape, 0.2, np.float32)


SAMPLES: dict[str, Callable[[Shape, int], Image]] = {
    "brick": partial(photograph, load=data.brick, shrink=2),
    "camera": partial(photograph, load=data.camera, shrink=2),
    "coins": partial(photograph, load=data.coins),
    "grass": partial(photograph, load=data.grass),
    "gravel": partial(photograph, load=data.gravel),
    "moon": partial(photograph, load=data.moon, shrink=2),
    "page": partial(photograph, load=data.page),
    "stars": partial(photograph, load=data.hubble_deep_field, shrink=2),
    "tissue": partial(photograph, load=data.immunohistochemistry, shrink=2),
    "cells": cells,
    "filaments": filaments,
    "beads": beads,
    "cloud": cloud,
    "empty": empty,
}
"""Name → function of a shape (y, x) and a seed. The photographs lie in scikit-image's wheel: no download."""


def _grey(image: NDArray[np.uint8]) -> Image:
    grey = image if image.ndim == 2 else image[..., :3].mean(-1)
    return np.asarray(grey, np.float32)


def _shrunk(image: Image, factor: int) -> Image:
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _stretched(image: Image) -> Image:
    """The same image on 0 … 1, but for one pixel in 200 at each end."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.asarray(np.clip((image - low) / max(float(high - low), 1e-6), 0, 1), np.float32)


def _count(shape: Shape, density: float) -> int:
    return max(1, round(shape[0] * shape[1] * density))


def _noise(shape: Shape, random: np.random.Generator, slope: float) -> Image:
    """Periodic noise in 0 … 1 whose amplitude falls with frequency as 1/f^slope."""
    spectrum = np.fft.rfft2(random.standard_normal(shape))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf
    return _stretched(np.fft.irfft2(spectrum / frequency**slope, s=shape).astype(np.float32))


def _draw_ellipse(
    image: Image, centre: NDArray[np.float64], axes: tuple[float, float], angle: float, value: float
) -> None:
    """Paint an ellipse with an edge one pixel wide over a periodic image."""
    reach = int(max(axes)) + 2
    rows, columns = (np.arange(int(c) - reach, int(c) + reach + 1) for c in centre)
    dy, dx = rows[:, None] - centre[0], columns[None, :] - centre[1]
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    inside = 1 - np.hypot(along / axes[0], across / axes[1])
    cover = np.clip(inside * min(axes) + 0.5, 0, 1).astype(np.float32)
    window = np.ix_(rows % image.shape[0], columns % image.shape[1])
    image[window] = (1 - cover) * image[window] + cover * value


def _splat(image: Image, places: NDArray[np.float64], light: NDArray[np.float64]) -> None:
    """Add points of light at sub-pixel places (n, 2) of a periodic image, each spread over four pixels."""
    corner = np.floor(places).astype(int)
    share = places - corner
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - share[:, 0]) * np.abs(1 - dx - share[:, 1])
            where = ((corner[:, 0] + dy) % image.shape[0], (corner[:, 1] + dx) % image.shape[1])
            np.add.at(image, where, light * weight)
