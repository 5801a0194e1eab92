"""Procedural textures: objects drawn from a seed, sharp down to the pixel, values in 0…1.

They stand beside the real textures so that the network meets shapes that those do not hold: lines, points,
mosaics, scale-free noise, regular patterns, strokes, printed text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray
from scipy import ndimage, spatial

Image = NDArray[np.float32]
Family = Callable[[np.random.Generator, int], Image]


def cloud(rng: np.random.Generator, size: int) -> Image:
    """Noise with a power spectrum f^(−2a), sometimes cut into patches."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    amplitude = np.hypot(fy, fx).clip(1 / size) ** -rng.uniform(0.0, 1.6)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * amplitude, s=(size, size))
    if rng.random() < 0.4:
        noise = np.maximum(noise, np.quantile(noise, rng.uniform(0.3, 0.9)))
    return _unit(noise)


def dead_leaves(rng: np.random.Generator, size: int) -> Image:
    """Opaque discs and boxes of scale-free sizes, one on top of the other."""
    canvas = np.full((size, size), rng.random(), dtype=np.float32)
    smallest = rng.uniform(1.0, 4.0)
    grain = rng.uniform(0, 0.15)
    for _ in range(int(rng.integers(300, 1200))):
        radius = min(smallest * rng.pareto(rng.uniform(1.0, 2.2)) + 1, size / 5)
        _stamp(canvas, rng, radius, rng.random(), round_shape=rng.random() < 0.7)
    return _unit(canvas + grain * rng.standard_normal(canvas.shape))


def mosaic(rng: np.random.Generator, size: int) -> Image:
    """Voronoi cells: grey facets, or their borders alone."""
    points = rng.uniform(0, size, (int(rng.integers(40, 1500)), 2))
    grid = np.indices((size, size)).reshape(2, -1).T
    distance, index = spatial.cKDTree(points, boxsize=size).query(grid, k=2)
    if rng.random() < 0.5:
        return _unit(rng.random(len(points))[index[:, 0]].reshape(size, size))
    border = np.exp(-(distance[:, 1] - distance[:, 0]) / rng.uniform(0.5, 2.5))
    return _unit(border.reshape(size, size))


def filaments(rng: np.random.Generator, size: int) -> Image:
    """Smoothly bending threads."""
    canvas = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(5, 120))):
        steps = int(rng.integers(100, 900))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.005, 0.08), steps))
        y = (rng.uniform(0, size) + np.cumsum(np.sin(heading) * 0.7)).astype(int) % size
        x = (rng.uniform(0, size) + np.cumsum(np.cos(heading) * 0.7)).astype(int) % size
        np.maximum.at(canvas, (y, x), np.float32(rng.uniform(0.3, 1)))
    width = int(rng.integers(1, 4))
    return _unit(ndimage.maximum_filter(canvas, width) if width > 1 else canvas)


def beads(rng: np.random.Generator, size: int) -> Image:
    """Points and small discs on an empty ground, from one to thousands."""
    canvas = np.zeros((size, size), dtype=np.float32)
    largest = rng.choice([0.6, 1.5, 4.0, 10.0])
    for _ in range(int(10 ** rng.uniform(0.7, 3.3))):
        _stamp(canvas, rng, rng.uniform(0.5, largest), rng.uniform(0.2, 1), round_shape=True)
    return _unit(canvas)


def cells(rng: np.random.Generator, size: int) -> Image:
    """Ellipses with a textured inside, a rim and a nucleus."""
    inside = cloud(rng, size)
    canvas = np.zeros((size, size), dtype=np.float32)
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    for _ in range(int(rng.integers(3, 40))):
        cy, cx, angle = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(0, np.pi)
        a, b = rng.uniform(8, 50), rng.uniform(8, 50)
        dy, dx = (yy - cy + size / 2) % size - size / 2, (xx - cx + size / 2) % size - size / 2
        p = (dx * np.cos(angle) + dy * np.sin(angle)) / a
        q = (dy * np.cos(angle) - dx * np.sin(angle)) / b
        r = np.hypot(p, q)
        body = (r < 1) * (0.3 + 0.7 * inside) + 0.6 * (np.abs(r - 1) * min(a, b) < 1.2)
        body += (np.hypot(p - 0.2, q) < rng.uniform(0.2, 0.5)) * rng.uniform(0, 0.8)
        canvas = np.maximum(canvas, body * rng.uniform(0.4, 1))
    return _unit(canvas)


