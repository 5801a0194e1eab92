"""Simulated through-focus stacks of textures that the network never saw, for all benches that need the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.focus.measurement import Measurement
from focusd.microscope.samples import SAMPLES
from focusd.optics.imaging import Camera, kernel_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf
from focusd.optics.zernike import ASTIGMATISM_VERTICAL, COMA_X, SPHERICAL
from focusd.training.pool import FIRST_SEED
from focusd.training.procedural import procedural
from focusd.training.textures import periodic, read_textures

INSTRUMENT = Instrument(magnification=10.0, na=0.3)
"""The published setting."""
ABERRATIONS = {SPHERICAL: 0.03, ASTIGMATISM_VERTICAL: 0.03, COMA_X: 0.02}
"""Waves RMS, by Noll's index."""
FIELD_PX = 512
ELECTRONS = 8000.0
BACKGROUND = 0.05
DEFAULT_TEXTURES = Path("../shared/data/textures")
DRAWN_SAMPLES = ("empty", "cells", "filaments", "beads", "cloud")
"""Samples of the simulator that are not photographs."""

_KERNEL_PX = 256

Image = NDArray[np.float32]
Frame = NDArray[np.uint16]


def held_out_objects(
    folder: Path | None, count: int, seed: int, leave_out: tuple[str, ...] = ()
) -> list[Image]:
    """Objects that served neither training nor tuning, (512, 512), periodic, 0…1.

    Photographs of scikit-image, real textures kept for figures, and procedural ones to fill up.

    Args:
        folder: the real textures, all of which are then taken as unseen; None: the project's own where present.
        leave_out: photographs that serve something else.
    """
    rng = np.random.default_rng(seed)
    unwanted = {*DRAWN_SAMPLES, *leave_out}
    photographs = [name for name in SAMPLES if name not in unwanted] if folder is None else []
    objects = [periodic(SAMPLES[name]((FIELD_PX, FIELD_PX), seed), FIELD_PX, rng) for name in photographs]
    source = folder or DEFAULT_TEXTURES
    textures = read_textures(source) if source.is_dir() else []
    real = [t for t in textures if folder or t.role == "report"]
    objects += [periodic(real[i].image, FIELD_PX, rng) for i in rng.permutation(len(real))]
    drawn = max(0, count - len(objects))
    objects += [procedural(FIRST_SEED["report"] + k, FIELD_PX) for k in range(drawn)]
    return objects[:count]


def optical_transfers(planes_um: NDArray[np.float64], instrument: Instrument = INSTRUMENT) -> Tensor:
    """Transfer functions, (planes, 512, 257), of slightly aberrated optics."""
    return torch.stack([optical_transfer(float(z), instrument, ABERRATIONS) for z in planes_um])


def optical_transfer(
    z_um: float, instrument: Instrument, aberrations: Mapping[int, float], kernel_px: int = _KERNEL_PX
) -> Tensor:
    """Transfer function, (512, 257), of a kernel into which the blur has to fit."""
    kernel = torch.fft.ifftshift(camera_psf(instrument, z_um, kernel_px, aberrations))
    return kernel_transfer(kernel.float(), (FIELD_PX, FIELD_PX))


def gaussian_transfers(planes_um: NDArray[np.float64]) -> Tensor:
    """Gaussian blur with the RMS width, along one axis, of the geometric disc: half its radius."""
    fy = torch.fft.fftfreq(FIELD_PX)[:, None]
    fx = torch.fft.rfftfreq(FIELD_PX)[None, :]
    widths = [INSTRUMENT.blur_radius_um(float(z)) / 2 / INSTRUMENT.pixel_um for z in planes_um]
    return torch.stack([torch.exp(-2 * (np.pi * w) ** 2 * (fy**2 + fx**2)) for w in widths])


def exposures(
    light: Image, transfers: Tensor, electrons: float, generator: torch.Generator
) -> Iterator[Frame]:
    """One noisy 16-bit frame a plane.

    Args:
        light: of the object, periodic.
        electrons: in the frame where the light is 1.
    """
    camera = Camera(bit_depth=16, full_well=1.5 * electrons * max(1.0, float(light.max())))
    spectrum = torch.fft.rfft2(torch.from_numpy(light))
    for transfer in transfers:
        image = torch.fft.irfft2(spectrum * transfer, s=light.shape).clamp(min=0)
        yield camera.expose(image * electrons, generator).numpy().astype(np.uint16)


def field_score(measure: Measurement) -> float:
    """b of a field: its tiles weighted by their precision, as calibration and search weigh them."""
    weight = measure.sigma**-2
    return float((weight * measure.b).sum() / weight.sum())
