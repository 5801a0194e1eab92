"""The params of each method: strict models, types as stated, no unknown keys.

A field with `kw_only=False` may be given by position to the clients' methods and to the commands of `focusctl`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from focusd.errors import RequestError
from focusd.protocol.model import Finite, Length, Model, Name, printable

PROTOCOL = "focusd/1"


class Message(Model):
    """Anything that comes in: types as stated, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid")


Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
Extent = Annotated[int, Field(ge=1, le=1_000_000)]
# JSON has no tuples: the array is accepted as one, its items stay strict.
Roi = Annotated[tuple[Pixel, Pixel, Extent, Extent], Field(strict=False)]
# Up to a metre, so that its square is a number too.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Place = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]
Side = Annotated[int, Field(ge=1, le=16_384)]
COLOURS = (3, 4)
"""Components of a colour image, with or without one that carries no light."""


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 3 and shape[2] not in COLOURS:
        raise ValueError(f"a colour image has 3 or 4 components, not {shape[2]}: its shape is (y, x, 3)")
    return shape


ImageShape = Annotated[
    tuple[Side, ...], Field(strict=False, min_length=2, max_length=3), AfterValidator(_image)
]
File = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(printable)]
"""Path of a file on the computer that focusd runs on."""
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
    """What the client speaks; another one is an error."""


class LongParams(Params):
    """What all long jobs take."""

    client: Name = ""
    """Who asks; shown to others while the job runs."""
    wait: bool = False
    """Answer at the end of the job instead of at once."""
    request_key: Annotated[Name, Field(min_length=8)] | None = None
    """A UUID: asking again with the same key gives the same job."""
    lease_id: Name | None = None
    """The lease that the client holds; needed while it holds one."""

    ENVELOPE: ClassVar[frozenset[str]] = frozenset({"client", "wait", "request_key", "lease_id"})

    def options(self) -> dict[str, object]:
        """The params of the operation itself, by name."""
        return {name: value for name, value in self if name not in self.ENVELOPE}

    def operation(self) -> Self:
        """The params of the operation itself: those of two requests are equal if they ask for the same."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in self.ENVELOPE})


class CalibrateOptions(Params):
    """How to calibrate; what is left out is as configured."""

    range_um: Length | None = None
    """Half the stack's extent, µm; default: what the objective asks for."""
    step_um: Length | None = None
    """Distance of the planes, µm; default: what the objective asks for."""
    planes_um: Annotated[list[Finite], Field(fail_fast=True, min_length=7, max_length=1000)] | None = None
    """The planes themselves, µm, ascending, instead of range and step: for a recorded, irregular stack."""
    flat: File | None = None
    """TIFF of an empty, evenly lit field, on focusd's computer; default: what stays sharp everywhere is learnt."""
    dark: File | None = None
    """TIFF that the camera takes without light, on focusd's computer."""


class CalibrateParams(CalibrateOptions, LongParams):
    """Params of `focus.calibrate`; what is left out is as configured."""


class RefocusOptions(Params):
    """How to refocus; what is left out is as configured."""

    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    strategy: Name | None = None
    """How to search: `posterior` or `published`."""
    max_exposures: Annotated[int, Field(ge=2, le=100)] | None = None
    """Exposures allowed."""
    max_seconds: Length | None = None
    """No exposure is begun later than this, in seconds."""
    max_dose_ms: Length | None = None
    """Exposure time allowed in all, ms."""
    target_um: Length | None = None
    """Standard uncertainty at which the posterior search ends, µm."""
    prior: Annotated[tuple[Finite, Length], Field(strict=False)] | None = None
    """z and σ of the focus as far as it is known, µm: a warm start."""
    surface: Literal["mean", "median", "nearest", "sharpest"] | None = None
    """What of a field that is not flat is brought into focus; nearest: to the objective; sharpest: the plane at which
    most of the field is sharp."""
    far: bool = False
    """Look for the focus over all of the limits, also beyond the calibrated range, in up to 12 exposures more."""


class RefocusParams(RefocusOptions, LongParams):
    """Params of `focus.run`; what is left out is as configured."""


class MoveParams(LongParams):
    """Params of `stage.move`."""

    z_um: Finite = Field(kw_only=False)
    """Absolute z, µm."""


class BacklashParams(LongParams):
    """Params of `stage.backlash`."""

    repeats: Annotated[int, Field(ge=2, le=20)] = 3
    """Rounds of four searches, two from each side; every other one goes twice as far beyond."""
    up_to_um: Annotated[float, Field(gt=0, le=1000)] = 5.0
    """Largest backlash expected, µm. The stage goes so far and twice so far beyond planes, also towards the sample."""


