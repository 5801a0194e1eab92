"""The rig: a microscope for asynchronous callers, whose calls cannot block the daemon or hang it (devices.py)."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import structlog

from focusd.config import CameraConfig, StageConfig
from focusd.daemon.devices import Call, Devices, DeviceThread, one_step
from focusd.daemon.metrics import EXPOSURE_SECONDS, EXPOSURES
from focusd.errors import FocusdError, HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.guard import GuardedStage, RunUp
from focusd.microscope.protocol import Microscope

log = structlog.get_logger(__name__)
T = TypeVar("T")

CLOSE_S = 3.0
"""How long the hardware may take to close, besides an exposure that is under way."""
STREAMED_EXPOSURES = 4
"""That a sequence may take to its first frame that counts."""


class Chain:
    """Moves and exposures of which each begins, without the event loop, as soon as the one before has ended well."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._calls: list[Call[Any]] = []  # those that have not ended, and few of those that have

    def snap(self) -> Call[Frame]:
        """Expose one image where the stage stands then.

        Raises:
            HardwareError: a fault is latched; awaiting it: the camera failed.
        """
        return self._add(self._rig.camera, one_step(self._rig._expose))

    def move_to(self, z_um: float) -> Call[float]:
        """Move to an absolute z; awaiting it returns the z read back.

        Raises:
            HardwareError: a fault is latched; awaiting it: the stage failed, or was not where it was sent.
            TravelLimitError: awaiting it: the guard refuses; nothing was moved.
        """
        return self._add(self._rig.stage, self._rig._steps_to(z_um))

    def return_to_start(self) -> Call[float]:
        """Move back to where the operation began, whatever its travel.

        Raises:
            TravelLimitError: awaiting it: the stage stands outside its limits.
            HardwareError: as for `move_to`.
        """
        return self._add(self._rig.stage, self._rig._steps_to_start())

    def give_up(self) -> bool:
        """Begin nothing more of it, and take no further step. Returns whether the stage moves."""
        going_on = [call for call in self._calls if call.give_up()]
        return any(call.device is self._rig.stage for call in going_on)

    def _add(self, device: DeviceThread, steps: Iterator[T]) -> Call[T]:
        call = device.begin(steps, self._calls[-1] if self._calls else None)
        self._calls = [*(call for call in self._calls if not call.has_ended), call]
        return call


