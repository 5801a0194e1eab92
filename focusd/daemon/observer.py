"""Move, expose, score: the steps of one exposure as the decisions see it."""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import numpy as np
import structlog
from anyio import to_thread
from numpy.typing import NDArray

from focusd.daemon.metrics import QUEUE, STAGE_SECONDS
from focusd.daemon.rig import Rig
from focusd.errors import (
    CancelledJobError,
    FocusdError,
    HardwareError,
    InternalError,
    SaturatedError,
    ScoringError,
)
from focusd.focus.observation import Mask, Observation, telling_tiles
from focusd.microscope.protocol import Frame
from focusd.optics.bands import BlockSpectra
from focusd.scoring.scorer import FocusMeasure, Scorer
from focusd.scoring.spectra import Region

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Stopwatch:
    """Where an operation's time goes, and its light.

    Args:
        rig: its devices count their time and their exposures.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._began_s = time.perf_counter()
        self._before = (rig.camera.busy_s, rig.stage.busy_s, rig.exposures)
        self._scoring_s = 0.0

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Count the block's time, however it ends."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._scoring_s += time.perf_counter() - began_s

    @property
    def exposures(self) -> int:
        """That the operation has lit the sample for so far; of a sequence more than it has scored."""
        return self._rig.exposures - self._before[2]

    @property
    def elapsed_s(self) -> float:
        """Since the operation began."""
        return time.perf_counter() - self._began_s

    def split(self) -> dict[str, float]:
        """Seconds by stage; `waiting` is what no stage accounts for."""
        camera_s, stage_s, _ = self._before
        seconds = {
            "exposing": self._rig.camera.busy_s - camera_s,
            "moving": self._rig.stage.busy_s - stage_s,
            "scoring": self._scoring_s,
        }
        return {**seconds, "waiting": max(0.0, self.elapsed_s - sum(seconds.values()))}


LEAST_PX = 16
"""Of either side of a frame: a smaller one holds no spectrum from which a depth could be told."""
REMEMBERED_FRAMES = 2
"""A camera that is frozen, or alternates between two buffers, shows one of them again."""
SAME_Z_UM = 0.01
MAX_LIGHT_RATIO = 3.0
"""Of the means of two frames of one operation."""


class Observer:
    """Exposes and scores on one rig.

    Args:
        max_saturated: fraction of pixels at full scale above which a frame is refused.
        threshold: probability of structure from which a tile of a client's frame counts.
    """

    def __init__(self, rig: Rig, scorer: Scorer, max_saturated: float, threshold: float) -> None:
        self.rig = rig
        self._scorer = scorer
        self._max_saturated = max_saturated
        self._first: FocusMeasure | None = None
        self._sent_um: float | None = None
        self.stopwatch = Stopwatch(rig)
        self._threshold = threshold
        self._turn = anyio.CapacityLimiter(1)  # clients' frames wait for one another, not the rig's for them
        self._checked: int | None = None
        """Number of the operation's last frame that was checked in full, which takes milliseconds: once is enough."""
        self._light: float | None = None
        """Mean of the operation's first frame."""
        self._kind: tuple[object, ...] | None = None
        """Shape and type of the operation's first frame."""
        self._shown: deque[tuple[int, float, int]] = deque(maxlen=REMEMBERED_FRAMES)
        """Number, z and digest of the last frames, of earlier operations too."""

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[float]:
        """One operation's travel. Yields the z at which it begins; goes back there if it fails or is cancelled.

        Raises:
            CancelledJobError: it was cancelled; as in every error here, `stage_z_um` is where the stage stands now.
            InternalError: anything that is no FocusdError.
        """
        self.stopwatch = Stopwatch(self.rig)
        self._first = self._light = self._checked = self._kind = None
        with anyio.CancelScope(shield=True):  # one that is cancelled says where the stage stands, too
            async with self._stating_z(self._stay):
                self._sent_um = start_um = await self.rig.begin_operation()
        async with self._stating_z(self._go_home), self._dark_afterwards():
            await anyio.lowlevel.checkpoint_if_cancelled()
            yield start_um

    @asynccontextmanager
    async def _stating_z(self, rest: Callable[[], Awaitable[float | None]]) -> AsyncIterator[None]:
        """However the block fails, the error is a typed one and says where the stage stands.

        Args:
            rest: brings the stage to where it is left then, and returns the z.
        """
        try:
            yield
        except FocusdError as error:
            error.data["stage_z_um"] = await rest()
            raise
        except anyio.get_cancelled_exc_class():
            z_um = await rest()
            raise CancelledJobError(
                f"cancelled; the stage stands at {_in_um(z_um)}", stage_z_um=z_um
            ) from None
        except Exception as error:
            log.exception("an operation failed on a fault of focusd")
            fault = InternalError.of(error)
            fault.data["stage_z_um"] = await rest()
            raise fault from error

    async def _stay(self) -> float | None:
        """Nothing has been moved yet."""
        return self.rig.last_z_um

    @asynccontextmanager
    async def _dark_afterwards(self) -> AsyncIterator[None]:
        """However the operation ends, the camera streams no longer."""
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.rig.end_sequence()

    async def _go_home(self) -> float | None:
        """Back to where the operation began, unless the hardware is at fault; returns the last z read back.

        Raises:
            FocusdError: it does not come home; `stage_z_um` is where it stands.
        """
        if not self.rig.fault:
            with anyio.CancelScope(shield=True):
                try:
                    await self.rig.return_to_start()
                except FocusdError as error:
                    error.data["stage_z_um"] = self.rig.last_z_um
                    raise
        return self.rig.last_z_um

    async def expose(self, z_um: float, near_um: float = 0.0) -> Frame:
        """One exposure at z.

        Args:
            near_um: how far off is as good, where the stage is that near already.

        Raises:
            FocusdError: what the rig raises.
        """
        async with self.rig.chain() as chain:
            if self._is_sent(z_um, near_um):
                return await chain.snap()
            self._sent_um = None
            chain.move_to(z_um)
            frame = await chain.snap()
        self._sent_um = z_um
        return frame

    async def sweep(self, planes_um: Sequence[float], taken: Callable[[Frame], Awaitable[None]]) -> None:
        """Expose planes one after the other. Each exposure begins as soon as its move has ended, each move as soon as
        the exposure before it has.

        Args:
            taken: is awaited with each frame, before the next is exposed.

        Raises:
            FocusdError: what the rig raises.
        """
        async with self.rig.chain() as chain:
            if not self._is_sent(planes_um[0]):
                chain.move_to(planes_um[0])
            self._sent_um = None
            for next_um in planes_um[1:]:
                exposed = chain.snap()
                chain.move_to(next_um)
                await taken(await exposed)
                await anyio.lowlevel.checkpoint_if_cancelled()
            await taken(await chain.snap())
        self._sent_um = planes_um[-1]

    async def check(self, frame: Frame) -> None:
        """Refuse a frame that nothing can be told from.

        Raises:
            SaturatedError: too many pixels are at full scale.
            HardwareError: the camera does not read out, or the light has changed.
        """
        with self.stopwatch.scoring():
            await to_thread.run_sync(self._check, frame)

    async def glimpse(
        self,
        frame: Frame,
        roi: Region | None,
        foresee: Callable[[BlockSpectra], T],
        *,
        thinned: bool = False,
        known: BlockSpectra | None = None,
    ) -> tuple[BlockSpectra, T]:
        """What a frame tells soonest, and what follows from that.

        Args:
            foresee: called in the same thread: each change of threads costs time, and nobody knows the next z before.
            thinned: from a quarter of the blocks, which is sooner still.
            known: what that gave, where it has been called before.

        Raises:
            HardwareError: as for `check`.
            SaturatedError: likewise, unless `thinned`: to look for it takes as long as these spectra.
            ScoringError: there are no spectra.
        """
        with self.stopwatch.scoring(), STAGE_SECONDS.labels("spectra").time():
            return await to_thread.run_sync(self._foresee, frame, roi, foresee, thinned, known)

    async def look(
        self,
        frame: Frame,
        roi: Region | None,
        spectra: BlockSpectra | None = None,
        only: Mask | None = None,
    ) -> Observation:
        """Score a frame; in one operation always the same tiles.

        Args:
            spectra: from `glimpse`, where it has been called.
            only: of these tiles, where not all are to be scored.

        Raises:
            SaturatedError, HardwareError: as for `check`.
            ScoringError: there are no scores.
        """
        with self.stopwatch.scoring(), STAGE_SECONDS.labels("score").time():
            return await to_thread.run_sync(self._look, frame, roi, spectra, only)

    def telling_tiles(self, first: Observation) -> Mask | None:
        """As `observation.telling_tiles`."""
        return telling_tiles(first, self._threshold)

    async def move_to(self, z_um: float, near_um: float = 0.0) -> float:
        """Move, unless the stage stands there or as near; returns the z read back."""
        if self._is_sent(z_um, near_um):
            assert self.rig.last_z_um is not None, "it was read back then"
            return self.rig.last_z_um
        self._sent_um = None
        reached_um = await self.rig.move_to(z_um)
        self._sent_um = z_um
        return reached_um

    def _is_sent(self, z_um: float, near_um: float = 0.0) -> bool:
        return self._sent_um is not None and abs(z_um - self._sent_um) <= near_um

    def _check(self, frame: Frame, quick: bool = False) -> None:
        if frame.sequence == self._checked:
            return
        _refuse_small(frame)
        self._refuse_other_kind(frame)
        _refuse_dead(frame)
        self._refuse_frozen(frame)
        self._refuse_other_light(frame)
        if not quick:
            self._refuse_saturated(frame)
            self._checked = frame.sequence

    def _glimpse(
        self, frame: Frame, roi: Region | None, thinned: bool = False, known: BlockSpectra | None = None
    ) -> BlockSpectra:
        self._check(frame, quick=thinned)
        spectra = self._scorer.spectra(frame.pixels, roi, thinned=thinned, known=known)
        _refuse_no_numbers(spectra.power, spectra.noise)
        return spectra

    def _foresee(
        self,
        frame: Frame,
        roi: Region | None,
        foresee: Callable[[BlockSpectra], T],
        thinned: bool,
        known: BlockSpectra | None,
    ) -> tuple[BlockSpectra, T]:
        spectra = self._glimpse(frame, roi, thinned, known)
        return spectra, foresee(spectra)

    def _look(
        self, frame: Frame, roi: Region | None, spectra: BlockSpectra | None, only: Mask | None
    ) -> Observation:
        spectra = spectra or self._glimpse(frame, roi)
        measure = self._scorer.score(frame.pixels, roi, self._first, spectra, only)
        self._first = self._first or measure
        return observation_of(frame.z_um, measure, only)

    async def score(self, pixels: NDArray[np.unsignedinteger], roi: Region | None) -> dict[str, Any]:
        """The scores of a frame from elsewhere, reduced to numbers of the field; b is None if it shows nothing.

        Raises:
            RequestError: no frame, or the region is not inside it.
        """
        with QUEUE.labels("frames").track_inprogress():
            measure = await to_thread.run_sync(self._scorer.score, pixels, roi, limiter=self._turn)
        frame = observation_of(0.0, measure)
        seen = measure.structure >= self._threshold
        saturated = np.mean(pixels == np.iinfo(pixels.dtype).max) > self._max_saturated
        outcome = "saturated" if saturated else "scored" if seen.any() else "no_sample"
        return {
            "outcome": outcome,
            "b": frame.mean_b(seen) if outcome == "scored" else None,
            "sigma": float(np.median(measure.sigma)),
            "structure": float(np.median(measure.structure)),
            "sharpness": await to_thread.run_sync(_sharpness, pixels, roi, limiter=self._turn),
        }

    def _refuse_frozen(self, frame: Frame) -> None:
        """No two exposures are the same bit for bit: a camera has noise. At the same z a recorded stack has none."""
        shown = list(self._shown)  # another thread may look at the same frame
        if any(number == frame.sequence for number, _, _ in shown):
            return
        if frame.saturated_fraction > self._max_saturated:
            return  # where all is white, all images are alike
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


