"""Labelled training data: objects imaged by random instruments at a known defocus.

Instruments span those in use (NA 0.1–0.95, pixels at and around the canonical sampling), light is incoherent
or partially coherent, optics slightly aberrated, cameras have 8 to 16 bits, few to many photons, read noise,
offset, hot pixels, saturation and vignetting. Everything follows from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.optics.defocus import MAX_FOCUS_WAVES, focus_coefficient
from focusd.optics.imaging import Camera, blur, vignette
from focusd.optics.psf import pixel_kernel
from focusd.optics.zernike import (
    ASTIGMATISM_OBLIQUE,
    ASTIGMATISM_VERTICAL,
    COMA_X,
    COMA_Y,
    SPHERICAL,
)
from focusd.sharpness.views import CANONICAL_SAMPLING, TILE_PX, Views, resample, views_at

SCENE_PX = 512
MAX_U = 21.5
"""Largest defocus in axial units; just beyond b = 1."""

_KERNEL_SIZES = (64, 128, 256)


class Samples(NamedTuple):
    """Labelled locations.

    Attributes:
        views: what the network sees, batch of n.
        b: (n,) true blurriness.
        structure: (n,) 1 where there is something to focus on, 0 where not, 0.5 where it is arguable.
    """

    views: Views
    b: Tensor
    structure: Tensor


class Optics(NamedTuple):
    """One chunk's instruments, each a (scenes,) tensor."""

    u: Tensor
    sin_alpha: Tensor
    sampling: Tensor
    condenser: Tensor
    aberrations: dict[int, Tensor]


def synthesise(objects: Sequence[NDArray[np.float32]], seed: int, tiles: int) -> Samples:
    """Image each (512, 512) object once and cut a number of locations from each frame.

    Args:
        objects: periodic, values 0…1.
        seed: of everything random here.
        tiles: locations a frame.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optics, kernel_px = draw_optics(rng, len(objects))
    scene = torch.stack([torch.from_numpy(_radiance(o, rng)) for o in objects])
    blurred = _blur(scene, optics, kernel_px)
    b = focus_coefficient(optics.u, optics.sin_alpha) / MAX_FOCUS_WAVES
    parts = [
        _locations(blurred[i], float(optics.sampling[i]), tiles, rng, generator) for i in range(len(objects))
    ]
    views = Views(*(torch.cat([getattr(v, name) for v, _ in parts]) for name in Views.__annotations__))
    return Samples(views, b.repeat_interleave(tiles), torch.cat([s for _, s in parts]))


def draw_optics(rng: np.random.Generator, count: int) -> tuple[Optics, int]:
    """Random instruments that share a kernel size (drawn first, so that small blurs are computed fast)."""
    kernel_px = int(rng.choice(_KERNEL_SIZES, p=(0.38, 0.26, 0.36)))
    sin_alpha = rng.uniform(0.1, 0.8, count) if rng.random() < 0.85 else rng.uniform(0.8, 0.95, count)
    sampling = CANONICAL_SAMPLING * rng.uniform(0.9, 1.1, count)
    if rng.random() < 0.2:  # a camera that needs resampling
        sampling = CANONICAL_SAMPLING * 2 ** rng.uniform(-0.7, 1.0, count)
    reach = 0.42 * kernel_px * sampling * np.sqrt(1 - sin_alpha**2)
    u = _draw_defocus(rng, np.minimum(reach, MAX_U), kernel_px)
    condenser = np.ones(count) if rng.random() < 0.8 else rng.uniform(0.5, 1.0, count)
    strength = rng.choice([0.0, 0.02, 0.05])
    terms = (ASTIGMATISM_OBLIQUE, ASTIGMATISM_VERTICAL, COMA_Y, COMA_X, SPHERICAL)
    aberrations = {j: _float(rng.normal(0, strength, count)) for j in terms if strength > 0}
    return Optics(_float(u), _float(sin_alpha), _float(sampling), _float(condenser), aberrations), kernel_px


def _draw_defocus(
    rng: np.random.Generator, reach: NDArray[np.float64], kernel_px: int
) -> NDArray[np.float64]:
    """Signed defocus within reach; the smaller kernels carry the extra weight near the focus."""
    floor = {64: 0.0, 128: 0.15, 256: 0.25}[kernel_px]
    magnitude = reach * (floor + (1 - floor) * rng.random(len(reach)))
    signed: NDArray[np.float64] = magnitude * rng.choice([-1, 1], len(reach))
    return signed


def _blur(scene: Tensor, optics: Optics, kernel_px: int) -> Tensor:
    """Expected light on the camera, same shape as the scene."""
    coherent = bool((optics.condenser < 1).any())
    kernel = pixel_kernel(
        optics.u,
        optics.sin_alpha,
        optics.sampling,
        kernel_px,
        optics.aberrations,
        optics.condenser if coherent else None,
    )
    return blur(scene, kernel).clamp(min=0)


def _radiance(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The object as a modality shows it: fluorescence, dark on bright, weak or relief-like; or empty."""
    if rng.random() < 0.06:
        return np.full_like(image, 0.5)
    image = image ** np.float32(2 ** rng.uniform(-1, 1))
    modality = rng.choice(4, p=(0.4, 0.3, 0.2, 0.1))
    if modality == 0:  # fluorescence on some background
        return image + np.float32(10 ** rng.uniform(-2.5, 0.3))
    if modality == 1:  # bright field: absorption
        return np.asarray(np.exp(-np.float32(10 ** rng.uniform(-1.3, 0.5)) * image))
    if modality == 2:  # low contrast around a mean
        return np.asarray(1 + np.float32(10 ** rng.uniform(-2, -0.3)) * (image - np.float32(0.5)))
    relief = image - np.roll(image, tuple(rng.integers(1, 3, 2)), (0, 1))  # as in phase and DIC contrast
    return np.asarray(np.clip(1 + np.float32(10 ** rng.uniform(-1, 0)) * relief, 0, None))