class Rig:
    """A camera and a guarded z stage.

    Attributes:
        camera_name: the camera's, as calibrations record it.
        last_z_um: the last z read back, which never waits for hardware; None before the first.
        unrecorded: why what happens to this rig cannot be written to disk; None: it can.
        deadline_s: of one step of a call to a device.
        streams: whether the camera does, from an operation's first exposure to its end.
        borrowed: whether the camera is another program's, which gets it back at an operation's end.
        progress_s: when the hardware last answered, by `time.perf_counter()`.
        exposures: that the sample was lit for so far; one under way counts.
        run_up: from which side each z is reached, as configured.
        camera, stage: their threads.
    """

    def __init__(
        self,
        microscope: Microscope,
        stage: StageConfig,
        camera: CameraConfig,
        fault: str | None = None,
        *,
        borrowed: bool = False,
    ) -> None:
        """Take over a microscope, which `aclose` will close.

        Args:
            fault: latched from the first, where the hardware must not be touched.
            borrowed: the camera is another program's, which gets it back at an operation's end.
        """
        # Devices of one Micro-Manager adapter share a lock, so that a stage call may wait for an exposure's end.
        self.streams = camera.acquisition == "sequence"
        self.borrowed = borrowed
        exposures = STREAMED_EXPOSURES if self.streams else 1
        self._exposing_s = exposures * camera.exposure_ms / 1000
        self.deadline_s = stage.timeout_s + self._exposing_s
        self.progress_s = time.perf_counter()
        self.camera_name = microscope.camera_name
        self.last_z_um: float | None = None
        self.unrecorded: str | None = None
        self.exposures = 0
        self.run_up = RunUp.of(stage)
        self._microscope = microscope
        self._guarded = GuardedStage(microscope, stage)
        self._devices = devices = Devices(self.deadline_s, fault)
        self.camera = DeviceThread("camera", devices)
        self.stage = DeviceThread("stage", devices)
        self._brake = DeviceThread("stage's stop command", devices)
        self._closed = False

    @property
    def fault(self) -> str | None:
        """What is wrong with the hardware, since when it has not been touched; None: nothing."""
        return self._devices.fault

    async def begin_operation(self, run_up: RunUp | None = None) -> float:
        """Start to count the travel anew; returns the z to which `return_to_start` will come back.

        Args:
            run_up: from which side each z is reached until the next operation; None: as configured.

        Raises:
            HardwareError: the stage failed, or a fault is latched.
        """
        return await self.stage.call(lambda: self._seen(self._guarded.begin_operation(run_up)))

    @asynccontextmanager
    async def chain(self) -> AsyncIterator[Chain]:
        """Moves and exposures that follow one another by themselves.

        However the block ends, what has not ended by then begins no more, and a move under way is stopped.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        chain = Chain(self)
        try:
            yield chain
        finally:
            if chain.give_up() and not self.fault:
                await self._brake_now()

    async def snap(self) -> Frame:
        """Expose one image where the stage stands.

        Raises:
            HardwareError: the camera failed, or a fault is latched.
        """
        async with self.chain() as chain:
            return await chain.snap()

    async def end_sequence(self) -> None:
        """Let a camera rest that streams, and give back one that is borrowed; after a fault it is not touched.

        Raises:
            HardwareError: the camera failed.
        """
        if (self.streams or self.borrowed) and not self.fault:
            await self.camera.call(self._microscope.end_sequence)

    async def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed, or a fault is latched.
        """
        return await self.stage.call(lambda: self._seen(self._guarded.position_um()))

    async def move_to(self, z_um: float) -> float:
        """Move to an absolute z; returns the z read back. Cancelling it stops the stage.

        Raises:
            TravelLimitError: the guard refuses; nothing was moved.
            HardwareError: the stage failed, was not where it was sent, or a fault is latched.
        """
        async with self.chain() as chain:
            return await chain.move_to(z_um)

    async def return_to_start(self) -> float:
        """Move back to where the operation began, whatever its travel; returns the z read back.

        Raises:
            TravelLimitError: the stage stands outside its limits.
            HardwareError: as for `move_to`.
        """
        async with self.chain() as chain:
            return await chain.return_to_start()

    async def aclose(self) -> None:
        """Close the microscope within a few seconds, after an exposure under way. May be called twice.

        A microscope at fault is not touched. If there is a `fault` afterwards, a thread may still hang in a native
        call: end the process with `os._exit`.
        """
        if self._closed:
            return
        self._closed = True
        exposed = self.camera.close()
        # Closing is the last that the hardware is asked for: no stop command may come after it.
        braked = self._brake.close(follows=exposed)
        closed = self.stage.close(self._microscope.close, follows=braked)
        close_s = CLOSE_S + self._exposing_s
        with anyio.move_on_after(close_s, shield=True) as scope:
            try:
                await closed
            except FocusdError as error:
                log.warning("the hardware could not be closed", reason=error.message)
        if scope.cancelled_caught:
            self._devices.latch(f"the hardware did not close within {close_s:g} s")

    def _steps_to(self, z_um: float) -> Iterator[float]:
        return self._followed(self._guarded.steps_to(z_um))

    def _steps_to_start(self) -> Iterator[float]:
        return self._followed(self._guarded.steps_to_start())

    def _followed(self, way: Iterator[float]) -> Iterator[float]:
        """The same steps, while the z after each is kept."""
        try:
            for z_um in way:
                yield self._seen(z_um)
        except HardwareError as error:
            if math.isfinite(read_um := error.data.get("read_um", math.nan)):
                self.last_z_um = read_um  # it stands where it reads, not where it was sent
            raise

    def _expose(self) -> Frame:
        self.exposures += 1  # from here on, however it ends
        frame = self._microscope.snap()
        self.exposures += frame.exposures - 1
        EXPOSURES.inc(frame.exposures)
        EXPOSURE_SECONDS.inc(frame.exposures * frame.exposure_ms / 1000)
        _require_position(frame.z_um)
        # Its z may be long past when a frame comes: the stage's own thread alone says where the stage stands.
        self.progress_s = time.perf_counter()
        return frame

    async def _brake_now(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._brake.call(self._microscope.stop)
            except HardwareError as error:
                log.warning("the stage could not be stopped and goes on to its target", reason=error.message)

    def _seen(self, z_um: float) -> float:
        """Keep a z that was read back, and when.

        Raises:
            HardwareError: it is no number.
        """
        _require_position(z_um)
        self.last_z_um, self.progress_s = z_um, time.perf_counter()
        return z_um


def _require_position(z_um: float) -> None:
    """Raises HardwareError for a z that is no number."""
    if not math.isfinite(z_um):
        raise HardwareError(
            f"the stage reads back {z_um}, which is no position: check its controller and its connection"
        )
