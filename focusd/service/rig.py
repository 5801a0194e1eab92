"""The rig: a microscope for asynchronous callers, whose calls cannot block the daemon or hang it.

A native call cannot be interrupted. So each device has a thread of its own; a call past its deadline latches a
fault (DESIGN §7), and a call whose caller is gone is let run to its end before the next one starts.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import structlog

from focusd.config import CameraConfig, StageConfig
from focusd.errors import FocusdError, HardwareError
from focusd.microscope.guard import GuardedStage, Step
from focusd.microscope.protocol import Frame, Microscope
from focusd.service.metrics import EXPOSURE_SECONDS, EXPOSURES, STAGE_SECONDS

log = structlog.get_logger(__name__)
T = TypeVar("T")

CLOSE_S = 3.0
"""How long the hardware may take to close."""
STREAMED_EXPOSURES = 4
"""That a sequence may take to its first frame that counts."""


class FaultLatch:
    """The first fault, kept: after it the hardware is not touched again."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    def set(self, text: str) -> HardwareError:
        """Latch a fault, unless there is one already; returns the error to raise."""
        if self.text is None:
            self.text = text
            log.error("the hardware is at fault", fault=text)
        return self.error()

    def check(self) -> None:
        """Raises HardwareError after a fault."""
        if self.text is not None:
            raise self.error()

    def error(self) -> HardwareError:
        """What every caller is told."""
        return HardwareError(
            f"{self.text}; focusd will not touch the hardware again: an operator has to check it, then run "
            "`focusctl reconnect`"
        )


class Cue:
    """Given by one device's thread when its part has ended, it lets the other's begin, without the event loop.

    Attributes:
        given_s: when, by `time.perf_counter()`; infinite before.
    """

    def __init__(self) -> None:
        self.given_s = math.inf
        self._given: Future[None] = Future()

    @classmethod
    def now(cls) -> Cue:
        """One that has been given."""
        cue = cls()
        cue.give()
        return cue

    def give(self) -> None:
        """Let the other begin at once, unless its caller is gone."""
        if self._given.set_running_or_notify_cancel():
            self.given_s = time.perf_counter()
            self._given.set_result(None)

    def revoke(self) -> None:
        """What has not begun never will."""
        self._given.cancel()

    def wait(self) -> None:
        """Block until it is given.

        Raises:
            concurrent.futures.CancelledError: it was revoked.
        """
        self._given.result()

    @property
    def is_given(self) -> bool:
        """Whether what waits for it has begun."""
        return self.given_s < math.inf

    @property
    def age_s(self) -> float:
        """Since it was given; 0 before."""
        return max(0.0, time.perf_counter() - self.given_s)


