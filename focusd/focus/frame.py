"""One camera image with the z at which it was taken, and what is refused of it before anything is concluded."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from focusd.errors import HardwareError, RequestError, SaturatedError
from focusd.focus.grey import components, is_image

LEAST_PX = 16
"""Of either side of a frame: a smaller one holds no spectrum that would show a depth."""
REMEMBERED_FRAMES = 2
"""A camera that is frozen, or alternates between two buffers, shows one of them again."""
SAME_Z_UM = 0.01
MAX_LIGHT_RATIO = 3.0
"""Of the means of two frames of one operation."""

_numbers = count(1)


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        pixels: as the camera gave them, uint8 or uint16, never signed: (y, x), or (y, x, 3) of a colour camera. Of
            (y, x, 4) the fourth component, which carries no light, is dropped.
        z_um: where the stage stood, read back.
        exposure_ms: exposure time; NaN: not known.
        time_s: `time.perf_counter()` at the end of the exposure; NaN: not known.
        sequence: number of the exposure, ascending; each frame of a process has its own unless it is given.
        full_scale: the largest value that a pixel can have, e.g. 4095 for a 12-bit camera; None: that of the type.
        exposures: how often the sample was lit for it, dropped frames of a sequence included.
    """

    pixels: NDArray[np.unsignedinteger]
    z_um: float
    exposure_ms: float = float("nan")
    time_s: float = float("nan")
    sequence: int = field(default_factory=lambda: next(_numbers))
    full_scale: int | None = None
    exposures: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", components(self.pixels))

    @property
    def largest_value(self) -> int:
        """The largest value that a pixel can have."""
        return self.full_scale or int(np.iinfo(self.pixels.dtype).max)

    @property
    def saturated_fraction(self) -> float:
        """Fraction of the pixels at full scale, of a colour image in any component."""
        if self.pixels.max() < self.largest_value:  # as in most frames, and half the work
            return 0.0
        is_full = self.pixels >= self.largest_value
        return float(np.mean(is_full.any(axis=-1) if is_full.ndim == 3 else is_full))


class RecentFrames:
    """Digests of the last frames of one camera, over all operations: a frozen camera shows one of them again."""

    def __init__(self) -> None:
        self._shown: deque[tuple[int, float, int]] = deque(maxlen=REMEMBERED_FRAMES)  # number, z, digest

    def require_new(self, frame: Frame) -> None:
        """Remember a frame, or refuse one that was shown before at another z.

        No two exposures are the same bit for bit, because a camera has noise. At the same z a recorded stack has none.

        Raises:
            HardwareError: the camera is frozen.
        """
        shown = list(self._shown)  # another thread may look at the same frame
        if any(number == frame.sequence for number, _, _ in shown):
            return
        digest = _digest(frame)
        for _, z_um, before in shown:
            if before == digest and abs(z_um - frame.z_um) > SAME_Z_UM:
                raise HardwareError(
                    f"the camera has delivered the same image at {z_um:.2f} and at {frame.z_um:.2f} µm, bit for bit: "
                    "it is frozen; check its cable and driver, and start it anew",
                    suspect="the camera delivers the same image again and again",
                    z_um=frame.z_um,
                )
        self._shown.append((frame.sequence, frame.z_um, digest))


