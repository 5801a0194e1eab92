"""The few numbers of an instrument on which its image depends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from focusd.config import CameraConfig, ObjectiveConfig


@dataclass(frozen=True)
class Instrument:
    """Objective and camera.

    Attributes:
        magnification: from sample to camera.
        na: numerical aperture.
        immersion_index: refractive index n of the immersion.
        wavelength_um: of the detected light.
        camera_pixel_um: pitch of the camera's pixels after binning.
    """

    magnification: float
    na: float
    immersion_index: float = 1.0
    wavelength_um: float = 0.55
    camera_pixel_um: float = 6.5

    @classmethod
    def from_config(cls, objective: ObjectiveConfig, camera: CameraConfig) -> Instrument | None:
        """The instrument that a configuration describes; None where it leaves NA or magnification open."""
        if objective.na is None or objective.magnification is None:
            return None
        return cls(
            magnification=objective.magnification,
            na=objective.na,
            immersion_index=objective.immersion_index,
            wavelength_um=objective.wavelength_um,
            camera_pixel_um=camera.pixel_um * camera.binning,
        )

    @property
    def pixel_um(self) -> float:
        """Size of a pixel in the sample, µm."""
        return self.camera_pixel_um / self.magnification

    @property
    def depth_of_field_um(self) -> float:
        """Total depth of field, µm: λ·n/NA² + n·e/(M·NA), e the camera's pixel."""
        n, na = self.immersion_index, self.na
        return self.wavelength_um * n / na**2 + n * self.camera_pixel_um / (self.magnification * na)

    @property
    def axial_unit_um(self) -> float:
        """The diffraction part of the depth of field, λ·n/NA², µm: the natural unit of defocus."""
        return self.wavelength_um * self.immersion_index / self.na**2

    @property
    def sampling(self) -> float:
        """Pixel in units of λ/NA. The critical sampling of the intensity is 0.25."""
        return self.pixel_um * self.na / self.wavelength_um

    @property
    def sin_alpha(self) -> float:
        """Sine of half the aperture angle, NA/n."""
        return self.na / self.immersion_index

    def blur_radius_um(self, z_um: float) -> float:
        """Radius of the geometric blur disc at a defocus, plus the Airy radius, µm."""
        tangent = self.sin_alpha / math.sqrt(1 - self.sin_alpha**2)
        return abs(z_um) * tangent + 0.61 * self.wavelength_um / self.na
