"""The devices' threads under any order of events: a state machine in which nothing happens by itself.

Each step of a device waits at a gate until the machine lets it end, well or badly; time passes when the machine says
so, and what is asked for, cancelled or closed comes in any order. After each event everything runs until it stands
still. So the orders in which things happen are chosen, not left to the speed of the computer.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from focusd.config import CameraConfig, StageConfig
from focusd.daemon import rig as rig_module
from focusd.daemon.devices import LOOKS, Call, DeviceThread
from focusd.daemon.operation import Operation, operation_on
from focusd.daemon.rig import Chain, Rig
from focusd.errors import CancelledJobError, FocusdError, HardwareError
from focusd.focus.frame import Frame

STAGE = StageConfig(
    min_um=-60,
    max_um=60,
    towards_sample="increasing",
    max_step_um=20,
    max_travel_um=500,
    timeout_s=float(LOOKS),
)
CAMERA = CameraConfig(pixel_um=6.5, exposure_ms=1e-6)
LOOK_S = (STAGE.timeout_s + CAMERA.exposure_ms / 1000) / LOOKS
CLOSING_LOOKS = rig_module.CLOSE_S / LOOK_S
STANDS_STILL_S = 20.0
"""Real seconds, after which the machine itself is at fault."""

Verdict = Exception | None
Work = Callable[[], Coroutine[Any, Any, object]]
picks = st.integers(0, 59)
places_um = st.sampled_from([-60.0, -25.0, 0.0, 10.0, 60.0, 61.0])


@dataclass
class Gate:
    """Where a device waits in the middle of a step."""

    action: str
    looks: int = 0
    verdict: list[Verdict] = field(default_factory=list)


class GatedMicroscope:
    """A microscope whose every step ends when it is told to."""

    camera_name = "gated"

    def __init__(self) -> None:
        self.z_um = 0.0
        self.gates: dict[str, Gate] = {}
        self.changed = threading.Condition()
        self.at_step: Callable[[str], None] = lambda _action: None
        self.closed = False
        self.free = False

    def snap(self) -> Frame:
        self._pass("camera", "snap")
        return Frame(np.zeros((16, 16), np.uint16), self.z_um, 1.0, time.perf_counter(), 1, 65535)

    def position_um(self) -> float:
        return self.z_um

    def move_to(self, z_um: float) -> None:
        self._pass("stage", "move")
        self.z_um = z_um

    def stop(self) -> None:
        self._pass("stage's stop command", "stop")

    def end_sequence(self) -> None: ...

    def close(self) -> None:
        self._pass("stage", "close")
        self.closed = True

    def let(self, device: str, verdict: Verdict) -> None:
        """End the step that the device is at."""
        with self.changed:
            self.gates.pop(device).verdict.append(verdict)
            self.changed.notify_all()

    def release(self) -> None:
        """From now on nothing waits."""
        self.free = True
        for device in list(self.gates):
            self.let(device, None)

    def _pass(self, device: str, action: str) -> None:
        assert threading.current_thread().name == f"focusd-{device}"
        with self.changed:
            if self.free:
                return
            self.at_step(action)
            gate = self.gates[device] = Gate(action)
            self.changed.wait_for(lambda: gate.verdict)
        if error := gate.verdict[0]:
            raise error


class Asked:
    """Something that was asked of the rig, and how it ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work) -> None:
        self.cancelled = False
        self.ending: object = None
        self.task = loop.create_task(self._run(work))

    async def _run(self, work: Work) -> None:
        with anyio.CancelScope() as self.scope:
            try:
                await work()
                self.ending = "well"
            except Exception as error:
                self.ending = error
        self.ending = self.ending or "cancelled"

    async def cancel(self) -> None:
        self.cancelled = True
        self.scope.cancel()


