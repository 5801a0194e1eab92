"""Program and hold share camera and stage: the hold gives way, rests during acquisitions, and leaves no trace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import useq

from focusd.embedded import FocusLostError
from focusd.embedded.room import INSIDE
from focusd.errors import CancelledJobError
from focusd.protocol.requests import RefocusParams
from tests.daemon.steps import stepping
from tests.embedded.owned import Bench, attached, core_state

DOF_UM = 8.28
HOLD = {"min_interval_s": 0.2, "max_interval_s": 0.4}


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "it does not come"
        time.sleep(0.01)


def checks(bench: Bench) -> int:
    held = bench.focusd.state()["hold"]
    return int(held.get("checks", 0))


def test_continuous_focus_is_the_hold(bench: Bench) -> None:
    core = bench.core
    assert not core.isContinuousFocusEnabled()
    core.enableContinuousFocus(True)
    assert core.isContinuousFocusEnabled()
    until(core.isContinuousFocusLocked)
    assert abs(bench.owned.defocus_um) < 0.1 * DOF_UM
    core.enableContinuousFocus(False)
    assert not core.isContinuousFocusEnabled()
    assert bench.focusd.state()["hold"]["state"] == "disengaged"


def test_without_a_calibration_nothing_is_held_and_the_reason_is_told(tmp_path: Path) -> None:
    with attached(tmp_path, calibrated=False) as bench:
        with pytest.raises(FocusLostError, match="calibration_mismatch"):
            bench.core.enableContinuousFocus(True)
        assert not bench.core.isContinuousFocusEnabled()


def test_an_offset_is_not_held(bench: Bench) -> None:
    bench.core.setAutoFocusOffset(3.0)
    with pytest.raises(FocusLostError, match="set the autofocus offset to 0"):
        bench.core.enableContinuousFocus(True)
    bench.core.setAutoFocusOffset(0.0)
    bench.core.enableContinuousFocus(True)
    with pytest.raises(FocusLostError, match="set the autofocus offset to 0"):
        bench.core.setAutoFocusOffset(3.0)


def test_another_autofocus_device_ends_the_hold(bench: Bench) -> None:
    bench.core.enableContinuousFocus(True)
    bench.core.setAutoFocusDevice("")
    assert bench.core.getAutoFocusDevice() == ""
    assert bench.focusd.state()["hold"]["state"] == "disengaged"
    bench.core.setAutoFocusDevice("focusd")
    assert bench.core.getAutoFocusDevice() == "focusd"
    assert not bench.core.isContinuousFocusEnabled()


def test_the_program_s_images_are_its_own_while_the_focus_is_held(tmp_path: Path) -> None:
    with attached(tmp_path, hold=HOLD) as bench:
        core, camera = bench.core, bench.owned.camera
        core.setExposure(20.0)
        core.setROI(0, 0, 64, 32)
        core.enableContinuousFocus(True)
        until(lambda: checks(bench) > 0)
        for _ in range(8):
            core.snapImage()
            assert not camera.exposed[-1].by_focusd
            time.sleep(0.3)  # a check that began now would take the image's place
            assert core.getImage().shape == (32, 64)
            assert core.getExposure() == 20.0
        seen = checks(bench)
        until(lambda: checks(bench) > seen)


def test_where_the_program_moves_the_stage_the_hold_begins_anew(tmp_path: Path) -> None:
    with attached(tmp_path, hold=HOLD) as bench:
        bench.core.enableContinuousFocus(True)
        until(bench.core.isContinuousFocusLocked)
        bench.core.setPosition(20.0)
        assert bench.core.getPosition() == pytest.approx(20.0, abs=13)  # on its way
        until(lambda: abs(bench.owned.defocus_um) < 0.1 * DOF_UM)


def test_the_hold_rests_during_an_acquisition_and_goes_on_after_it(tmp_path: Path) -> None:
    with attached(tmp_path, hold=HOLD) as bench:
        core, camera = bench.core, bench.owned.camera
        core.enableContinuousFocus(True)
        until(core.isContinuousFocusLocked)
        began = len(camera.exposed)
        sequence = useq.MDASequence.model_validate(
            {
                "time_plan": {"interval": 0.5, "loops": 5},
                "autofocus_plan": {"axes": ("p",)},
                "stage_positions": [(0, 0, 8)],
            }
        )
        spans: list[int] = []
        core.mda.events.frameReady.connect(lambda *_: spans.append(len(camera.exposed)))
        core.run_mda(sequence, block=True)
        first, last = spans[0], spans[-1]
        assert first > began, "the plan's own refocus"
        assert last - first == 4, "nothing but the plan's frames"
        assert core.isContinuousFocusEnabled()
        seen = checks(bench)
        until(lambda: checks(bench) > seen)


def test_from_inside_an_image_nothing_deadlocks(bench: Bench) -> None:
    told: list[BaseException] = []

    def ask(_camera: str) -> None:
        if not INSIDE.get():
            return
        try:
            bench.focusd.refocus()
        except Exception as error:
            told.append(error)

    bench.core.events.imageSnapped.connect(ask)
    bench.core.fullFocus()
    assert told
    assert all("focusing at this moment" in str(error) for error in told)


def test_cancelled_at_any_moment_all_is_given_back(bench: Bench) -> None:
    core = bench.core
    core.setExposure(33.0)
    core.setROI(10, 20, 64, 32)
    before, z_um = core_state(core), core.getPosition()
    moment, ended = 1, False
    while not ended:
        ended = not cancelled_at(bench, moment)
        if not ended:
            assert core_state(core) == before, moment
            assert core.getPosition() == pytest.approx(z_um, abs=0.01), moment
        moment += 1 + moment // 4
    assert moment > 10
    assert core_state(core) == before


def cancelled_at(bench: Bench, moment: int) -> bool:
    """Refocus, cancelled at an await of the room's; whether that came before its end."""
    room = bench.focusd._room
    jobs, operations = room.assembly.jobs, room.assembly.operations

    async def work() -> bool:
        count = 0

        def tell() -> None:
            nonlocal count
            count += 1
            if count == moment and jobs.running:
                jobs.cancel(jobs.running.id)

        with stepping(tell):
            job = jobs.start(
                "refocus",
                lambda report: operations.refocus(RefocusParams(), report),
            )
            await job.wait()
        return job.state == "cancelled"

    return room.call(work)


def test_an_interrupted_wait_cancels_what_it_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does."""
    core, z_um = bench.core, bench.core.getPosition()
    monkeypatch.setattr(bench.owned.camera, "snap", interrupted(bench.owned.camera.snap))
    with pytest.raises((KeyboardInterrupt, CancelledJobError)):
        core.fullFocus()
    monkeypatch.undo()
    until(lambda: bench.focusd.state()["hold"] is not None and room_is_idle(bench))
    assert core.getPosition() == pytest.approx(z_um, abs=0.01)


def interrupted(snap: Callable[..., object]) -> Callable[..., object]:
    """A camera at whose exposure somebody presses Ctrl-C."""

    def method(*args: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return snap(*args)

    return method


def room_is_idle(bench: Bench) -> bool:
    return bench.focusd._room.assembly.jobs.running is None
