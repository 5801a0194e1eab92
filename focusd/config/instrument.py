"""Objective and camera."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from focusd.config.section import Positive, Section


class ObjectiveConfig(Section):
    """The objective in use. NA and magnification give the depth of field and the score's scale.

    Where they are not known (someone else's recorded stack), the calibration absorbs the scale.
    """

    name: str
    """Calibrations and focus maps belong to it: another kind of light needs another name."""
    magnification: Positive | None = None
    """From the sample to the camera."""
    na: Positive | None = None
    """Numerical aperture."""
    immersion_index: Annotated[float, Field(ge=1.0, le=2.0)] = 1.0
    """Refractive index: 1.0 air, 1.33 water, 1.515 oil."""
    wavelength_um: Annotated[float, Field(ge=0.2, le=2.0)] = 0.55
    """The middle of the light that reaches the camera."""

    @model_validator(mode="after")
    def _na_below_index(self) -> Self:
        if self.na is not None and self.na >= self.immersion_index:
            raise ValueError(f"na {self.na} must be below immersion_index {self.immersion_index}")
        return self


class CameraConfig(Section):
    """The camera: pitch of its physical pixels, on-chip binning and exposure."""

    name: str = "camera"
    """A calibration belongs to the camera of this name."""
    pixel_um: Positive
    """Pitch on the chip, before binning."""
    binning: Annotated[int, Field(ge=1, le=8)] = 1
    """On the chip, in both directions."""
    exposure_ms: Positive = 10.0
    """Of each frame that focusd takes."""
    acquisition: Literal["snap", "sequence"] = "snap"
    """sequence: the camera streams through an operation, and frames exposed during a move are dropped."""
    bit_depth: Annotated[int, Field(ge=8, le=16)] | None = None
    """Bits of a pixel's full scale; None: as the camera says."""