class MapAddParams(Params):
    """Params of `map.add`."""

    x_um: Coordinate = Field(kw_only=False)
    """Where the xy stage stands, µm."""
    y_um: Coordinate = Field(kw_only=False)
    """Where the xy stage stands, µm."""
    z_um: Coordinate | None = None
    """The focus, µm; default, and σ with it: that of the last refocus."""
    sigma_um: Annotated[float, Field(ge=1e-3, le=1e4)] | None = None
    """Its standard uncertainty, µm."""
    channel: Name | None = None
    """In which it was focused, its offset is taken off; default: the reference."""


class MapPredictParams(Params):
    """Params of `map.predict`."""

    positions: Annotated[list[Place], Field(fail_fast=True, min_length=1, max_length=1000)] = Field(
        kw_only=False
    )
    """(x, y) of each, µm."""
    channel: Name | None = None
    """Whose offset is added; default: the reference."""
    tolerance: Annotated[float, Field(gt=0, le=100)] = 0.5
    """How far off an image may be, in depths of field; the map is trusted where 2σ are less."""


class MapOffsetParams(Params):
    """Params of `map.offset`."""

    channel: Annotated[Name, Field(min_length=1)] = Field(kw_only=False)
    """The channel, as the client calls it."""
    offset_um: Annotated[float, Field(ge=-1e4, le=1e4)] | None = Field(default=None, kw_only=False)
    """How far the channel's focus lies above that of the reference, µm; left out, the offset is forgotten."""


class HoldParams(Params):
    """Params of `focus.hold`."""

    client: Name = ""
    """Who asks; shown to others while the focus is held."""
    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    position: Name | None = None
    """The place on the sample, as the client calls it; each drift event has it."""
    tags: Tags = Field(default={})
    """Names with numbers or texts, such as a temperature; each drift event has them."""


class PixelFrame(Message):
    """What a frame of raw pixels, which follows the JSON frame, holds: row by row, little-endian."""

    dtype: Literal["uint8", "uint16"]
    shape: ImageShape
    """(y, x), or (y, x, 3) in colour; a fourth component is not looked at."""
    z_um: Finite | None = None
    """Where the stage stood; None: where it stands now."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * (1 if self.dtype == "uint8" else 2)


class PixelParams(Params):
    """Params with pixels, which follow as parts of the message of their own, one for each of `frames`."""

    def check_pixels(self, pixels: Sequence[bytes | memoryview]) -> None:
        """Raises RequestError if the pixels are not what the params say."""
        described = self.described
        if len(pixels) != len(described):
            raise RequestError(f"{len(described)} frames are described, {len(pixels)} came")
        for number, (frame, content) in enumerate(zip(described, pixels, strict=True)):
            if len(content) != frame.size:
                size = "×".join(map(str, frame.shape))
                raise RequestError(
                    f"frame {number}: {len(content)} bytes are not {size} pixels of {frame.dtype}"
                )

    @property
    def described(self) -> Sequence[PixelFrame]:
        """What the pixels are."""
        raise NotImplementedError


class ScoreParams(PixelParams):
    """Params of `focus.score`; the pixels follow as frames of their own, one for each of `frames`."""

    frames: Annotated[list[PixelFrame], Field(fail_fast=True, min_length=1, max_length=64)]
    """What the pixels are, which follow in as many parts of the message."""
    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    track: bool = False
    """They show the held field, in the channel and exposure that it is held with: the hold may learn from them."""
    tags: Tags = Field(default={})
    """Go with the drift event of these frames."""

    @property
    def described(self) -> Sequence[PixelFrame]:
        """What the pixels are."""
        return self.frames


class CalibrationParams(Params):
    """Params of `calibrations.show`, `calibrations.use` and `calibrations.remove`."""

    id: Annotated[Name, Field(min_length=1)] = Field(kw_only=False)
    """As `calibrations.list` says it."""


class LeaseParams(Params):
    """Params of `lease.acquire`."""

    client: Name = ""
    """Who asks; shown to others while the lease holds."""
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = Field(default=60.0, kw_only=False)
    """The lease ends by itself after so long, whatever has become of its holder."""
    lease_id: Name | None = Field(default=None, kw_only=False)
    """The lease to prolong: it runs so long from now."""


class LeaseIdParams(Params):
    """Params of `lease.release`."""

    lease_id: Name = Field(kw_only=False)
    """As `lease.acquire` answered it."""


class JobParams(Params):
    """Params of `job.status` and `job.cancel`."""

    job_id: Name = Field(kw_only=False)
    """As the answer to the long request told it."""


class SinceParams(Params):
    """Params of `events.since`."""

    seq: Annotated[int, Field(ge=0, le=2**62)] = Field(kw_only=False)
    """Number of the last event that the client has."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(default=1000, kw_only=False)
    """Events in the answer, at most."""
    session: Name | None = Field(default=None, kw_only=False)
    """That of `seq`; default: the present one. After an earlier one's events come those of later ones."""
