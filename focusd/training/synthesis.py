"""Labelled training data: objects imaged by random instruments at a known defocus.

Instruments span those in use (NA/n 0.1–0.95, pixels of 0.18–0.7 λ/NA), light is incoherent or partially
coherent, optics slightly aberrated, samples flat, tilted, stepped or two layers thick. Cameras have 8 to 16 bits,
few to many photons, read noise, offset, hot pixels, saturation and vignetting; some are consumer cameras.
A recipe may ask for a share of mainstream instruments: fluorescence or bright field with open condenser, flat sample,
sampling as the configuration states it, a scientific camera, at least 300 electrons. Everything follows from a seed.

The network reads blur in pixels, so that it learns the *apparent* blurriness: b · canonical / actual sampling of
the frame as it sees it. The scorer turns it back where the sampling is known.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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
from focusd.scoring.views import (
    CANONICAL_SAMPLING,
    SAMPLING_TOLERANCE,
    TILE_PX,
    Views,
    resample,
    views_at,
)

SCENE_PX = 512
MAX_U = 21.5
"""Largest defocus in axial units for most frames; just beyond b = 1."""
FAR_U = 33.0
"""For some: a finely sampled frame of unknown optics shows wider blur, and the score must not fold back there."""

_KERNEL_SIZES = (64, 128, 256)
_ABERRATION_WAVES = {False: (0.0, 0.02, 0.05), True: (0.02, 0.04)}
"""SD of each term, waves RMS, by whether the instruments are mainstream."""


class Samples(NamedTuple):
    """Labelled locations.

    Attributes:
        views: what the network sees, batch of n.
        b: (n,) true apparent blurriness.
        structure: (n,) 1 where there is something to focus on, 0 where not, 0.5 where it is arguable.
    """

    views: Views
    b: Tensor
    structure: Tensor


class Optics(NamedTuple):
    """One chunk's instruments, each a (scenes,) tensor.

    Attributes:
        sampling: of the camera, λ/NA.
        seen: of the frame as the network sees it, after `resample`.
        condenser: NA of the illumination over NA of the objective; 1 is incoherent.
    """

    u: Tensor
    sin_alpha: Tensor
    sampling: Tensor
    seen: Tensor
    condenser: Tensor
    aberrations: dict[int, Tensor]


def synthesise(
    objects: Sequence[NDArray[np.float32]], seed: int, tiles: int, mainstream: bool = False
) -> Samples:
    """Image each (512, 512) object once and cut a number of locations from each frame.

    Args:
        objects: periodic, values 0…1.
        seed: of everything random here.
        tiles: locations a frame.
        mainstream: as the module says.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optics, kernel_px = draw_optics(rng, len(objects), mainstream)
    scene = torch.stack([torch.from_numpy(_radiance(o, rng)) for o in objects])
    light, depth = _image(scene, optics, kernel_px, rng, mainstream)
    parts = [
        _locations(light[i], depth[i], optics, i, tiles, rng, generator, mainstream)
        for i in range(len(objects))
    ]
    return join(parts)


def join(parts: Sequence[Samples]) -> Samples:
    """Several lots of samples as one."""
    views = Views(*(torch.cat([getattr(p.views, name) for p in parts]) for name in Views.__annotations__))
    return Samples(views, torch.cat([p.b for p in parts]), torch.cat([p.structure for p in parts]))


def draw_optics(rng: np.random.Generator, count: int, mainstream: bool = False) -> tuple[Optics, int]:
    """Random instruments that share a kernel size (drawn first, so that small blurs are computed fast)."""
    kernel_px = int(rng.choice(_KERNEL_SIZES, p=(0.38, 0.26, 0.36)))
    sin_alpha = rng.uniform(0.1, 0.8, count) if rng.random() < 0.85 else rng.uniform(0.8, 0.95, count)
    sampling, seen = _draw_sampling(rng, count, mainstream)
    limit = FAR_U if kernel_px == _KERNEL_SIZES[-1] and rng.random() < 0.2 else MAX_U
    reach = 0.42 * kernel_px * sampling * np.sqrt(1 - sin_alpha**2)
    u = _draw_defocus(rng, np.minimum(reach, limit * seen / CANONICAL_SAMPLING), kernel_px)
    open_condenser = mainstream or rng.random() < 0.8
    condenser = np.ones(count) if open_condenser else rng.uniform(0.5, 1.0, count)
    strength = rng.choice(_ABERRATION_WAVES[mainstream])
    terms = (ASTIGMATISM_OBLIQUE, ASTIGMATISM_VERTICAL, COMA_Y, COMA_X, SPHERICAL)
    aberrations = {j: _float(rng.normal(0, strength, count)) for j in terms if strength > 0}
    optics = Optics(
        _float(u), _float(sin_alpha), _float(sampling), _float(seen), _float(condenser), aberrations
    )
    return optics, kernel_px


