"""Images of samples in incoherent light: plane by plane through exact transfer functions, then cut to the frame."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.realism.optics import Optics, transfer
from bench.realism.samples import FIELD_PX, FINER, PADDED_PX, Layers

SIDE = PADDED_PX * FINER


class Incoherent:
    """A sample that emits or scatters light.

    Args:
        layers: their depths are those of the best plane.
    """

    def __init__(self, optics: Optics, layers: Layers) -> None:
        self.optics = optics
        self._layers = [(z_um, torch.fft.rfft2(torch.from_numpy(image))) for z_um, image in layers]

    @torch.inference_mode()
    def image(self, defocus_um: float, shift: tuple[float, float], smear: tuple[float, float]) -> Tensor:
        """Return the light on the pixels, (512, 512).

        Args:
            defocus_um: of the focal plane from the sample's mean depth.
            shift: of the image in pixels.
            smear: over which it moves, evenly, while it is exposed.
        """
        place = _places(self.optics)
        total: Tensor | None = None
        for z_um, spectrum in self._layers:
            seen = spectrum * _spread_out(self.optics, defocus_um - z_um, place)
            total = seen if total is None else total.add_(seen)
        assert total is not None
        return frame_of(moved(total * _pixel_box(), shift, smear), SIDE, PADDED_PX)


def frame_of(spectrum: Tensor, fine: int, coarse: int) -> Tensor:
    """Return the frame of a half spectrum at every `fine / coarse`-th sample, aliased as pixels alias.

    Args:
        spectrum: (fine, fine / 2 + 1).
        coarse: half of `fine`.
    """
    rows = spectrum.view(2, coarse, fine // 2 + 1).sum(0)
    mirrored = rows.flip(1)[:, : coarse // 2 + 1].conj()
    mirrored = torch.roll(mirrored.flip(0), 1, 0)
    folded = (rows[:, : coarse // 2 + 1] + mirrored) / (fine / coarse) ** 2
    image: Tensor = torch.fft.irfft2(folded, s=(coarse, coarse))
    margin = (coarse - FIELD_PX) // 2
    return image[margin : margin + FIELD_PX, margin : margin + FIELD_PX].clamp(min=0)


def moved(spectrum: Tensor, shift: tuple[float, float], smear: tuple[float, float]) -> Tensor:
    """Return the spectrum of an image that was shifted, and moved while it was exposed; both in pixels, (y, x)."""
    if not any((*shift, *smear)):
        return spectrum
    side = spectrum.shape[0]
    fy = torch.fft.fftfreq(side)[:, None] * FINER
    fx = torch.fft.rfftfreq(side)[None, :] * FINER
    phase = torch.polar(torch.ones(side, 1), -2 * np.pi * fy * shift[0])
    phase = phase * torch.polar(torch.ones(1, side // 2 + 1), -2 * np.pi * fx * shift[1])
    return spectrum * phase * torch.sinc(fy * smear[0] + fx * smear[1])


def _spread_out(optics: Optics, defocus_um: float, place: Tensor) -> Tensor:
    """Return the transfer function over the half plane of frequencies."""
    of = transfer(optics, defocus_um)
    values = torch.from_numpy(np.append(of.values, np.float32(0)))
    at = (place / of.step).clamp_(max=len(of.values) - 1)
    low = at.long()
    return torch.lerp(values[low], values[low + 1], at - low)


@cache
def _places(optics: Optics) -> Tensor:
    """Return the frequency of each point of the half plane, per µm."""
    fine_um = optics.pixel_um / FINER
    fy = torch.fft.fftfreq(SIDE, fine_um)[:, None]
    fx = torch.fft.rfftfreq(SIDE, fine_um)[None, :]
    return torch.hypot(fy, fx)


@cache
def _pixel_box() -> Tensor:
    """Return what the area of a pixel does to the image."""
    fy = torch.fft.fftfreq(SIDE)[:, None] * FINER
    fx = torch.fft.rfftfreq(SIDE)[None, :] * FINER
    return torch.sinc(fy) * torch.sinc(fx)
