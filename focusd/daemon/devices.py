"""The threads of a rig's devices, and the calls that they carry out.

A native call cannot be interrupted. So each device has a thread of its own, which carries out one call after the
other in the order in which they were asked for. A call waits for older calls only: those of its own device, and the
one that it follows. No calls can therefore wait for one another in a circle, and whoever waits for a call waits for a
step that some device is at. A step that takes longer than the deadline latches a fault, after which no device takes
another step (docs/explanation/safety.md).
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
import structlog

from focusd.daemon.metrics import STAGE_SECONDS
from focusd.errors import CancelledJobError, HardwareError

log = structlog.get_logger(__name__)
T = TypeVar("T")

LOOKS = 20
"""A step hangs that so many looks have found again, evenly spread over the deadline. Time in which this process did
not run, or was too busy to look, counts as one look: a machine that was suspended is no fault of its devices."""
_END: Any = object()


class Devices:
    """What the devices of one rig share: the deadline of a step, the first fault, and the lock over all calls.

    Attributes:
        deadline_s: how long one step may take.
        fault: what is wrong with the hardware; None: nothing.
        changed: held for a moment while any call changes its state, and notified then.
        threads: all of them.
    """

    def __init__(self, deadline_s: float, fault: str | None = None) -> None:
        """Begin without devices.

        Args:
            fault: latched from the first, where the hardware must not be touched.
        """
        self.deadline_s = deadline_s
        self.fault = fault
        self.changed = threading.Condition()
        self.threads: list[DeviceThread] = []

    def latch(self, fault: str) -> HardwareError:
        """Latch a fault unless there is one already, and give up all calls; returns the error to raise."""
        with self.changed:
            first, self.fault = self.fault is None, self.fault or fault
            for thread in self.threads:
                thread.give_up_all(self.error())
        if first:
            log.error("the hardware is at fault", fault=fault)
        return self.error()

    def error(self) -> HardwareError:
        """What every caller is told after a fault."""
        return HardwareError(
            f"{self.fault}; focusd will not touch the hardware again: an operator has to check it, then run "
            "`focusctl reconnect`"
        )


class Call(Generic[T]):
    """One use of a device, of one step or of several: from the first to the last nobody else has the device.

    Awaiting it returns what its last step returned. Cancelling that gives the call up.

    Attributes:
        device: whose call it is.
        follows: the call that has to end well before this one begins; None: there is none, or it has ended.
        has_begun: the device has been at it.
        has_ended: well, with an error, or given up.
    """

    def __init__(self, device: DeviceThread, steps: Iterator[T], follows: Call[Any] | None) -> None:
        self.device = device
        self.follows = follows
        self.has_begun = self.has_ended = False
        # What the device logs belongs to the job that called it.
        self._take: Callable[[], T] | None = partial(contextvars.copy_context().run, next, steps, _END)
        self._taken = 0
        self._result: T = _END
        self._error: BaseException | None = None
        self._given_up: BaseException | None = None
        self._on_end: list[Callable[[], object]] = []

    def give_up(self, reason: BaseException | None = None) -> bool:
        """Let the device take no further step of it. Returns whether one is under way, which goes on to its end.

        Args:
            reason: what those who wait for the call are told.
        """
        with self.device.devices.changed:
            if self.has_ended:
                return False
            self._given_up = self._given_up or reason or CancelledJobError("the call was cancelled")
            if not self.has_begun:
                self._end(self._given_up)
            return self.has_begun

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        """Return what its last step returned.

        Raises:
            HardwareError: a fault is latched, since a step took longer than the deadline or before.
            BaseException: what a step of it raised, or of the call that it follows.
        """
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended before the device did
                loop.call_soon_threadsafe(ended.set)

        with self.device.devices.changed:
            self._on_end.append(tell)
        try:
            await self._watch(ended)
        except asyncio.CancelledError:
            self.give_up()
            raise
        if self._error is not None:
            raise self._error
        return self._result

    async def _watch(self, ended: asyncio.Event) -> None:
        """Return when it has ended, as long as the device that it waits for takes one step after the other."""
        devices, looks = self.device.devices, 0
        step: tuple[Call[Any], int] | None = None
        while not self.has_ended:
            with anyio.move_on_after(devices.deadline_s / LOOKS):
                await ended.wait()
            before, step = step, self._step_awaited()
            looks = looks + 1 if step == before else 0
            if looks >= LOOKS and not self.has_ended:
                raise devices.latch(self._overdue(step[0].device))

    def _step_awaited(self) -> tuple[Call[Any], int]:
        """The step that has to end before this call goes on, of this call or of an older one."""
        with self.device.devices.changed:
            call: Call[Any] = self
            while (older := call.waits_for) is not None:
                call = older
            return call, call._taken

    def _overdue(self, device: DeviceThread) -> str:
        waits = "" if device is self.device else f", and the {self.device.name} waited for it"
        return f"the {device.name} did not answer within {self.device.devices.deadline_s:g} s{waits}"

    @property
    def waits_for(self) -> Call[Any] | None:
        """The older call that has to end before this one may begin; None: none, or it has begun."""
        if self.has_begun or self.has_ended:
            return None
        before = self.device.first_before(self) or self.follows
        return before if before is not None and not before.has_ended else None

    def begin(self) -> bool:
        """Begin, unless the call that it follows has not ended well: then end as that has. Returns whether it began."""
        before, self.follows = self.follows, None  # which would keep a camera frame alive
        if before is not None and before._error is not None:
            self._end(before._error)
        else:
            self.has_begun = True
        return self.has_begun

    def carry_out(self) -> None:
        """In the device's thread: take one step after the other."""
        while (take := self._next_step()) is not None:
            began_s = time.perf_counter()
            try:
                result = take()
            except BaseException as error:
                self.device.worked(since_s=began_s)
                self._end(error)
                return
            if result is _END:
                self._end()
                return
            self.device.worked(since_s=began_s)
            self._result = result
            self._taken += 1

    def _next_step(self) -> Callable[[], T] | None:
        with self.device.devices.changed:
            if self._given_up is not None:
                self._end(self._given_up)
            return self._take

    def _end(self, error: BaseException | None = None) -> None:
        with self.device.devices.changed:
            if self.has_ended:
                return
            self.has_ended, self._error, self._take, self.follows = True, error, None, None
            self.device.drop(self)
            for tell in self._on_end:
                tell()
            self.device.devices.changed.notify_all()