def _draw_sampling(
    rng: np.random.Generator, count: int, mainstream: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cameras' sampling, and that of the frames as the network sees them."""
    kind = rng.random()
    if kind < (0.6 if mainstream else 0.68):
        return _near_canonical(rng, count)
    if mainstream or kind < 0.88:
        return _resampled(rng, count)
    sampling = CANONICAL_SAMPLING * 2 ** rng.uniform(-1.0, 0.4, count)  # unknown to the user: taken as it is
    return sampling, sampling


def _resampled(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sampling that the configuration states, from a 100×/1.4 on a scientific camera to twice the canonical one."""
    sampling = CANONICAL_SAMPLING * 2 ** rng.uniform(-1.1, 1.0, count)
    taken_as_it_is = np.abs(sampling / CANONICAL_SAMPLING - 1) <= SAMPLING_TOLERANCE
    return sampling, np.where(taken_as_it_is, sampling, CANONICAL_SAMPLING)


def _near_canonical(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sampling near enough the canonical one to be taken as it is."""
    sampling = CANONICAL_SAMPLING * rng.uniform(1 - SAMPLING_TOLERANCE, 1 + SAMPLING_TOLERANCE, count)
    return sampling, sampling


def _draw_defocus(
    rng: np.random.Generator, reach: NDArray[np.float64], kernel_px: int
) -> NDArray[np.float64]:
    """Signed defocus within reach; the smaller kernels carry the extra weight near the focus."""
    floor, power = {64: (0.0, 1.4), 128: (0.15, 1.0), 256: (0.25, 1.0)}[kernel_px]
    magnitude = reach * (floor + (1 - floor) * rng.random(len(reach)) ** power)
    signed: NDArray[np.float64] = magnitude * rng.choice([-1, 1], len(reach))
    return signed


def _image(
    scene: Tensor, optics: Optics, kernel_px: int, rng: np.random.Generator, flat: bool
) -> tuple[Tensor, Tensor]:
    """Expected light on the camera, and the defocus u of each object point; both the scene's shape."""
    if flat or rng.random() < 0.85:
        return _blur(scene, optics, kernel_px), optics.u[:, None, None].expand_as(scene)
    height = _float(rng.uniform(0.1, 2.0, len(scene)))[:, None, None]
    share = _relief(rng)[None]
    upper, lower = (optics._replace(u=optics.u + sign * height[:, 0, 0] / 2) for sign in (1, -1))
    light = _blur(scene * share, upper, kernel_px) + _blur(scene * (1 - share), lower, kernel_px)
    return light, optics.u[:, None, None] + height * (share - 0.5)


def _relief(rng: np.random.Generator) -> Tensor:
    """Height of each point, 0…1: a tilted plane, a step, or half of everything at either height (a thick sample)."""
    line = torch.linspace(0, 1, SCENE_PX)
    angle = rng.uniform(0, 2 * math.pi)
    rise = math.cos(angle) * (line[:, None] - 0.5) + math.sin(angle) * (line[None, :] - 0.5)
    kinds = (rise / math.sqrt(2) + 0.5, (rise > rng.uniform(-0.3, 0.3)).float(), torch.full_like(rise, 0.5))
    return kinds[int(rng.integers(3))]


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
    if rng.random() < 0.08:
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
    light: Tensor,
    depth: Tensor,
    optics: Optics,
    scene: int,
    tiles: int,
    rng: np.random.Generator,
    generator: torch.Generator,
    mainstream: bool,
) -> Samples:
    """Expose a frame and cut random locations."""
    camera, electrons = _draw_camera(light, rng, mainstream)
    shade = vignette((SCENE_PX, SCENE_PX), rng.uniform(0, 0.4) * (rng.random() < 0.5), light)
    frame = camera.expose(electrons * shade, generator)
    frame = frame if mainstream else _spoil(frame, camera.full_scale, rng)
    frame, electrons, depth = _cut([frame, electrons, depth], rng)
    sampling, seen = float(optics.sampling[scene]), float(optics.seen[scene])
    if seen != sampling:
        frame, electrons, depth = (resample(image, sampling)[0] for image in (frame, electrons, depth))
    y, x = (torch.from_numpy(_starts(n, tiles, rng)) for n in frame.shape)
    noise_scale = min(1.0, sampling / seen)
    structure = _structure(_tiles(electrons, y, x), camera.read_noise, noise_scale)
    u = _tiles(depth, y, x).mean((-2, -1))
    b = focus_coefficient(u, optics.sin_alpha[scene].expand_as(u)) / MAX_FOCUS_WAVES
    return Samples(views_at(frame, y, x), b * (CANONICAL_SAMPLING / seen), structure)


def _draw_camera(light: Tensor, rng: np.random.Generator, mainstream: bool) -> tuple[Camera, Tensor]:
    """A camera, and the electrons that the light makes in it."""
    bits = int(rng.choice([8, 12, 16], p=(0.35, 0.25, 0.4)))
    dimmest = 300 if mainstream or rng.random() >= 0.25 else 20
    peak = math.exp(rng.uniform(math.log(dimmest), math.log(50000)))
    overexposed = not mainstream and rng.random() < 0.04
    used = rng.uniform(1.05, 1.6) if overexposed else rng.uniform(0.1, 0.95)
    camera = Camera(
        bit_depth=bits,
        full_well=peak / used,
        read_noise=float(rng.uniform(0.5, 6.0)),
        offset=float(round(rng.uniform(0, 0.03) * 2**bits)),
    )
    return camera, light * (peak / max(float(light.max()), 1e-6))


def _spoil(frame: Tensor, full_scale: int, rng: np.random.Generator) -> Tensor:
    """Hot pixels, and what consumer cameras do to a frame."""
    if rng.random() < 0.08:
        hot = rng.integers(0, frame.numel(), int(rng.integers(1, 60)))
        frame.view(-1)[torch.from_numpy(hot)] = full_scale
    kind = rng.random()
    if kind < 0.08:  # gamma
        return full_scale * (frame / full_scale) ** rng.uniform(0.45, 1.0)
    if kind < 0.14:
        return _demosaiced(frame)
    if kind < 0.18:  # unsharp mask
        mean = functional.avg_pool2d(frame[None], 3, stride=1, padding=1)[0]
        return (frame + rng.uniform(0.2, 1.0) * (frame - mean)).clamp(0, full_scale)
    return _jpeg(frame, full_scale, int(rng.integers(60, 96))) if kind < 0.24 else frame


def _demosaiced(frame: Tensor) -> Tensor:
    """Green of a Bayer sensor: every second pixel is the mean of its neighbours."""
    around = sum(torch.roll(frame, step, axis) for axis in (0, 1) for step in (-1, 1))
    index = torch.arange(max(frame.shape))
    odd = (index[: frame.shape[0], None] + index[None, : frame.shape[1]]) % 2 == 1
    return torch.where(odd, around / 4, frame)


def _jpeg(frame: Tensor, full_scale: int, quality: int) -> Tensor:
    file = io.BytesIO()
    grey = (frame * (255 / full_scale)).round().to(torch.uint8).numpy()
    PIL.Image.fromarray(grey).save(file, "JPEG", quality=quality)
    decoded = np.asarray(PIL.Image.open(file), dtype=np.float32)
    return torch.from_numpy(decoded) * (full_scale / 255)


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


def _tiles(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The tiles (n, 128, 128) whose first pixels are (y, x); small images repeat their edge."""
    index = torch.arange(TILE_PX)
    rows = (y[:, None] + index).clamp(0, image.shape[0] - 1)
    columns = (x[:, None] + index).clamp(0, image.shape[1] - 1)
    return image[rows[:, :, None], columns[:, None, :]]


def _structure(electrons: Tensor, read_noise: float, noise_scale: float) -> Tensor:
    """Label 1 where the blurred object stands out of the noise in some view of a tile, 0 where in none.

    Args:
        electrons: expected, (n, 128, 128).
        noise_scale: by which resampling has lowered the noise.
    """
    noise = noise_scale * torch.sqrt(electrons.mean((-2, -1)) + read_noise**2)
    snr = torch.zeros_like(noise)
    for binning in (1, 4):
        coarse = functional.avg_pool2d(electrons[:, None], binning)[:, 0]
        snr = torch.maximum(snr, coarse.flatten(1).std(1) / (noise / binning))
    return torch.where(snr > 0.5, 1.0, torch.where(snr < 0.1, 0.0, 0.5))


def _float(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values)).float()
