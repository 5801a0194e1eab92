"""Hardware that hangs, raises or lies: the rig answers in time, keeps its order, and stands still after a fault."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from focusd.config import CameraConfig, StageConfig
from focusd.daemon import rig as rig_module
from focusd.daemon.rig import Rig
from focusd.errors import HardwareError, TravelLimitError
from focusd.focus.frame import Frame

pytestmark = pytest.mark.anyio

SOON_S = 0.1
"""A deadline for calls that never return."""
NEVER_S = 60.0
"""A deadline for calls that do."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeMicroscope:
    """Hardware at the lowest seam: it notes each call, hangs where told, and fails once where told."""

    camera_name = "fake"

    def __init__(self) -> None:
        self.z_um = 0.0
        self.calls: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}

    def hang(self, action: str) -> threading.Event:
        """The action does not return until the event is set."""
        self.gates[action] = threading.Event()
        return self.gates[action]

    def release(self) -> None:
        for gate in self.gates.values():
            gate.set()

    async def has_begun(self, action: str) -> None:
        with anyio.fail_after(NEVER_S):
            while action not in self.calls:  # noqa: ASYNC110  the device's thread knows no events of the loop
                await anyio.sleep(0.001)

    def snap(self) -> Frame:
        self._do("snap")
        sequence = self.calls.count("snap")
        return Frame(np.zeros((4, 6), np.uint16), self.z_um, 1.0, time.perf_counter(), sequence, 65535)

    def position_um(self) -> float:
        self._do("position")
        return self.z_um

    def move_to(self, z_um: float) -> None:
        self._do(f"move {z_um:g}")
        self.z_um = z_um

    def end_sequence(self) -> None:
        self._do("end sequence")

    def stop(self) -> None:
        self._do("stop")

    def close(self) -> None:
        self._do("close")

    def _do(self, action: str) -> None:
        self.calls.append(action)
        if action in self.gates:
            self.gates[action].wait(NEVER_S)
        if failure := self.failures.pop(action, None):
            raise failure


@pytest.fixture
def fake() -> Iterator[FakeMicroscope]:
    fake = FakeMicroscope()
    yield fake
    fake.release()


@asynccontextmanager
async def rig_of(fake: FakeMicroscope, deadline_s: float = NEVER_S) -> AsyncIterator[Rig]:
    stage = StageConfig(
        min_um=-100, max_um=100, towards_sample="increasing", max_step_um=20, timeout_s=deadline_s
    )
    rig = Rig(fake, stage, CameraConfig(pixel_um=6.5, exposure_ms=1))
    try:
        yield rig
    finally:
        await rig.aclose()


async def test_moves_exposes_and_returns(fake: FakeMicroscope) -> None:
    fake.z_um = 3.0
    async with rig_of(fake) as rig:
        assert (rig.camera_name, rig.last_z_um, rig.fault) == ("fake", None, None)
        assert await rig.begin_operation() == 3
        assert rig.last_z_um == 3
        assert await rig.move_to(30) == 30
        assert (await rig.snap()).z_um == 30
        assert await rig.return_to_start() == 3
        assert await rig.position_um() == rig.last_z_um == 3


async def test_moves_are_guarded(fake: FakeMicroscope) -> None:
    async with rig_of(fake) as rig:
        with pytest.raises(TravelLimitError, match=r"stage\.max_um"):
            await rig.move_to(101)
        assert rig.fault is None
    assert not [call for call in fake.calls if call.startswith("move")]


@pytest.mark.parametrize(
    ("action", "device"), [("snap", "camera"), ("move 5", "stage"), ("position", "stage")]
)
async def test_hung_call_latches_a_fault(fake: FakeMicroscope, action: str, device: str) -> None:
    fake.hang(action)
    async with rig_of(fake, SOON_S) as rig:
        ask: Any = {
            "snap": rig.snap,
            "move 5": lambda: rig.move_to(5),
            "position": rig.position_um,
        }[action]
        with pytest.raises(
            HardwareError, match=f"the {device} did not answer within .* `focusctl reconnect`"
        ):
            await ask()
        touched = list(fake.calls)
        for refused in (rig.snap, rig.position_um, rig.begin_operation, rig.return_to_start):
            with pytest.raises(HardwareError, match="an operator has to"):
                await refused()
        assert rig.fault is not None
        assert device in rig.fault
    assert fake.calls == touched, "a rig at fault is not even closed"