def _in_words(kind: tuple[object, ...]) -> str:
    y, x, dtype = kind
    return f"{y} × {x} pixels (y, x) of {dtype}"


def _refuse_small(frame: Frame) -> None:
    if min(frame.pixels.shape) < LEAST_PX:
        y, x = frame.pixels.shape
        raise HardwareError(
            f"the camera sends frames of {y} × {x} pixels (y, x), and fewer than {LEAST_PX} along a side tell no "
            "focus: enlarge its region of interest, or bin less",
            z_um=frame.z_um,
        )


def _in_um(z_um: float | None) -> str:
    return "an unknown z" if z_um is None else f"{z_um:.2f} µm"


def _digest(frame: Frame) -> int:
    """A number that another image hardly ever has. A few rows do, unless they show nothing."""
    rows = frame.pixels[::16]
    if (rows == rows.flat[0]).all():
        rows = frame.pixels
    return zlib.crc32(np.ascontiguousarray(rows).data)


def _refuse_dead(frame: Frame) -> None:
    """Light or no light, a camera that reads out has noise. Dead frames among good ones would bend the answer."""
    value = frame.pixels.flat[0]
    alike = (frame.pixels[::64, ::64] == value).all() and (frame.pixels == value).all()
    if 0 <= value < frame.full_scale and alike:
        raise HardwareError(
            f"all pixels of the frame are {value}: the camera does not read out; check it and its connection",
            z_um=frame.z_um,
        )


