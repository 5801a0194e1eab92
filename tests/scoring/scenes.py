"""Scenes that neither training nor the simulator draws, and what a 10×/0.3 objective shows of them."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from focusd.focus.measurement import Measurement
from focusd.optics.imaging import blur
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf

Array = NDArray[np.float64]

INSTRUMENT = Instrument(magnification=10, na=0.3, camera_pixel_um=6.5)
SCENE_PX = 512
ELECTRONS = 8000.0
READ_NOISE = 1.6
DEFOCUS_UM = 25.0
"""Where the tests look that are about something else."""


def chequered_lines(rng: np.random.Generator) -> Array:
    """A plane cut by straight lines, two grey levels changing at each: edges of all directions."""
    y, x = np.mgrid[:SCENE_PX, :SCENE_PX]
    sign = np.ones((SCENE_PX, SCENE_PX))
    for _ in range(60):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(0, 1.4 * SCENE_PX)
        sign *= np.where(y * np.sin(angle) + x * np.cos(angle) > offset * np.cos(angle - np.pi / 4), 1, -1)
    return 0.55 + 0.45 * sign * rng.uniform(0.6, 1)


def printed(rng: np.random.Generator) -> Array:
    """A page of random marks of 5×4 dots, each dot 2 to 4 px wide."""
    dot = int(rng.integers(2, 5))
    dots = (rng.random((SCENE_PX // dot + 6, SCENE_PX // dot + 5)) < 0.45).astype(float)
    dots[::6] = 0
    dots[:, ::5] = 0
    return 1 - 0.8 * np.kron(dots, np.ones((dot, dot)))[:SCENE_PX, :SCENE_PX]


def sand(rng: np.random.Generator) -> Array:
    """Grains of two to four pixels, each of its own brightness, over half of the plane."""
    grains = np.zeros((SCENE_PX, SCENE_PX))
    for size in (2, 3, 4):
        coarse = rng.random((SCENE_PX // size + 1, SCENE_PX // size + 1))
        bright = coarse * (rng.random(coarse.shape) < 0.2)
        grains = np.maximum(grains, np.kron(bright, np.ones((size, size)))[:SCENE_PX, :SCENE_PX])
    return 0.1 + 0.9 * grains


def rings(rng: np.random.Generator) -> Array:
    """Thin circles of all sizes, crossing one another."""
    y, x = np.mgrid[:SCENE_PX, :SCENE_PX]
    canvas = np.full((SCENE_PX, SCENE_PX), 0.15)
    for _ in range(120):
        radius = np.hypot(y - rng.uniform(0, SCENE_PX), x - rng.uniform(0, SCENE_PX))
        canvas[np.abs(radius - rng.uniform(2, 60)) < rng.uniform(0.6, 1.6)] = rng.uniform(0.4, 1)
    return canvas


SCENES: dict[str, Callable[[np.random.Generator], Array]] = {
    "lines": chequered_lines,
    "print": printed,
    "sand": sand,
    "rings": rings,
}


@cache
def scene(name: str, seed: int) -> Array:
    """One of the scenes, values 0…1."""
    return SCENES[name](np.random.default_rng(seed))


@cache
def kernel(z_um: float) -> torch.Tensor:
    """The instrument's PSF, (1, 128, 128), origin at [0, 0]."""
    psf: torch.Tensor = torch.fft.ifftshift(camera_psf(INSTRUMENT, z_um, 128))
    return psf[None]


def seen(image: Array, z_um: float) -> Array:
    """Electrons that the camera expects of a scene at a distance from the focus."""
    blurred = blur(torch.from_numpy(image)[None], kernel(z_um))[0].clamp(min=0)
    expected: Array = blurred.numpy() * ELECTRONS
    return expected


def detected(electrons: Array, seed: int = 0) -> Array:
    """Electrons with shot and read noise."""
    rng = np.random.default_rng(seed)
    return rng.poisson(electrons) + rng.normal(0, READ_NOISE, electrons.shape)


def counts(electrons: Array, bit_depth: int, full_well: float) -> NDArray[np.uint16]:
    """Whole counts of a camera without offset."""
    full_scale = 2**bit_depth - 1
    whole: NDArray[np.uint16] = (
        np.round(electrons * (full_scale / full_well)).clip(0, full_scale).astype(np.uint16)
    )
    return whole


def frame(name: str, z_um: float, seed: int = 0) -> NDArray[np.uint16]:
    """A noisy 16-bit frame of a scene."""
    return counts(detected(seen(scene(name, seed), z_um), seed), 16, 12000.0)


def noise(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
    """A frame of shot noise alone."""
    return np.random.default_rng(seed).poisson(1000, shape).astype(np.uint16)


def parts(measure: Measurement) -> list[Array]:
    """All arrays of a measure."""
    return [measure.b, measure.sigma, measure.structure, measure.y_px, measure.x_px]