def pattern(rng: np.random.Generator, size: int) -> Image:
    """Lines, boxes and letters-like marks on a lattice, as on a wafer or a test target."""
    period = rng.integers(6, 64, 2)
    unit = np.zeros(tuple(period), dtype=np.float32)
    for _ in range(int(rng.integers(1, 7))):
        y, x = rng.integers(0, period[0]), rng.integers(0, period[1])
        h, w = rng.integers(1, period[0] + 1), rng.integers(1, period[1] + 1)
        unit[y : y + max(1, h // 2), x : x + max(1, w // 2)] = rng.random()
    repeats = (size // period[0] + 2, size // period[1] + 2)
    tiled = np.tile(unit, repeats)[:size, :size]
    if rng.random() < 0.5:
        tiled = tiled * (cloud(rng, size) > 0.4)
    if rng.random() < 0.5:
        tiled = ndimage.rotate(tiled, rng.uniform(0, 90), reshape=False, order=1, mode="wrap")
    return _unit(tiled)


def hatching(rng: np.random.Generator, size: int) -> Image:
    """Thin parallel strokes in one to three directions, over the whole field or over patches of it."""
    y, x = np.indices((size, size), dtype=np.float32)
    canvas = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 40)
        bend = rng.uniform(0, 6) * np.sin(2 * np.pi * (x + y) / size * rng.integers(1, 5))
        place = (y * np.cos(angle) + x * np.sin(angle) + bend) % period
        stroke = np.clip(rng.uniform(0.8, max(1.0, period / 3)) - place, 0, 1) * rng.uniform(0.3, 1)
        where = cloud(rng, size) > rng.uniform(0.2, 0.7) if rng.random() < 0.5 else True
        canvas = np.maximum(canvas, stroke * where)
    return _unit(canvas)


def text(rng: np.random.Generator, size: int) -> Image:
    """Lines of letters, as on a printed page or a labelled slide."""
    page = PIL.Image.new("L", (2 * size, 2 * size))
    pen = PIL.ImageDraw.Draw(page)
    y = 0.0
    while y < 2 * size:
        height = rng.uniform(7, 12) if rng.random() < 0.7 else rng.uniform(12, 40)
        letters = rng.integers(33, 127, int(4 * size / height))
        spaced = np.where(rng.random(len(letters)) < 0.17, 32, letters)
        font = PIL.ImageFont.load_default(height)
        pen.text((rng.uniform(-20, 20), y), "".join(map(chr, spaced)), int(rng.integers(80, 256)), font)
        y += height * rng.uniform(1.0, 1.8)
    turned = page.rotate(rng.uniform(0, 360), PIL.Image.Resampling.BILINEAR)
    image = np.asarray(
        turned.crop((size // 2, size // 2, size // 2 + size, size // 2 + size)), dtype=np.float32
    )
    return _unit(-image if rng.random() < 0.5 else image)


FAMILIES: tuple[Family, ...] = (
    cloud,
    dead_leaves,
    mosaic,
    filaments,
    beads,
    cells,
    pattern,
    hatching,
    text,
)


def procedural(seed: int, size: int) -> Image:
    """The texture that belongs to a seed, (size, size) float32 in 0…1."""
    rng = np.random.default_rng(seed)
    return FAMILIES[seed % len(FAMILIES)](rng, size)


def _stamp(canvas: Image, rng: np.random.Generator, radius: float, value: float, round_shape: bool) -> None:
    """Draw one disc or box at a random place."""
    size = canvas.shape[0]
    cy, cx = rng.uniform(0, size, 2)
    ry, rx = (radius, radius) if round_shape else (radius * rng.uniform(0.2, 1), radius)
    y0, x0 = max(0, int(cy - ry)), max(0, int(cx - rx))
    patch = canvas[y0 : int(cy + ry) + 2, x0 : int(cx + rx) + 2]
    yy, xx = np.ogrid[y0 : y0 + patch.shape[0], x0 : x0 + patch.shape[1]]
    dy, dx = (yy - cy) / ry, (xx - cx) / rx
    patch[(dy**2 + dx**2 < 1) if round_shape else ((np.abs(dy) < 1) & (np.abs(dx) < 1))] = value


def _unit(image: NDArray[np.floating]) -> Image:
    """Scaled to 0…1."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-9)).astype(np.float32)
