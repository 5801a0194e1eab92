"""How the focus is calibrated, searched for and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from focusd.config.section import Positive, Section


class CalibrationConfig(Section):
    """The calibration stack, centred on where the stage stands (the user has focused by eye)."""

    range_um: Positive | None = None
    """Half the stack's extent; None: as the objective asks for (`focusd.focus.planes.stack_um`)."""
    step_um: Positive | None = None
    """Distance of the planes; None: likewise."""

    @model_validator(mode="after")
    def _enough_planes(self) -> Self:
        if self.range_um and self.step_um and self.range_um < 3 * self.step_um:
            raise ValueError("range_um must be at least 3 step_um, or there is no curve to fit")
        return self


class AutofocusConfig(Section):
    """The search."""

    strategy: Literal["posterior", "published"] = "posterior"
    """focusd's own search, or that of the paper."""
    max_exposures: Annotated[int, Field(ge=2, le=100)] = 8
    """Exposures of one refocus."""
    max_seconds: Positive | None = None
    """No exposure is begun later than this after the request."""
    max_dose_ms: Positive | None = None
    """Exposure time of one refocus."""
    target_dof: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The posterior search ends when σ is below this fraction of the depth of field."""
    verify: bool = True
    """The posterior search ends with an exposure at the focus."""
    surface: Literal["mean", "median", "nearest", "sharpest"] = "mean"
    """What of a tilted, stepped or thick field is brought into focus; nearest: to the objective; sharpest: the plane at
    which most of the field is sharp."""
    structure_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Patches less likely than this to hold structure are left out."""
    max_saturated: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Fraction of pixels at full scale above which a frame is refused."""


class ScorerConfig(Section):
    """The network."""

    weights: Path | None = None
    """None: the weights shipped with focusd."""
    backend: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where it is computed; auto: the best that works. One that fails is left for the next."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    """Tiles that a thread scores at once on the CPU; a GPU takes 256."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """On the CPU; None: one a core."""
    max_tiles: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Of a frame, those of most contrast; more of them cost time and tell little more."""
    budget_ms: Positive = 40.0
    """For the scores of a frame: a machine that is too slow for `max_tiles` scores fewer, at least four."""