class DevicesMachine(RuleBasedStateMachine):
    """Moves, exposures, sweeps, operations, cancellations, an end, and devices that answer, fail, hang or are late."""

    @initialize(answers=st.booleans())
    def build(self, answers: bool) -> None:
        """
        Args:
            answers: in the end the devices answer; else they never do.
        """
        self.answers = answers
        self.now_s = 0.0
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self.now_s  # type: ignore[method-assign]
        self.microscope = GatedMicroscope()
        self.microscope.at_step = self._watch_step
        self.rig = Rig(self.microscope, STAGE, CAMERA)
        self.asked: list[Asked] = []
        self.mover: Asked | None = None
        self.injected: list[Exception] = []
        self.broken: list[str] = []
        self.closing_looks: float | None = None
        self.overdue = False
        self._tag_moves()

    def _tag_moves(self) -> None:
        """Whose step it is that the stage takes."""
        steps_to, steps_home = self.rig._guarded.steps_to, self.rig._guarded.steps_to_start

        def tagged(way: Iterator[float], asked: Asked | None) -> Iterator[float]:
            while True:
                self.mover = asked
                self.guarded = True
                try:
                    z_um = next(way)
                except StopIteration:
                    return
                finally:
                    self.guarded = False
                yield z_um

        def current() -> Asked:
            task = asyncio.current_task()
            return next(asked for asked in self.asked if asked.task is task)

        self.rig._guarded.steps_to = lambda z_um: tagged(steps_to(z_um), current())  # type: ignore[method-assign]
        self.rig._guarded.steps_to_start = lambda: tagged(steps_home(), None)  # type: ignore[method-assign]

    def _watch_step(self, action: str) -> None:
        """In the device's thread, whose errors may reach nobody: the promises that hold when a step begins."""
        promises = {
            "after a fault nothing is touched": self.rig.fault is None,
            "nothing is touched after the end": not self.microscope.closed,
            "no move without the guard": action != "move" or self.guarded,
            "no step after cancellation": action != "move" or not (self.mover and self.mover.cancelled),
        }
        self.broken += [promise for promise, kept in promises.items() if not kept]

    @rule(z_um=places_um)
    def move(self, z_um: float) -> None:
        self._ask(lambda: self.rig.move_to(z_um))

    @rule()
    def snap(self) -> None:
        self._ask(self.rig.snap)

    @rule()
    def read(self) -> None:
        self._ask(self.rig.position_um)

    @rule(planes_um=st.lists(places_um, min_size=1, max_size=3))
    def sweep(self, planes_um: list[float]) -> None:
        self._ask(lambda: self._sweep(Operation(self.rig), planes_um))

    @rule(planes_um=st.lists(places_um, min_size=1, max_size=3))
    def operate(self, planes_um: list[float]) -> None:
        self._ask(lambda: self._operation(planes_um))

    # What is drawn must not depend on what the threads have done: where two tasks are woken at once, either may be
    # first. So one of many is drawn as a number, and a rule that finds nothing to do does nothing.

    @rule(pick=picks, verdict=st.sampled_from(["well", "well", "well", "well", "error", "surprise"]))
    def a_step_ends(self, pick: int, verdict: str) -> None:
        errors = {"error": HardwareError("the cable"), "surprise": ValueError("a fault of ours")}
        if not (devices := sorted(self.microscope.gates)):
            return
        if error := errors.get(verdict):
            self.injected.append(error)
        self.microscope.let(devices[pick % len(devices)], error)
        self._settle()

    @rule()
    def a_step_ends_at_the_last_moment(self) -> None:
        for _ in range(
            LOOKS - 1 - max((gate.looks for gate in self.microscope.gates.values()), default=LOOKS)
        ):
            self._look()
        for device in sorted(self.microscope.gates):
            self.microscope.let(device, None)
            self._settle()

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if not (going_on := [asked for asked in self.asked if not asked.task.done()]):
            return
        self.loop.run_until_complete(going_on[pick % len(going_on)].cancel())
        self._settle()

    @rule(looks=st.sampled_from([1, LOOKS // 2, LOOKS - 1, LOOKS + 2]))
    def time_passes(self, looks: int) -> None:
        for _ in range(looks):
            self._look()

    @rule()
    def the_computer_is_suspended(self) -> None:
        """Its devices may well have answered meanwhile, but nobody could look."""
        self._look(slept_s=10 * STAGE.timeout_s)

    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        """Seldom, since little happens afterwards."""
        if really == 0 and self.closing_looks is None:
            self.closing_looks = 0
            self._ask(self.rig.aclose)

    def teardown(self) -> None:
        """Whatever has come before: all calls end, once the devices answer or their deadline has passed."""
        if not hasattr(self, "loop"):
            return
        try:
            self._end()
            self._judge()
        finally:
            self.microscope.release()
            self.loop.run_until_complete(self.rig.aclose())
            self.loop.close()

    def _end(self) -> None:
        for _ in range(1000):
            if all(asked.task.done() for asked in self.asked):
                return
            if self.answers and self.microscope.gates:
                self.microscope.let(min(self.microscope.gates), None)
                self._settle()
            else:
                self._look()

    def _judge(self) -> None:
        for asked in self.asked:
            assert asked.task.done(), "every call ends"
            asked.task.result()
            ending = asked.ending
            typed = ending in ("well", "cancelled") or isinstance(ending, FocusdError)
            assert typed or ending in self.injected, repr(ending)
            cancelled = ending == "cancelled" or isinstance(ending, CancelledJobError)
            assert asked.cancelled or not cancelled, "only what is cancelled says so"

    def _look(self, slept_s: float = 0.0) -> None:
        self.now_s += LOOK_S * (1 + 1e-9) + slept_s
        for gate in self.microscope.gates.values():
            gate.looks += 1
            self.overdue |= gate.looks >= LOOKS
        if self.closing_looks is not None:
            self.closing_looks += 1 + slept_s / LOOK_S
            self.overdue |= self.closing_looks >= CLOSING_LOOKS
        self._settle()
        assert self.overdue or self.rig.fault is None, "a device that is well has no fault"

    def _ask(self, work: Work) -> None:
        self.asked.append(Asked(self.loop, work))
        self._settle()

    async def _sweep(self, operation: Operation, planes_um: list[float]) -> None:
        seen_um: list[float] = []

        async def taken(frame: Frame) -> None:
            seen_um.append(frame.z_um)

        await operation.sweep(planes_um, taken)
        assert seen_um == planes_um or len(self.asked) > 1, (
            "exposed where it was sent, if nobody else moves it"
        )

    async def _operation(self, planes_um: list[float]) -> None:
        async with operation_on(self.rig) as operation:
            await self._sweep(operation, planes_um)

    def _settle(self) -> None:
        """Let loop and threads run until all wait for the machine."""
        self.loop.run_until_complete(self._until_still())
        assert not self.broken

    async def _until_still(self) -> None:
        began_s = time.monotonic()
        while not (self._threads_wait() and not self.loop._ready):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            if not self._threads_wait():
                time.sleep(1e-4)  # noqa: ASYNC251  for the threads
            assert time.monotonic() < began_s + STANDS_STILL_S

    def _threads_wait(self) -> bool:
        with self.rig._devices.changed, self.microscope.changed:
            return all(self._waits(thread) for thread in self.rig._devices.threads)

    def _waits(self, thread: DeviceThread) -> bool:
        if not thread._calls:
            return True
        first = thread._calls[0]
        return first.waits_for is not None or (first.has_begun and thread.name in self.microscope.gates)


QUICK = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_in_whichever_order_all_calls_end_and_the_stage_is_safe() -> None:
    run_state_machine_as_test(DevicesMachine, settings=QUICK)


def _takes_every_step(call: Call[Any]) -> object:
    return call._take


def _counts_no_steps(call: Call[Any]) -> tuple[Call[Any], int]:
    return call, 0


def _lets_go_on(_chain: Chain) -> bool:
    return False


async def _waits_for_ever(_call: Call[Any], ended: asyncio.Event) -> None:
    await ended.wait()


@pytest.mark.parametrize(
    ("kind", "name", "wrong", "promise"),
    [
        (
            Call,
            "_next_step",
            _takes_every_step,
            "no step after cancellation|after a fault nothing is touched",
        ),
        (Call, "_step_awaited", _counts_no_steps, "a device that is well has no fault"),
        (Chain, "give_up", _lets_go_on, "no step after cancellation"),
    ],
)
def test_a_rig_that_breaks_a_promise_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, wrong: Callable[..., object], promise: str
) -> None:
    monkeypatch.setattr(kind, name, wrong)
    found_first = settings(QUICK, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((AssertionError, ExceptionGroup)) as found:
        run_state_machine_as_test(DevicesMachine, settings=found_first)
    assert re.search(promise, "".join(traceback.format_exception(found.value)))


@pytest.mark.parametrize("ask", [DevicesMachine.snap, lambda machine: machine.move(10.0)])
def test_a_rig_that_waits_for_ever_is_found(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[DevicesMachine], None]
) -> None:
    """In one order each: in some of all orders it keeps the machine itself waiting."""
    monkeypatch.setattr(Call, "_watch", _waits_for_ever)
    machine = DevicesMachine()
    machine.build(answers=False)
    ask(machine)
    with pytest.raises(AssertionError, match="every call ends"):
        machine.teardown()