async def test_callers_in_line_are_refused_when_the_call_before_them_hangs(fake: FakeMicroscope) -> None:
    fake.hang("snap")
    refused: list[bool] = []

    async def ask() -> None:
        with pytest.raises(HardwareError):
            await rig.snap()
        refused.append(True)

    async with rig_of(fake, SOON_S) as rig, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert len(refused) == 3
    assert fake.calls == ["snap"]


async def test_stage_answers_while_the_camera_exposes(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig, anyio.create_task_group() as tasks:
        tasks.start_soon(rig.snap)
        await fake.has_begun("snap")
        assert await rig.position_um() == 0
        exposure.set()


async def test_failed_call_is_reported_and_the_next_one_is_made(fake: FakeMicroscope) -> None:
    fake.failures["snap"] = HardwareError("no light")
    async with rig_of(fake) as rig:
        with pytest.raises(HardwareError, match="no light"):
            await rig.snap()
        assert rig.fault is None
        assert (await rig.snap()).sequence == 2


async def test_wrong_read_back_is_reported(fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "move_to", lambda z_um: setattr(fake, "z_um", z_um - 2))
    async with rig_of(fake) as rig:
        with pytest.raises(HardwareError, match=r"sent to 10\.000 µm and reads back 8\.000 µm"):
            await rig.move_to(10)


async def test_after_a_cancelled_exposure_the_next_waits_for_its_end(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig:
        await _cancelled(rig.snap, fake, "snap")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_open_when_waiting, rig, exposure, fake)
            frame = await rig.snap()
        assert frame.sequence == 2


async def exposed_at(rig: Rig, z_um: float) -> Frame:
    async with rig.chain() as chain:
        chain.move_to(z_um)
        return await chain.snap()


async def test_an_exposure_that_waits_for_a_move_begins_when_its_last_step_has_been_read_back(
    fake: FakeMicroscope,
) -> None:
    async with rig_of(fake) as rig:
        assert (await exposed_at(rig, 30)).z_um == 30
        assert fake.calls == ["position", "move 15", "position", "move 30", "position", "snap"]
        assert rig.last_z_um == 30


async def test_a_move_of_several_steps_has_the_stage_until_its_last(fake: FakeMicroscope) -> None:
    """Moves that were asked for meanwhile wait, and so does what follows them."""
    async with rig_of(fake) as rig, rig.chain() as chain:
        chain.move_to(30)
        exposed = chain.snap()
        chain.move_to(60)
        assert (await exposed).z_um == 30
        assert (await chain.snap()).z_um == 60
    moves = [call for call in fake.calls if call != "position"]
    assert moves == ["move 15", "move 30", "snap", "move 45", "move 60", "snap", "close"]


async def test_a_move_that_waits_for_an_exposure_begins_when_it_has_been_read_out(
    fake: FakeMicroscope,
) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig, rig.chain() as chain:
        chain.snap()
        move = chain.move_to(10)
        await fake.has_begun("snap")
        await anyio.sleep(SOON_S)
        assert fake.calls == ["snap"]
        exposure.set()
        await move
    assert fake.calls[:4] == ["snap", "position", "move 10", "position"]


async def test_neither_device_waits_for_the_event_loop(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig, rig.chain() as chain:
        chain.snap()
        chain.move_to(10)
        chain.snap()
        await fake.has_begun("snap")
        exposure.set()
        begun_s = time.perf_counter()
        while fake.calls.count("snap") < 2 and time.perf_counter() < begun_s + NEVER_S:
            time.sleep(0.001)  # noqa: ASYNC251  the loop is busy
        assert fake.calls == ["snap", "position", "move 10", "position", "snap"]


async def test_a_cancelled_move_that_waits_for_an_exposure_never_begins(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig:
        with anyio.move_on_after(SOON_S):
            async with rig.chain() as chain:
                chain.snap()
                await chain.move_to(10)
        exposure.set()
        assert await rig.position_um() == 0
        assert "move 10" not in fake.calls
        assert "stop" not in fake.calls, "it does not move"


@pytest.mark.parametrize("hangs", ["move 15", "move 30"])
async def test_nothing_is_exposed_where_a_cancelled_move_arrives(fake: FakeMicroscope, hangs: str) -> None:
    stage = fake.hang(hangs)
    async with rig_of(fake) as rig:
        await _cancelled(lambda: exposed_at(rig, 30), fake, hangs)
        stage.set()
        await rig.position_um()
        assert "snap" not in fake.calls
        assert (await rig.snap()).sequence == 1, "and the camera is free"


@pytest.mark.parametrize("error", [HardwareError("stuck"), ValueError("a fault of ours")])
async def test_nothing_is_exposed_where_a_move_fails(fake: FakeMicroscope, error: Exception) -> None:
    fake.failures["move 30"] = error
    async with rig_of(fake) as rig:
        with pytest.raises(type(error), match=str(error)):
            await exposed_at(rig, 30)
        assert "snap" not in fake.calls
        assert (await rig.snap()).sequence == 1


async def test_a_stage_that_hangs_leaves_the_prepared_exposure_undone(fake: FakeMicroscope) -> None:
    stage = fake.hang("move 10")
    async with rig_of(fake, SOON_S) as rig:
        with pytest.raises(HardwareError, match="the stage did not answer"):
            await exposed_at(rig, 10)
        stage.set()
        assert rig.fault
    assert "snap" not in fake.calls


async def test_each_step_of_a_move_has_the_deadline_for_itself(
    fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for all of it wait longer than that, on a rig that is well."""

    def slow(z_um: float) -> None:
        time.sleep(SOON_S / 2)  # of several steps
        fake.z_um = z_um

    monkeypatch.setattr(fake, "move_to", slow)
    async with rig_of(fake, SOON_S) as rig, anyio.create_task_group() as tasks:
        tasks.start_soon(exposed_at, rig, 100)
        await anyio.lowlevel.checkpoint()
        assert await rig.position_um() == 100
    assert not rig.fault
    assert fake.calls.count("snap") == 1


async def test_a_camera_that_hangs_after_a_move_latches_a_fault(fake: FakeMicroscope) -> None:
    fake.hang("snap")
    async with rig_of(fake, SOON_S) as rig:
        with pytest.raises(HardwareError, match="the camera did not answer"):
            await exposed_at(rig, 10)
        assert rig.fault


async def test_the_error_says_which_device_waited_for_which(fake: FakeMicroscope) -> None:
    fake.hang("move 10")
    async with rig_of(fake, SOON_S) as rig:
        with pytest.raises(
            HardwareError, match=r"the stage did not answer .*, and the camera waited for it; focusd will not"
        ):
            await exposed_at(rig, 10)


async def test_a_move_that_waits_does_not_begin_after_a_fault(fake: FakeMicroscope) -> None:
    """Not even what followed a device that answers too late."""
    exposure = fake.hang("snap")
    async with rig_of(fake, SOON_S) as rig:
        async with rig.chain() as chain:
            exposed = chain.snap()
            move = chain.move_to(10)
            with pytest.raises(HardwareError, match="the camera did not answer"):
                await exposed
            exposure.set()
            with pytest.raises(HardwareError, match="the camera did not answer"):
                await move
            with pytest.raises(HardwareError, match="an operator has to"):
                chain.snap()
        assert not any(call.startswith(("move", "stop")) for call in fake.calls)


@pytest.mark.parametrize("failing", [101, 50])
async def test_what_follows_a_move_that_is_refused_or_fails_ends_with_its_error(
    fake: FakeMicroscope, failing: float
) -> None:
    fake.failures["move 50"] = HardwareError("stuck")
    async with rig_of(fake) as rig, rig.chain() as chain:
        chain.move_to(failing)
        exposed = chain.snap()
        move = chain.move_to(0)
        for awaited in (exposed, move):
            with pytest.raises((TravelLimitError, HardwareError), match=r"stage\.max_um|stuck"):
                await awaited
        assert rig.fault is None
    assert "snap" not in fake.calls


async def test_a_position_that_is_no_number_is_a_fault_of_the_stage(fake: FakeMicroscope) -> None:
    fake.z_um = float("nan")
    async with rig_of(fake) as rig:
        for ask in (rig.begin_operation, rig.position_um, rig.snap):
            with pytest.raises(HardwareError, match="reads back nan"):
                await ask()
        assert rig.last_z_um is None


async def test_failure_of_a_cancelled_call_reaches_nobody(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    fake.failures["snap"] = HardwareError("no light")
    async with rig_of(fake) as rig:
        await _cancelled(rig.snap, fake, "snap")
        exposure.set()
        assert (await rig.snap()).sequence == 2


async def test_cancelled_call_that_never_ends_latches_a_fault(fake: FakeMicroscope) -> None:
    fake.hang("snap")
    async with rig_of(fake, SOON_S) as rig:
        await _cancelled(rig.snap, fake, "snap")
        with pytest.raises(HardwareError, match="did not answer"):
            await rig.snap()
        assert rig.fault
    assert fake.calls == ["snap"]


async def test_call_cancelled_in_line_is_never_made(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.snap)
            await fake.has_begun("snap")
            with anyio.move_on_after(0.01):
                await rig.snap()
            exposure.set()
        await rig.position_um()
    assert fake.calls.count("snap") == 1


async def test_cancelled_move_stops_the_stage_and_takes_no_further_step(fake: FakeMicroscope) -> None:
    first_step = fake.hang("move 20")
    async with rig_of(fake) as rig:
        await rig.begin_operation()
        await _cancelled(lambda: rig.move_to(60), fake, "move 20")
        assert fake.calls[-1] == "stop"
        first_step.set()
        assert await rig.return_to_start() == 0
    assert [call for call in fake.calls if call.startswith("move")] == ["move 20", "move 0"]
    assert fake.calls.count("stop") == 1


async def test_stage_without_a_stop_command_is_still_brought_back(fake: FakeMicroscope) -> None:
    step = fake.hang("move 5")
    fake.failures["stop"] = HardwareError("this stage cannot stop")
    async with rig_of(fake) as rig:
        await rig.begin_operation()
        await _cancelled(lambda: rig.move_to(5), fake, "move 5")
        step.set()
        assert await rig.return_to_start() == 0
        assert rig.fault is None


async def test_closes_once_and_refuses_calls_from_then_on(fake: FakeMicroscope) -> None:
    async with rig_of(fake) as rig:
        await rig.aclose()
        with pytest.raises(HardwareError, match="the camera is closed"):
            await rig.snap()
    assert fake.calls == ["close"]
    assert rig.fault is None


async def test_closes_after_an_exposure_under_way(fake: FakeMicroscope) -> None:
    exposure = fake.hang("snap")
    async with rig_of(fake) as rig:
        await _cancelled(rig.snap, fake, "snap")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.aclose)
            await anyio.wait_all_tasks_blocked()
            assert fake.calls == ["snap"]
            exposure.set()
    assert fake.calls == ["snap", "close"]


async def test_closing_in_mid_move_takes_no_further_step(fake: FakeMicroscope) -> None:
    step = fake.hang("move 20")
    async with rig_of(fake) as rig, anyio.create_task_group() as tasks:

        async def refused() -> None:
            with pytest.raises(HardwareError, match=r"the (stage|camera) is closed"):
                await exposed_at(rig, 60)

        tasks.start_soon(refused)
        await fake.has_begun("move 20")
        tasks.start_soon(rig.aclose)
        await anyio.wait_all_tasks_blocked()
        step.set()
    assert fake.calls == ["position", "move 20", "position", "close"]
    assert rig.fault is None


async def test_closing_that_hangs_is_given_up(fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig_module, "CLOSE_S", SOON_S)
    fake.hang("close")
    async with rig_of(fake) as rig:
        pass
    assert rig.fault == "the hardware did not close within 0.101 s"


async def test_failure_to_close_is_survived(fake: FakeMicroscope) -> None:
    fake.failures["close"] = HardwareError("the port is gone")
    async with rig_of(fake) as rig:
        pass
    assert rig.fault is None


def test_call_that_ends_after_the_loop_harms_nobody(
    fake: FakeMicroscope, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake.hang("snap")

    async def leave_an_exposure_behind() -> None:
        rig = Rig(
            fake,
            StageConfig(min_um=0, max_um=1, towards_sample="increasing"),
            CameraConfig(pixel_um=6.5, exposure_ms=1),
        )
        await _cancelled(rig.snap, fake, "snap")
        rig.camera.close()

    anyio.run(leave_an_exposure_behind, backend=anyio_backend)
    fake.release()
    for thread in threading.enumerate():
        if thread.name == "focusd-camera":
            thread.join(NEVER_S)
            assert not thread.is_alive()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def _cancelled(
    ask: Callable[[], Coroutine[Any, Any, object]], fake: FakeMicroscope, action: str
) -> None:
    """Ask for something and cancel it as soon as the hardware is at it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await fake.has_begun(action)
        tasks.cancel_scope.cancel()


async def _open_when_waiting(rig: Rig, exposure: threading.Event, fake: FakeMicroscope) -> None:
    """Let the abandoned exposure end, once the next one has been asked for and has not begun."""
    await anyio.sleep(0.02)
    assert fake.calls == ["snap"]
    exposure.set()
