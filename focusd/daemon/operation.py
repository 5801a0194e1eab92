"""One operation on a rig: it exposes and moves, and however it ends, it says where the stage stands."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.lowlevel
import structlog

from focusd.daemon.approach import Approach
from focusd.daemon.rig import Rig
from focusd.errors import CancelledJobError, FocusdError, InternalError
from focusd.focus.frame import Frame
from focusd.microscope.guard import RunUp
from focusd.protocol.results import SecondsByStage

log = structlog.get_logger(__name__)


class Stopwatch:
    """Counts where an operation's time goes, and its light.

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
        """How often the operation has lit the sample so far; of a sequence more often than it has scored."""
        return self._rig.exposures - self._before[2]

    @property
    def elapsed_s(self) -> float:
        """Time since the operation began."""
        return time.perf_counter() - self._began_s

    def split(self) -> SecondsByStage:
        """Return the seconds by stage; `waiting` is what no stage accounts for."""
        camera_s, stage_s, _ = self._before
        seconds = {
            "exposing": self._rig.camera.busy_s - camera_s,
            "moving": self._rig.stage.busy_s - stage_s,
            "scoring": self._scoring_s,
        }
        return SecondsByStage(**seconds, waiting=max(0.0, self.elapsed_s - sum(seconds.values())))


class Operation:
    """Exposures and moves of one operation.

    Args:
        run_up: from which side the guard has each z reached; None: as configured.

    Attributes:
        start_um: where the stage stood when it began; NaN before.
    """

    def __init__(self, rig: Rig, run_up: RunUp | None = None) -> None:
        self.rig = rig
        self._run_up = run_up or rig.run_up
        self.stopwatch = Stopwatch(rig)
        self.start_um = float("nan")
        self._sent_um: float | None = None
        self._has_moved = False
        self._approach = Approach(self.start_um)

    async def begin(self) -> None:
        """Ask where the stage stands, and count the travel from there.

        Raises:
            HardwareError: the stage failed, or a fault is latched.
        """
        self.start_um = await self.rig.begin_operation(self._run_up)
        # From which side it came there is not known.
        self._sent_um = None if self._is_one_sided else self.start_um
        self._approach = Approach(self.start_um)

    async def expose(self, z_um: float, near_um: float = 0.0) -> Frame:
        """Expose once at z.

        Args:
            near_um: if the stage stands within this distance already, it is not moved.

        Raises:
            FocusdError: what the rig raises.
        """
        async with self.rig.chain() as chain:
            if self._is_sent(z_um, near_um):
                self._approach.exposed()
                return await chain.snap()
            self.leave()
            chain.move_to(z_um)
            frame = await chain.snap()
        self._sent_um = z_um
        self._approach.sent(z_um)
        self._approach.exposed()
        return frame

    async def sweep(
        self,
        planes_um: Sequence[float],
        taken: Callable[[Frame], Awaitable[None]],
        before_um: float | None = None,
    ) -> None:
        """Expose planes one after the other.

        Each exposure begins as soon as its move has ended, and each move as soon as the exposure before it has.

        Args:
            taken: is awaited with each frame, before the next is exposed.
            before_um: where the stage goes before the first plane, unless the guard cares for the side; None: straight
                there.

        Raises:
            FocusdError: what the rig raises.
        """
        before_um = None if self._is_one_sided else before_um
        async with self.rig.chain() as chain:
            goes = before_um is not None or not self._is_sent(planes_um[0])
            self.leave()
            if before_um is not None:
                chain.move_to(before_um)
                self._approach.sent(before_um)
            if goes:
                chain.move_to(planes_um[0])
            for next_um in planes_um[1:]:
                exposed = chain.snap()
                chain.move_to(next_um)
                await taken(await exposed)
                await anyio.lowlevel.checkpoint_if_cancelled()
            await taken(await chain.snap())
        self._sent_um = planes_um[-1]
        for z_um in planes_um:
            self._approach.sent(z_um)
        self._approach.exposed()

    async def move_to(self, z_um: float, near_um: float = 0.0) -> float:
        """Move, unless the stage stands there or within `near_um`; returns the z read back."""
        if self._is_sent(z_um, near_um):
            assert self.rig.last_z_um is not None, "it was read back then"
            return self.rig.last_z_um
        self.leave()
        reached_um = await self.rig.move_to(z_um)
        self._sent_um = z_um
        self._approach.sent(z_um)
        return reached_um

    async def come_to(
        self, z_um: float, near_um: float, beyond_um: float, limits_um: tuple[float, float]
    ) -> float:
        """Move as `move_to`, and arrive from the side from which the last exposure was approached.

        Where the guard has each z reached from one side, that is done already.

        Args:
            beyond_um: how far the stage goes beyond z and comes back, where it would arrive from the other side.
            limits_um: it goes nowhere else; where there is no room, it goes straight to z.
        """
        is_there = self._is_sent(z_um, near_um)
        place_um = self._sent_um if is_there and self._sent_um is not None else z_um
        first_um = None if self._is_one_sided else self._approach.first_um(place_um, beyond_um)
        if first_um is not None and limits_um[0] <= first_um <= limits_um[1]:
            await self.move_to(first_um)
            near_um = 0.0
        return await self.move_to(z_um, near_um)

    def leave(self) -> None:
        """Note that the stage is on its way: from here on it may be anywhere until it has arrived."""
        self._sent_um, self._has_moved = None, True

    async def go_home(self) -> float | None:
        """Return to where the operation began, unless nothing has moved or the hardware is at fault.

        Returns:
            The last z that was read back.

        Raises:
            FocusdError: the stage does not come home; `stage_z_um` is where it stands.
        """
        if self._has_moved and not self.rig.fault:
            with anyio.CancelScope(shield=True):
                try:
                    await self.rig.return_to_start()
                except FocusdError as error:
                    error.data["stage_z_um"] = self.rig.last_z_um
                    raise
        return self.rig.last_z_um

    @property
    def _is_one_sided(self) -> bool:
        """Whether the guard has each z reached from one side."""
        return self._run_up.length_um > 0

    def _is_sent(self, z_um: float, near_um: float = 0.0) -> bool:
        return self._sent_um is not None and abs(z_um - self._sent_um) <= near_um