class DeviceThread:
    """One device's own thread: one call at a time, in the order in which they were asked for.

    It is a daemon thread: a step that never returns does not keep the process alive.

    Attributes:
        busy_s: how long the device has been at work so far.
    """

    def __init__(self, name: str, devices: Devices) -> None:
        self.name = name
        self.devices = devices
        self.busy_s = 0.0
        self._calls: list[Call[Any]] = []  # the first is under way, or is to begin next
        self._closed = False
        devices.threads.append(self)
        threading.Thread(target=self._work, name=f"focusd-{name}", daemon=True).start()

    def begin(self, steps: Iterator[T], follows: Call[Any] | None = None) -> Call[T]:
        """Put a call in line; it begins without the event loop.

        Args:
            steps: each `next` is one step, which has the deadline for itself.
            follows: a call that has to end well before; it must be an older one.

        Raises:
            HardwareError: a fault is latched, or `close` was called.
        """
        with self.devices.changed:
            if self.devices.fault is not None:
                raise self.devices.error()
            if self._closed:
                raise self._closed_error()
            return self._put(Call(self, steps, follows))

    async def call(self, function: Callable[[], T]) -> T:
        """Carry out a call of one step; its errors are raised here.

        Raises:
            HardwareError: as for `begin`, or the deadline passed, which latches a fault.
        """
        return await self.begin(one_step(function))

    def close(
        self, last: Callable[[], object] = lambda: None, follows: Call[Any] | None = None
    ) -> Call[object]:
        """Refuse further calls and give up those that there are; returns the last one, after which the thread ends.

        Args:
            last: what it does.
            follows: as for `begin`.
        """
        with self.devices.changed:
            self._closed = True
            self.give_up_all(self.devices.error() if self.devices.fault else self._closed_error())
            call = self._put(Call(self, one_step(last), follows))
            if self.devices.fault:
                call.give_up(self.devices.error())
            return call

    def give_up_all(self, reason: BaseException) -> None:
        """Take no further step of any call."""
        for call in list(self._calls):
            call.give_up(reason)

    def first_before(self, call: Call[Any]) -> Call[Any] | None:
        """The call for which another one of this device waits; None: it is the next."""
        return self._calls[0] if self._calls and self._calls[0] is not call else None

    def worked(self, since_s: float) -> None:
        """Count the time of a step that has ended now, however it did."""
        took_s = time.perf_counter() - since_s
        self.busy_s += took_s
        STAGE_SECONDS.labels(self.name).observe(took_s)

    def drop(self, call: Call[Any]) -> None:
        """Forget a call that has ended."""
        self._calls.remove(call)

    def _put(self, call: Call[T]) -> Call[T]:
        self._calls.append(call)
        self.devices.changed.notify_all()
        return call

    def _closed_error(self) -> HardwareError:
        return HardwareError(f"the {self.name} is closed, because focusd is stopping")

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.carry_out()
            del call  # it would keep a camera frame alive

    def _next(self) -> Call[Any] | None:
        """Wait for the next call that may begin; None: there will be no more."""
        with self.devices.changed:
            while self._calls or not self._closed:
                call = self._calls[0] if self._calls else None
                if call is None or call.waits_for is not None:
                    self.devices.changed.wait()
                elif call.begin():
                    return call
            return None


def one_step(function: Callable[[], T]) -> Iterator[T]:
    """The steps of a call that has one."""
    yield function()