def _sharpness(pixels: NDArray[np.unsignedinteger], roi: Region | None) -> float:
    """Energy of the gradient: comparable between frames of one field only, and there the finest measure near focus.

    Each gradient is multiplied by its neighbour's, which shares no pixel with it. So noise adds nothing to the mean: in
    Tenengrad it hides what little light shows (at 10 electrons all but a twentieth).
    """
    y, x, height, width = roi or (0, 0, *pixels.shape)
    image = pixels[y : y + height, x : x + width].astype(np.float32)
    along_x, along_y = image[:, 2:] - image[:, :-2], image[2:] - image[:-2]
    pairs = along_x[1:] * along_x[:-1], along_y[:, 1:] * along_y[:, :-1]
    mean = float(image.mean())
    if mean <= 0 or not all(pair.size for pair in pairs):
        return 0.0
    return sum(float(pair.mean(dtype=np.float64)) for pair in pairs) / mean**2


def observation_of(z_um: float, measure: FocusMeasure, only: Mask | None = None) -> Observation:
    """What the decisions see of a frame's scores and spectra.

    Args:
        only: the tiles that were to be scored; None: all.

    Raises:
        ScoringError: they are no numbers.
    """
    asked = ... if only is None else only
    _refuse_no_numbers(measure.b[asked], measure.sigma[asked], measure.spectra.power, measure.spectra.noise)
    return Observation(
        z_um,
        measure.b,
        measure.sigma,
        measure.structure,
        measure.y_px,
        measure.x_px,
        measure.spectra,
    )


def _refuse_no_numbers(*parts: NDArray[np.float64]) -> None:
    if not all(np.isfinite(part).all() for part in parts):
        raise ScoringError(
            "the scores of a frame are no numbers; restart focusd, and report it if they stay so"
        )


def summary(observation: Observation) -> dict[str, Any]:
    """An exposure in the numbers that a person reads: medians over the field."""
    return {
        "z_um": observation.z_um,
        "b": float(np.nanmedian(observation.b)),
        "sigma": float(np.nanmedian(observation.sigma)),
        "structure": float(np.nanmedian(observation.structure)),
    }
