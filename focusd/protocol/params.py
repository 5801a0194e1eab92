"""The params of each method: strict models, types as stated, no unknown keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from focusd.errors import RequestError

PROTOCOL = "focusd/1"


class Message(BaseModel):
    """Anything that comes in: types as stated, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _printable(text: str) -> str:
    """What clients say is shown on terminals and in logs, and told to service managers."""
    if not text.isprintable():
        raise ValueError("holds a control character; take letters, digits, signs and blanks")
    return text


Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=64), AfterValidator(_printable)]
"""Anything that a client calls something."""
Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
Extent = Annotated[int, Field(ge=1, le=1_000_000)]
# JSON has no tuples: the array is accepted as one, its items stay strict.
Roi = Annotated[tuple[Pixel, Pixel, Extent, Extent], Field(strict=False)]
# Up to a metre, so that its square is a number too.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Place = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]
Side = Annotated[int, Field(ge=1, le=16_384)]
MAX_TAGS = 16


def _few(tags: object) -> object:
    """Counted before they are looked at: each wrong one costs time to be told."""
    if isinstance(tags, dict) and len(tags) > MAX_TAGS:
        raise ValueError(f"holds {len(tags)} tags; {MAX_TAGS} are allowed")
    return tags


Tags = Annotated[dict[Name, Finite | Name], Field(max_length=MAX_TAGS), BeforeValidator(_few)]
"""What a client wants to see beside the drift: a temperature, a channel."""


class Params(Message):
    """Params of a method without any."""


class HelloParams(Params):
    """Params of `system.hello`."""

    protocol: Name = PROTOCOL


class LongParams(Params):
    """What all long jobs take."""

    client: Name = ""
    """Who asks; shown to others while the job runs."""
    wait: bool = False
    """Answer at the end of the job instead of at once."""
    request_key: Annotated[Name, Field(min_length=8)] | None = None
    """A UUID: asking again with the same key gives the same job."""
    lease_id: Name | None = None
    """Of the lease under which the job runs, if the client holds one."""

    ENVELOPE: ClassVar[frozenset[str]] = frozenset({"client", "wait", "request_key", "lease_id"})

    def operation(self) -> dict[str, Any]:
        """The params of the operation itself."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in self.ENVELOPE}


class CalibrateParams(LongParams):
    """Params of `focus.calibrate`; None: as configured."""

    range_um: Length | None = None
    """Half the stack's extent."""
    step_um: Length | None = None
    planes_um: Annotated[list[Finite], Field(fail_fast=True, min_length=7, max_length=1000)] | None = None
    """The planes themselves, ascending, instead of range and step: for a recorded, irregular stack."""


class RefocusParams(LongParams):
    """Params of `focus.run`; None: as configured."""

    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    strategy: Name | None = None
    """`posterior` or `published`."""
    max_exposures: Annotated[int, Field(ge=2, le=100)] | None = None
    max_seconds: Length | None = None
    """No exposure is begun later than this."""
    max_dose_ms: Length | None = None
    """Exposure time in all."""
    target_um: Length | None = None
    """Standard uncertainty at which the posterior search ends."""
    prior: Annotated[tuple[Finite, Length], Field(strict=False)] | None = None
    """z and σ of the focus as far as it is known, µm: a warm start."""
    surface: Literal["mean", "median", "nearest"] | None = None
    """What of a field that is not flat is brought into focus."""


class MoveParams(LongParams):
    """Params of `stage.move`."""

    z_um: Finite


class MapAddParams(Params):
    """Params of `map.add`."""

    x_um: Coordinate
    y_um: Coordinate
    z_um: Coordinate | None = None
    """None, and σ with it: of the last refocus."""
    sigma_um: Annotated[float, Field(ge=1e-3, le=1e4)] | None = None
    channel: Name | None = None
    """In which it was focused; None: the reference."""


class MapPredictParams(Params):
    """Params of `map.predict`."""

    positions: Annotated[list[Place], Field(fail_fast=True, min_length=1, max_length=1000)]
    """(x, y) in µm."""
    channel: Name | None = None
    tolerance: Annotated[float, Field(gt=0, le=100)] = 0.5
    """How far off an image may be, in depths of field."""


class MapOffsetParams(Params):
    """Params of `map.offset`."""

    channel: Annotated[Name, Field(min_length=1)]
    offset_um: Annotated[float, Field(ge=-1e4, le=1e4)] | None = None
    """What the channel's focus lies above the reference; left out, it is forgotten."""


class HoldParams(Params):
    """Params of `focus.hold`; None: as configured."""

    client: Name = ""
    """Who asks; shown to others while the focus is held."""
    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    position: Name | None = None
    """The place on the sample, as the client calls it; each drift event has it."""
    tags: Tags = {}
    """Each drift event has them."""


class PixelFrame(Message):
    """What a frame of raw pixels, which follows the JSON frame, holds: row by row, little-endian."""

    dtype: Literal["uint8", "uint16"]
    shape: Annotated[tuple[Side, Side], Field(strict=False)]
    """(y, x)."""
    z_um: Finite | None = None
    """Where the stage stood; None: where it stands now."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.shape[0] * self.shape[1] * (1 if self.dtype == "uint8" else 2)


class ScoreParams(Params):
    """Params of `focus.score`; the pixels follow as frames of their own, one for each of `frames`."""

    frames: Annotated[list[PixelFrame], Field(fail_fast=True, min_length=1, max_length=64)]
    roi: Roi | None = None
    track: bool = False
    """They show the held field, in the channel and exposure that it is held with: the hold may learn from them."""
    tags: Tags = {}
    """Go with the drift event of these frames."""

    def check_pixels(self, pixels: Sequence[bytes | memoryview]) -> None:
        """Raises RequestError if the pixels are not what the params say."""
        if len(pixels) != len(self.frames):
            raise RequestError(f"{len(self.frames)} frames are described, {len(pixels)} came")
        for number, (frame, content) in enumerate(zip(self.frames, pixels, strict=True)):
            if len(content) != frame.size:
                height, width = frame.shape
                raise RequestError(
                    f"frame {number}: {len(content)} bytes are not {height}×{width} pixels of {frame.dtype}"
                )


class CalibrationParams(Params):
    """Params of `calibrations.show`, `calibrations.use` and `calibrations.remove`."""

    id: Annotated[Name, Field(min_length=1)]
    """As `calibrations.list` says it."""


class LeaseParams(Params):
    """Params of `lease.acquire`."""

    client: Name = ""
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 60.0
    """It ends by itself after so long, whatever has become of its holder."""
    lease_id: Name | None = None
    """The lease to prolong."""


class LeaseIdParams(Params):
    """Params of `lease.release`."""

    lease_id: Name


class JobParams(Params):
    """Params of `job.status` and `job.cancel`."""

    job_id: Name


class SinceParams(Params):
    """Params of `events.since`."""

    seq: Annotated[int, Field(ge=0, le=2**62)]
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    session: Name | None = None
    """That of `seq`; None: the present one. After an earlier one's events come those of later ones."""
