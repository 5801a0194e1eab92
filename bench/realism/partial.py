"""Images of absorbing samples in transmitted light, as Abbe says: the condenser's aperture point by point."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bench.realism.imaging import frame_of, moved
from bench.realism.optics import Optics
from bench.realism.samples import Image

PADDED_PX = 640
_FINE = 1280
_INTENSITY = 960
"""Side of the grid on which one source's image is computed: it holds twice the objective's aperture."""
_SOURCES = 28
DENSITY = 1.2
"""Of the darkest place, natural logarithm of the intensity."""


class Transmitted:
    """A thin sample that absorbs, in Köhler's light from an open condenser.

    Args:
        optics: with a condenser.
        relief: of the sample, 0…1, on a periodic grid.
    """

    def __init__(self, optics: Optics, relief: Image) -> None:
        self.optics = optics
        cut = torch.from_numpy(np.ascontiguousarray(relief[:_FINE, :_FINE]))
        self._spectrum = torch.fft.fftshift(torch.fft.fft2(torch.exp(-DENSITY / 2 * cut * _fade())))
        self._step = 1 / (PADDED_PX * optics.pixel_um)
        wave = optics.immersion_index / optics.wavelength_um
        aperture = optics.na / optics.wavelength_um
        self._half = math.ceil(aperture / self._step) + 2
        frequency = torch.arange(-self._half, self._half) * self._step
        square = frequency[:, None] ** 2 + frequency**2
        # The edge of the aperture is a cell wide: a lattice of points has no round edge.
        self._inside = ((aperture - square.sqrt()) / self._step + 0.5).clamp(0, 1)
        self._path = (wave**2 - square).clamp(min=0).sqrt() - wave
        assert optics.condenser is not None
        self._sources = _disc(optics.condenser * aperture / self._step)

    @torch.inference_mode()
    def image(self, defocus_um: float, shift: tuple[float, float], smear: tuple[float, float]) -> Tensor:
        """Return the light on the pixels, (512, 512), 1 where nothing absorbs; see `Incoherent.image`."""
        pupil = self._inside * torch.polar(torch.ones_like(self._path), 2 * math.pi * defocus_um * self._path)
        total = torch.zeros(_INTENSITY, _INTENSITY)
        low, high = _FINE // 2 - self._half, _FINE // 2 + self._half
        for y, x in self._sources:
            piece = self._spectrum[low + y : high + y, low + x : high + x] * pupil
            amplitude = torch.fft.ifft2(
                piece, s=total.shape
            )  # its place in frequency is a phase, which nobody sees
            total += amplitude.real.square() + amplitude.imag.square()
        total *= (_INTENSITY / _FINE) ** 4 / len(self._sources)
        return frame_of(moved(_upsampled(total) * _box(), shift, smear), _FINE, PADDED_PX)


def _upsampled(intensity: Tensor) -> Tensor:
    """Return the half spectrum on the finer grid."""
    spectrum = torch.fft.rfft2(intensity) * (_FINE / _INTENSITY) ** 2
    out = torch.zeros(_FINE, _FINE // 2 + 1, dtype=spectrum.dtype)
    half = _INTENSITY // 2
    out[:half, :half] = spectrum[:half, :half]
    out[-half:, :half] = spectrum[half:, :half]
    return out


def _box() -> Tensor:
    fine = _FINE / PADDED_PX
    fy = torch.fft.fftfreq(_FINE)[:, None] * fine
    fx = torch.fft.rfftfreq(_FINE)[None, :] * fine
    return torch.sinc(fy) * torch.sinc(fx)


def _fade() -> Tensor:
    """Return a window that is 0 at the edges of the field and 1 in the frame, so that the edges meet."""
    width = (PADDED_PX - 512) // 2 * _FINE // PADDED_PX
    place = torch.minimum(torch.arange(_FINE), _FINE - 1 - torch.arange(_FINE)) / width
    rise = 0.5 - 0.5 * torch.cos(math.pi * place.clamp(0, 1))
    return rise[:, None] * rise


def _disc(radius: float) -> list[tuple[int, int]]:
    """Return points that fill a disc evenly, in steps of the frequency grid."""
    count = np.arange(_SOURCES)
    r, t = radius * np.sqrt((count + 0.5) / _SOURCES), count * math.pi * (3 - math.sqrt(5))
    return [(round(y), round(x)) for y, x in zip(r * np.sin(t), r * np.cos(t), strict=True)]
