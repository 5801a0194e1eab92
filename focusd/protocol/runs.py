"""The params of runs that a client drives: it owns camera and stage, and is told where to expose next."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from focusd.errors import RequestError
from focusd.protocol.model import Finite, Name
from focusd.protocol.requests import (
    CalibrateOptions,
    Params,
    PixelFrame,
    PixelParams,
    RefocusOptions,
)

Kind = Literal["refocus", "calibrate"]
Limits = Annotated[tuple[Finite, Finite], Field(strict=False)]
Told = Annotated[dict[Name, Finite | Name | None], Field(max_length=16)]


class AskParams(RefocusOptions, CalibrateOptions):
    """Params of `focus.ask`; what is left out is as configured."""

    client: Name = ""
    """Who asks. Where too many runs go on, the client that has most of them loses the one that has waited longest."""
    kind: Kind = Field(default="refocus", kw_only=False)
    """`refocus` or `calibrate`; the options of the other one are refused."""
    z_um: Finite
    """Where your stage stands, µm; for a calibration in focus, by eye."""
    limits_um: Limits | None = None
    """Lowest and highest z to ask for, µm, besides the configured limits."""
    rig: Told = Field(default={})
    """What you know of your rig, such as `na`, `pixel_um`, `binning`, `camera`; the daemon refuses a rig that it is not
    configured for."""

    def options(self) -> dict[str, object]:
        """The options of the run, by name.

        Raises:
            RequestError: one of them is of the other kind.
        """
        own, other = RefocusOptions.model_fields, CalibrateOptions.model_fields
        if self.kind == "calibrate":
            own, other = other, own
        if wrong := [
            name for name in other if name in self.model_fields_set and getattr(self, name) is not None
        ]:
            raise RequestError(f"{wrong[0]} is no option of {self.kind!r}; it takes {', '.join(own)}")
        return {name: getattr(self, name) for name in own}


class ToldFrame(PixelFrame):
    """A frame that was exposed for a run."""

    z_um: Finite
    """Where your stage stood, read back, µm: it counts, wherever it was sent."""
    full_scale: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Largest value that a pixel can have, such as 4095; default: that of its type."""


class TellParams(PixelParams):
    """Params of `focus.tell`; the pixels follow as parts of the message of their own, one for each of `frames`."""

    run: Name = Field(kw_only=False)
    """As `focus.ask` answered it."""
    frames: Annotated[list[ToldFrame], Field(fail_fast=True, max_length=64)] = Field(default=[])
    """What was exposed, in this order; without frames the last answer is given again."""

    @property
    def described(self) -> Sequence[PixelFrame]:
        """What the pixels are."""
        return self.frames


class RunParams(Params):
    """Params of `focus.drop`."""

    run: Name = Field(kw_only=False)
    """As `focus.ask` answered it."""