@asynccontextmanager
async def operation_on(rig: Rig, run_up: RunUp | None = None) -> AsyncIterator[Operation]:
    """Yield one operation; its stage goes back to where it began if it fails or is cancelled.

    Args:
        run_up: from which side each z is reached; None: as configured.

    Raises:
        CancelledJobError: it was cancelled; as in every error here, `stage_z_um` is where the stage stands now.
        InternalError: anything that is no FocusdError.
    """
    operation = Operation(rig, run_up)
    with anyio.CancelScope(shield=True):  # one that is cancelled says where the stage stands, too
        async with _stating_z(operation.go_home):
            await operation.begin()
    async with _stating_z(operation.go_home), _dark_afterwards(rig):
        await anyio.lowlevel.checkpoint_if_cancelled()
        yield operation


@asynccontextmanager
async def _stating_z(rest: Callable[[], Awaitable[float | None]]) -> AsyncIterator[None]:
    """Make each failure of the block a typed error that says where the stage stands.

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
        raise CancelledJobError(f"cancelled; the stage stands at {_in_um(z_um)}", stage_z_um=z_um) from None
    except Exception as error:
        log.exception("an operation failed on a fault of focusd")
        fault = InternalError.of(error)
        fault.data["stage_z_um"] = await rest()
        raise fault from error


@asynccontextmanager
async def _dark_afterwards(rig: Rig) -> AsyncIterator[None]:
    """However the block ends, the camera streams no longer."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await rig.end_sequence()


def _in_um(z_um: float | None) -> str:
    return "an unknown z" if z_um is None else f"{z_um:.2f} µm"
