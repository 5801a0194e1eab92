"""A simulated microscope on one specimen, its focus hidden: what the accuracy bench exposes with. It stands at 0."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.dirt import Dirt
from bench.setting import Setting
from bench.synthetic import BACKGROUND, FIELD_PX, Image
from bench.transfers import transfer
from focusd.focus.frame import Frame
from focusd.optics.imaging import Camera

TILT_UM = 5.0
"""Rise over a tilted field, at 10×/0.3."""

_TILT_PLANES = 5


class Rig:
    """One specimen under one instrument.

    Args:
        light: of the object, (512, 512), periodic, 1 where it gives the setting's electrons.
        focus_um: where the truth lies: the plane of the highest Strehl ratio, at the field's centre.
        seed: of the noise.
        full_well: of the camera, in electrons of the brightest pixel.
        drift_um: by which the focus moves from one exposure to the next.
        bleaching: share of the light that is lost from one exposure to the next.
        flicker: standard deviation of the logarithm of the light.
        dirt: of the camera, which is the same one for all seeds.
    """

    def __init__(
        self,
        setting: Setting,
        light: Image,
        focus_um: float,
        seed: int,
        *,
        full_well: float = 1.5,
        drift_um: float = 0.0,
        bleaching: float = 0.0,
        flicker: float = 0.0,
        dirt: Dirt | None = None,
    ) -> None:
        self.setting = setting
        self.focus_um = focus_um
        self._light = light + np.float32(BACKGROUND)
        self._generator = torch.Generator().manual_seed(seed)
        self._drift_um = drift_um
        self._bleaching = bleaching
        self._flicker = flicker
        well = full_well * setting.electrons * max(1.0, float(self._light.max()))
        self._camera = Camera(bit_depth=16, full_well=well)
        self._dirt = dirt
        self._exposures = 0

    def frame(self, z_um: float) -> Frame:
        """One exposure as the product is told it."""
        return Frame(self.expose(z_um), z_um)

    def expose(self, z_um: float) -> NDArray[np.uint16]:
        """One noisy frame; a focus that drifts has moved on by then."""
        self.focus_um += self._drift_um if self._exposures else 0.0
        brightness = self._brightness()
        self._exposures += 1
        image = self._tilted(z_um) if self.setting.scene == "tilted" else self._level(z_um - self.focus_um)
        electrons = self._soiled(image.clamp(min=0) * (self.setting.electrons * brightness))
        return self._camera.expose(electrons, self._generator).numpy().astype(np.uint16)

    def _soiled(self, electrons: Tensor) -> Tensor:
        if self._dirt is None:
            return electrons
        return torch.from_numpy(self._dirt.shown(electrons.numpy(), self.setting.electrons)).float()

    def _brightness(self) -> float:
        """Of the next exposure; nothing is drawn where the light is steady."""
        bleached = (1 - self._bleaching) ** self._exposures
        if not self._flicker:
            return bleached
        return bleached * math.exp(self._flicker * float(torch.randn((), generator=self._generator)))

    @property
    def object_power(self) -> Tensor:
        """|spectrum|² of the object in electrons, (512, 257), in units in which white noise has its variance."""
        spectrum = self._spectrum * (self.setting.electrons / FIELD_PX)
        return spectrum.real.double().square() + spectrum.imag.double().square()

    @property
    def noise(self) -> float:
        """Variance of a pixel, electrons², on average over the frame."""
        return float(self._light.mean()) * self.setting.electrons + self._camera.read_noise**2

    @cached_property
    def _spectrum(self) -> Tensor:
        spectrum: Tensor = torch.fft.rfft2(torch.from_numpy(self._light))
        return spectrum

    def _level(self, defocus_um: float) -> Tensor:
        image: Tensor = torch.fft.irfft2(
            self._spectrum * transfer(self.setting, defocus_um), s=self._light.shape
        )
        return image

    def _tilted(self, z_um: float) -> Tensor:
        """A field that rises along x, interpolated between images of level ones."""
        half_um = TILT_UM * self.setting.scale / 2
        rise_um = torch.linspace(-half_um, half_um, FIELD_PX)
        step_um = 2 * half_um / (_TILT_PLANES - 1)
        image = torch.zeros(self._light.shape)
        for offset_um in np.linspace(-half_um, half_um, _TILT_PLANES):
            share = (1 - (rise_um - float(offset_um)).abs() / step_um).clamp(min=0)
            image += share * self._level(z_um - self.focus_um - float(offset_um))
        return image
