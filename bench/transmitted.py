"""A thin sample in transmitted light, absorbing and shifting the phase, imaged as Abbe says.

The image is the sum of what each point of the condenser's aperture makes of the sample alone (M. Born & E. Wolf,
Principles of Optics, section 10.6). Unlike the convolution by a point spread function, with which the network was
trained, it knows phase: bright field of unstained cells, and phase contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.setting import Setting
from focusd.focus.frame import Frame
from focusd.microscope.samples import SAMPLES
from focusd.optics.imaging import Camera

FIELD_PX = 512
FINER = 2
"""The sample is given on a grid so much finer than the pixels', which holds all that the objective passes."""

_EDGE = 0.08
"""Share of the field over which it fades at its edges, so that they meet."""
_DISC_POINTS = 48
"""Of the condenser's aperture."""
_RING_POINTS, _RING_RADIUS, _RING_WIDTH, _RING_PASSES = 18, 0.5, 0.08, 0.2
"""Annulus of phase contrast: points around it, radius and width in the pupil, and the light that its plate passes."""


@dataclass(frozen=True)
class Light:
    """Illumination and sample.

    Attributes:
        phase_contrast: annulus and phase plate; else bright field with an open disc.
        condenser: NA of the illumination over that of the objective, for bright field.
        density: optical density (natural logarithm) of the sample from its darkest place to its brightest.
        phase: shift in radians, likewise.
    """

    name: str
    phase_contrast: bool = False
    condenser: float = 0.7
    density: float = 0.0
    phase: float = 0.0

    def times(self, strength: float) -> Light:
        """Of a sample that does so much more of everything."""
        return replace(self, density=self.density * strength, phase=self.phase * strength)


class TransmittedLight:
    """One sample under a 10×/0.3, its focus hidden; exposed as the accuracy bench's rig is.

    Args:
        sample: of `focusd.microscope.samples`.
        seed: of the sample and the noise.
        focus_um: where it lies.
    """

    def __init__(self, light: Light, sample: str, seed: int, focus_um: float) -> None:
        self.setting = Setting(optics=light.name)
        self.focus_um = focus_um
        instrument = self.setting.instrument
        relief = _relief(sample, seed)
        passed = torch.polar(torch.exp(-light.density / 2 * relief), light.phase * relief)
        self._spectrum = torch.fft.fft2(passed)
        frequency = torch.fft.fftfreq(FIELD_PX * FINER, instrument.pixel_um / FINER)
        square = frequency[:, None] ** 2 + frequency**2
        cut_off = instrument.na / instrument.wavelength_um
        wave = instrument.immersion_index / instrument.wavelength_um
        self._inside = (square <= cut_off**2).to(torch.complex64)
        self._path = torch.sqrt((wave**2 - square).clamp(min=0)) - wave
        step = float(frequency[1])
        self._sources = (
            _annulus(cut_off / step) if light.phase_contrast else _disc(light.condenser * cut_off / step)
        )
        if light.phase_contrast:
            ring = (torch.sqrt(square) / cut_off - _RING_RADIUS).abs() <= _RING_WIDTH
            self._inside[ring] *= 1j * math.sqrt(_RING_PASSES)
        self._camera = Camera(bit_depth=16, full_well=3 * self.setting.electrons)
        self._generator = torch.Generator().manual_seed(seed)

    def frame(self, z_um: float) -> Frame:
        """One exposure as the product is told it."""
        return Frame(self.expose(z_um), z_um)

    def expose(self, z_um: float) -> NDArray[np.uint16]:
        """One noisy frame, as bright on average at any z."""
        image = self._image(z_um - self.focus_um)
        electrons = image / image.mean() * self.setting.electrons
        return self._camera.expose(electrons, self._generator).numpy().astype(np.uint16)

    @torch.inference_mode()
    def _image(self, defocus_um: float) -> Tensor:
        """Intensity on the pixels."""
        pupil = self._inside * torch.polar(torch.ones_like(self._path), 2 * math.pi * defocus_um * self._path)
        total = torch.zeros_like(self._path)
        for source in self._sources:
            amplitude = torch.fft.ifft2(torch.roll(self._spectrum, source, (0, 1)) * pupil)
            total += amplitude.real.square() + amplitude.imag.square()
        return total.view(FIELD_PX, FINER, FIELD_PX, FINER).mean((1, 3))


def _relief(sample: str, seed: int) -> Tensor:
    """The sample, 0…1, on the finer grid, its edges alike."""
    size = FIELD_PX * FINER
    texture = SAMPLES[sample]((size, size), seed).astype(np.float32)
    texture = (texture - texture.min()) / np.ptp(texture)
    place = np.minimum(np.arange(size), size - 1 - np.arange(size)) / (_EDGE * size)
    fade = 0.5 - 0.5 * np.cos(np.pi * place.clip(0, 1).astype(np.float32))
    mean = texture.mean()
    return torch.from_numpy(mean + (texture - mean) * fade[:, None] * fade)


def _disc(radius: float) -> list[tuple[int, int]]:
    """Points of the condenser's open aperture, in steps of the frequency grid: a spiral, for a lattice would show."""
    count = np.arange(_DISC_POINTS)
    r, t = radius * np.sqrt((count + 0.5) / _DISC_POINTS), count * math.pi * (3 - math.sqrt(5))
    return [(round(y), round(x)) for y, x in zip(r * np.sin(t), r * np.cos(t), strict=True)]


def _annulus(pupil: float) -> list[tuple[int, int]]:
    """Points of phase contrast's, on two circles by turns."""
    turns = np.arange(2 * _RING_POINTS) * math.pi / _RING_POINTS
    radii = pupil * (_RING_RADIUS + _RING_WIDTH / 2 * (-1.0) ** np.arange(len(turns)))
    return [(round(r * math.sin(t)), round(r * math.cos(t))) for r, t in zip(radii, turns, strict=True)]