class FrameChecks:
    """Refuses frames of one operation from which no focus can be concluded.

    Args:
        max_saturated: fraction of pixels at full scale above which a frame is refused.
        recent: the camera's last frames, of earlier operations too.
    """

    def __init__(self, max_saturated: float, recent: RecentFrames) -> None:
        self._max_saturated = max_saturated
        self._recent = recent
        self._checked: int | None = None  # number of the last frame that was checked in full: once is enough
        self._light: float | None = None  # mean of the first frame
        self._kind: tuple[object, ...] | None = None  # shape and type of the first frame

    def check(self, frame: Frame, *, quick: bool = False) -> None:
        """Refuse a frame from which nothing can be concluded.

        Args:
            quick: without the search for saturated pixels, which takes milliseconds.

        Raises:
            SaturatedError: too many pixels are at full scale.
            HardwareError: the camera does not read out, is frozen, or light or format have changed.
        """
        if frame.sequence == self._checked:
            return
        _refuse_small(frame)
        self._refuse_other_kind(frame)
        _refuse_dead(frame)
        if frame.saturated_fraction <= self._max_saturated:  # where all is white, all images are alike
            self._recent.require_new(frame)
        self._refuse_other_light(frame)
        if not quick:
            self._refuse_saturated(frame)
            self._checked = frame.sequence

    def _refuse_saturated(self, frame: Frame) -> None:
        fraction = frame.saturated_fraction
        if fraction > self._max_saturated:
            raise SaturatedError(
                f"{fraction:.0%} of the pixels are at full scale ({self._max_saturated:.0%} is allowed); "
                "lower the exposure or the lamp",
                saturated_fraction=fraction,
                z_um=frame.z_um,
            )

    def _refuse_other_kind(self, frame: Frame) -> None:
        kind = (*frame.pixels.shape, frame.pixels.dtype)
        self._kind = self._kind or kind
        if kind != self._kind:
            raise HardwareError(
                f"the camera sends frames of {_in_words(kind)} now, and sent {_in_words(self._kind)} when this "
                "operation began: leave its binning, region and pixel type as they are until it ends",
                z_um=frame.z_um,
            )

    def _refuse_other_light(self, frame: Frame) -> None:
        """Defocus spreads light and loses none: a mean that jumps is a shutter or a lamp, not a depth."""
        mean = float(frame.pixels[::16, ::4].mean())  # all of a large frame would take milliseconds
        before = self._light = self._light or mean
        if not before / MAX_LIGHT_RATIO <= mean <= before * MAX_LIGHT_RATIO:
            self._refuse_saturated(frame)  # where that is so, it says more
            raise HardwareError(
                f"the light has changed from a mean of {before:.0f} to {mean:.0f} since this operation began: check "
                "lamp and shutter, and keep both as they are until it ends",
                z_um=frame.z_um,
            )


def require_frame(frame: Frame) -> None:
    """Refuse what is no camera image, before it counts as one.

    Raises:
        RequestError: it is neither grey nor of three colours, is signed or of floats, or its z is no number.
    """
    if not is_image(frame.pixels):
        raise RequestError(
            f"a frame has axes (y, x), or (y, x, 3) in colour, and pixels in it, not the shape {frame.pixels.shape}"
        )
    if frame.pixels.dtype not in (np.uint8, np.uint16):
        raise RequestError(
            f"the pixels of a camera frame are uint8 or uint16, not {frame.pixels.dtype}; "
            "send the frame as the camera gave it"
        )
    if not np.isfinite(frame.z_um):
        raise RequestError(f"the frame's z is {frame.z_um}, which is no position; give it in µm")


def _in_words(kind: tuple[object, ...]) -> str:
    y, x, *colours, dtype = kind
    return f"{y} × {x} pixels (y, x) of {dtype}{' in colour' if colours else ''}"


def _refuse_small(frame: Frame) -> None:
    y, x = frame.pixels.shape[:2]
    if min(y, x) < LEAST_PX:
        raise HardwareError(
            f"the camera sends frames of {y} × {x} pixels (y, x), and fewer than {LEAST_PX} along a side tell no "
            "focus: enlarge its region of interest, or bin less",
            z_um=frame.z_um,
        )


def _refuse_dead(frame: Frame) -> None:
    """Light or no light, a camera that reads out has noise. Dead frames among good ones would bend the answer."""
    value = frame.pixels.flat[0]
    alike = (frame.pixels[::64, ::64] == value).all() and (frame.pixels == value).all()
    if 0 <= value < frame.largest_value and alike:
        raise HardwareError(
            f"all pixels of the frame are {value}: the camera does not read out; check it and its connection",
            z_um=frame.z_um,
        )


def _digest(frame: Frame) -> int:
    """A number that another image hardly ever has, from a few rows, or from all if those show nothing."""
    rows = frame.pixels[::16]
    if (rows == rows.flat[0]).all():
        rows = frame.pixels
    return zlib.crc32(np.ascontiguousarray(rows).data)