def _locations(
    light: Tensor, sampling: float, tiles: int, rng: np.random.Generator, generator: torch.Generator
) -> tuple[Views, Tensor]:
    """Expose a frame and cut random locations; the second value is their structure label."""
    camera, electrons = _draw_camera(light, rng)
    shade = vignette((SCENE_PX, SCENE_PX), rng.uniform(0, 0.4) * (rng.random() < 0.5), light)
    frame = _spoil(camera.expose(electrons * shade, generator), camera.full_scale, rng)
    frame, electrons = _cut([frame, electrons], rng)
    frame, _ = resample(frame, sampling)
    electrons, factor = resample(electrons, sampling)
    y, x = (torch.from_numpy(_starts(n, tiles, rng)) for n in frame.shape)
    structure = _structure(electrons, camera.read_noise, y, x, noise_scale=min(1.0, factor))
    return views_at(frame, y, x), structure


def _draw_camera(light: Tensor, rng: np.random.Generator) -> tuple[Camera, Tensor]:
    """A camera, and the electrons that the light makes in it."""
    bits = int(rng.choice([8, 12, 16], p=(0.35, 0.25, 0.4)))
    dimmest = 20 if rng.random() < 0.25 else 300
    peak = math.exp(rng.uniform(math.log(dimmest), math.log(50000)))
    used = rng.uniform(1.05, 1.6) if rng.random() < 0.04 else rng.uniform(0.1, 0.95)
    camera = Camera(
        bit_depth=bits,
        full_well=peak / used,
        read_noise=float(rng.uniform(0.5, 6.0)),
        offset=float(round(rng.uniform(0, 0.03) * 2**bits)),
    )
    return camera, light * (peak / max(float(light.max()), 1e-6))


def _spoil(frame: Tensor, full_scale: int, rng: np.random.Generator) -> Tensor:
    """Hot pixels, and the gamma curve of some consumer cameras."""
    if rng.random() < 0.08:
        hot = rng.integers(0, frame.numel(), int(rng.integers(1, 60)))
        frame.view(-1)[torch.from_numpy(hot)] = full_scale
    if rng.random() < 0.1:
        frame = full_scale * (frame / full_scale) ** rng.uniform(0.45, 1.0)
    return frame


def _cut(images: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """Some cameras' frames are small: then the outer views are completed by reflection."""
    if rng.random() < 0.85:
        return images
    height, width = rng.integers(TILE_PX, SCENE_PX, 2)
    return [image[:height, :width] for image in images]


def _starts(extent: int, tiles: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """First pixels of random tiles along one axis."""
    if extent <= TILE_PX:
        return np.full(tiles, (extent - TILE_PX) // 2, dtype=np.int64)
    return rng.integers(0, extent - TILE_PX + 1, tiles)


def _structure(electrons: Tensor, read_noise: float, y: Tensor, x: Tensor, noise_scale: float) -> Tensor:
    """Label 1 where the blurred object stands out of the noise in some view, 0 where in none."""
    snr = torch.zeros(len(y))
    index = torch.arange(TILE_PX)
    rows = (y[:, None] + index).clamp(0, electrons.shape[0] - 1)
    columns = (x[:, None] + index).clamp(0, electrons.shape[1] - 1)
    tile = electrons[rows[:, :, None], columns[:, None, :]]
    noise = noise_scale * torch.sqrt(tile.mean((-2, -1)) + read_noise**2)
    for binning in (1, 4):
        coarse = torch.nn.functional.avg_pool2d(tile[:, None], binning)[:, 0]
        snr = torch.maximum(snr, coarse.flatten(1).std(1) / (noise / binning))
    return torch.where(snr > 0.5, 1.0, torch.where(snr < 0.1, 0.0, 0.5))


def _float(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values)).float()