class DeviceThread:
    """One device's own thread: one call at a time, each within a deadline.

    The thread is a daemon thread: a call that never returns does not keep the process alive.
    """

    def __init__(self, name: str, deadline_s: float, latch: FaultLatch) -> None:
        self._name = name
        self._deadline_s = deadline_s
        self._latch = latch
        self._turn = anyio.Lock(fast_acquire=True)
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any], Cue] | None] = SimpleQueue()
        self._last: Future[Any] | None = None
        self._closed = False
        threading.Thread(target=self._work, name=f"focusd-{name}", daemon=True).start()

    async def call(self, function: Callable[[], T], after: Cue | None = None) -> T:
        """Run a blocking function in the thread and return its result.

        Cancelling this leaves a function that has begun running; its result is dropped, and the next call waits for its
        end.

        Args:
            after: the function begins when it is given, and has its deadline from then on; None: at once.

        Raises:
            HardwareError: a fault is latched, the deadline passed, which latches one, or `close` was called.
        """
        after = after or Cue.now()
        async with self._turn:
            self._latch.check()
            if self._closed:
                raise HardwareError(f"the {self._name} is closed, because focusd is stopping")
            if self._last is not None:  # one whose caller is gone has its own time; this one's starts after
                await self._end_of(self._last, Cue.now())
            self._last = future = self._submit(function, after)
            try:
                await self._end_of(future, after)
                return future.result()
            finally:
                after.revoke()

    def close(self) -> None:
        """End the thread after the call under way; refuse others."""
        self._closed = True
        self._queue.put(None)

    def _submit(self, function: Callable[[], T], after: Cue) -> Future[T]:
        future: Future[T] = Future()
        # What the device logs belongs to the job that called it.
        self._queue.put((future, partial(contextvars.copy_context().run, function), after))
        return future

    async def _end_of(self, future: Future[Any], begun: Cue) -> None:
        """Return when a call has ended, however it did."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended before the device did
                loop.call_soon_threadsafe(ended.set)

        future.add_done_callback(tell)
        while not future.done():
            if begun.age_s >= self._deadline_s:
                raise self._latch.set(f"the {self._name} did not answer within {self._deadline_s:g} s")
            with anyio.move_on_after(self._deadline_s - begun.age_s):
                await ended.wait()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, function, after = item
            try:
                after.wait()
                self._latch.check()  # a device that answers too late gives its cue after all
                with STAGE_SECONDS.labels(self._name).time():
                    future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Rig:
    """A camera and a guarded z stage.

    Attributes:
        camera_name: the camera's, as calibrations record it.
        last_z_um: the last z read back, which never waits for hardware; None before the first.
        unrecorded: why what happens to this rig cannot be written to disk; None: it can.
        deadline_s: of a call to a device.
        streams: whether the camera does, from an operation's first exposure to its end.
        progress_s: when the hardware last answered, by `time.perf_counter()`.
    """

    def __init__(
        self, microscope: Microscope, stage: StageConfig, camera: CameraConfig, fault: str | None = None
    ) -> None:
        """Take over a microscope, which `aclose` will close.

        Args:
            fault: latched from the first, where the hardware must not be touched.
        """
        # Devices of one Micro-Manager adapter share a lock, so that a stage call may wait for an exposure's end.
        self.streams = camera.acquisition == "sequence"
        exposures = STREAMED_EXPOSURES if self.streams else 1
        self.deadline_s = deadline_s = stage.timeout_s + exposures * camera.exposure_ms / 1000
        self.progress_s = time.perf_counter()
        self.camera_name = microscope.camera_name
        self.last_z_um: float | None = None
        self.unrecorded: str | None = None
        self._microscope = microscope
        self._guarded = GuardedStage(microscope, stage)
        self._latch = FaultLatch(fault)
        self._camera = DeviceThread("camera", deadline_s, self._latch)
        self._stage = DeviceThread("stage", deadline_s, self._latch)
        self._brake = DeviceThread("stage's stop command", deadline_s, self._latch)
        self._closed = False

    @property
    def fault(self) -> str | None:
        """What is wrong with the hardware, since when it has not been touched; None: nothing."""
        return self._latch.text

    async def begin_operation(self) -> float:
        """Start to count the travel anew; returns the z to which `return_to_start` will come back.

        Raises:
            HardwareError: the stage failed, or a fault is latched.
        """
        return self._seen(await self._stage.call(self._guarded.begin_operation))

    async def snap(self, after: Cue | None = None, ended: Cue | None = None) -> Frame:
        """Expose one image where the stage stands.

        Args:
            after: when to begin; None: at once.
            ended: is given when it has been exposed and read out.

        Raises:
            HardwareError: the camera failed, or a fault is latched.
        """

        def expose() -> Frame:
            frame = self._microscope.snap()
            if ended:
                ended.give()
            return frame

        return self._exposed(await self._camera.call(expose, after))

    def _exposed(self, frame: Frame) -> Frame:
        self._seen(frame.z_um)
        EXPOSURES.inc(frame.exposures)
        EXPOSURE_SECONDS.inc(frame.exposures * frame.exposure_ms / 1000)
        return frame

    async def end_sequence(self) -> None:
        """Let a camera rest that streams; after a fault it is not touched.

        Raises:
            HardwareError: the camera failed.
        """
        if self.streams and not self.fault:
            await self._camera.call(self._microscope.end_sequence)

    async def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed, or a fault is latched.
        """
        return self._seen(await self._stage.call(self._guarded.position_um))

    async def move_to(self, z_um: float, after: Cue | None = None, arrived: Cue | None = None) -> float:
        """Move to an absolute z; returns the z read back. Cancelling it stops the stage.

        Args:
            after: when to begin; None: at once.
            arrived: is given when the stage has arrived and its z has been read back.

        Raises:
            TravelLimitError: the guard refuses; nothing was moved.
            HardwareError: the stage failed, was not where it was sent, or a fault is latched.
        """
        return await self._follow(self._guarded.steps_to(z_um), after, arrived)

    async def return_to_start(self) -> float:
        """Move back to where the operation began, whatever its travel; returns the z read back.

        Raises:
            TravelLimitError: the stage stands outside its limits.
            HardwareError: as for `move_to`.
        """
        return await self._follow(self._guarded.steps_to_start())

    async def aclose(self) -> None:
        """Close the microscope within a few seconds. May be called twice.

        A microscope at fault is not touched. If there is a `fault` afterwards, a thread may still hang in a native
        call: end the process with `os._exit`.
        """
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_S, shield=True) as scope:
            await self._release()
        if scope.cancelled_caught:
            self._latch.set(f"the hardware did not close within {CLOSE_S:g} s")
        for thread in (self._camera, self._stage, self._brake):
            thread.close()

    async def _release(self) -> None:
        try:
            await self._camera.call(lambda: None)  # an exposure under way ends first
            await self._stage.call(self._microscope.close)
        except FocusdError as error:
            log.warning("the hardware could not be closed", reason=error.message)

    async def _follow(
        self, steps: Iterator[Step], after: Cue | None = None, arrived: Cue | None = None
    ) -> float:
        """Take the steps of a move one by one, so that a cancelled one takes no further step."""

        def take() -> Step:
            step = next(steps)
            if arrived and step.is_last:
                arrived.give()
            return step

        try:
            step = await self._stage.call(take, after)
            while not step.is_last:
                self._seen(step.z_um)
                step = await self._stage.call(take)
            return self._seen(step.z_um)
        except asyncio.CancelledError:
            if arrived:
                arrived.revoke()  # before anything is awaited: the stage may yet arrive
            await self._brake_now()
            raise
        except HardwareError as error:
            if math.isfinite(read_um := error.data.get("read_um", math.nan)):
                self.last_z_um = read_um  # it stands where it reads, not where it was sent
            raise

    async def _brake_now(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._brake.call(self._microscope.stop)
            except HardwareError as error:
                log.warning("the stage could not be stopped and goes on to its target", reason=error.message)

    def _seen(self, z_um: float) -> float:
        self.last_z_um, self.progress_s = z_um, time.perf_counter()
        return z_um
