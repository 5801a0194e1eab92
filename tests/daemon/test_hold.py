"""The hold on a scripted rig with a clock of its own: it follows, gives way, and once lost lets the stage rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.config import HoldConfig
from focusd.daemon import hold as hold_module
from focusd.daemon.events import Event, EventBus
from focusd.daemon.hold import CHECK, FOLLOW, Hold
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.operations import RigOperations
from focusd.errors import (
    AmbiguousError,
    BusyError,
    CalibrationError,
    FocusdError,
    HardwareError,
    NoSampleError,
)
from focusd.protocol import states
from focusd.protocol.requests import HoldParams, MoveParams, RefocusParams
from focusd.protocol.results import MoveResult, RefocusResult
from focusd.protocol.states import Disengaged, HoldReport
from tests.daemon.scripted import ScriptedMicroscope, ScriptedScorer

pytestmark = pytest.mark.anyio


SOONEST_S = 4.0
"""Between the first two checks."""


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Holding:
    """A hold whose time the test lets pass."""

    hold: Hold
    jobs: Jobs
    clock: Clock
    events: list[Event]
    microscope: ScriptedMicroscope
    scorer: ScriptedScorer

    async def engage(self, client: str = "ann") -> HoldReport:
        return await self.hold.engage(HoldParams(client=client, position="A1", tags={"celsius": 37.0}))

    @property
    def state(self) -> states.Holding:
        """Of a hold that is engaged."""
        state = self.hold.state()
        assert isinstance(state, states.Holding)
        return state

    async def pass_s(self, seconds: float, drift_um_per_min: float = 0.0) -> None:
        """Let time pass and the sample drift; the hold does what it finds due."""
        end_s, start_s, start_um = self.clock.now_s + seconds, self.clock.now_s, self.scorer.focus_um
        while self.clock.now_s < end_s:
            pause_s = await self.hold.turn()
            self.clock.now_s = min(end_s, self.clock.now_s + max(pause_s, 0.05))
            self.scorer.focus_um = start_um + drift_um_per_min / 60 * (self.clock.now_s - start_s)

    @property
    def drift(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["topic"] == "drift"]

    @property
    def error_um(self) -> float:
        return self.microscope.z_um - self.scorer.focus_um


@asynccontextmanager
async def holding(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer, **config: Any
) -> AsyncIterator[Holding]:
    bus, clock = EventBus(), Clock()
    events: list[Event] = []
    await operations._rig.position_um()
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(bus, tasks, clock)
        hold = Hold(operations, bus, jobs, HoldConfig(**config), 10.0, clock)
        with bus.subscribed(events.append), bus.subscribed(hold._hear):
            yield Holding(hold, jobs, clock, events, microscope, scorer)
        await jobs.shutdown()


@pytest.fixture
async def held(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> AsyncIterator[Holding]:
    async with holding(calibrated, microscope, scorer) as held:
        yield held


async def test_a_drifting_sample_stays_in_focus_at_few_exposures(held: Holding) -> None:
    await held.engage()
    await held.pass_s(1200)
    await held.pass_s(3600, drift_um_per_min=1.0)
    assert abs(held.error_um) < 4.1
    assert held.state.state == "locked"
    assert held.state.exposures == len(held.microscope.snaps) < 150
    assert {e["kind"] for e in (x["data"] for x in held.events if x["topic"] == "job")} == {
        "hold-check",
        "hold-follow",
    }


async def test_each_estimate_is_told_with_its_cost_and_its_tags(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    first, second = [event for event in held.drift if event["source"] == "check"][:2]
    assert (first["source"], first["state"], second["state"]) == ("check", "acquiring", "locked")
    assert (second["position"], second["tags"], second["client"]) == ("A1", {"celsius": 37.0}, "ann")
    assert 4 <= second["exposures"] <= 6
    assert second["dose_ms"] == 10.0 * second["exposures"]
    assert second["z_um"] + second["dz_um"] == pytest.approx(second["focus_um"])
    assert second["sigma_um"] > 0
    assert second["velocity_um_per_min"] == pytest.approx(0, abs=1)


async def test_lost_it_lets_the_stage_rest_says_why_and_comes_back(held: Holding) -> None:
    await held.engage()
    await held.pass_s(300, drift_um_per_min=1.0)
    held.scorer.structure = 0.0
    await held.pass_s(2000, drift_um_per_min=1.0)
    lost = held.state
    rests_um = held.microscope.z_um
    assert lost.state == "lost"
    assert "holds nothing to focus on" in lost.reason
    since_lost = [d["z_um"] for d in held.drift if d["state"] == "lost"]
    assert set(since_lost) == {rests_um}, "it never chases"
    held.scorer.structure = 1.0
    await held.pass_s(1800)
    assert held.state.state == "locked"
    assert abs(held.error_um) < 4.1


async def test_a_sample_too_poor_for_its_usual_checks_is_held_all_the_same(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_module, "_CHECK_SIGMA", 1e-4)  # each check spends its budget
    await held.engage()
    await held.pass_s(600, drift_um_per_min=1.0)
    assert {d["state"] for d in held.drift[1:]} == {"locked"}
    assert abs(held.error_um) < 4.1


async def test_a_focus_out_of_reach_is_not_followed(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    before_um = held.microscope.z_um
    held.scorer.focus_um += 45.0
    await held.pass_s(1000)
    assert held.microscope.z_um == pytest.approx(before_um, abs=2.0)
    assert "a hold looks no further" in held.drift[-1]["reason"]


async def test_one_error_of_the_hardware_is_one_failed_check(held: Holding) -> None:
    def broken_once(_number: int) -> None:
        held.microscope.at_snap = lambda _number: None
        raise HardwareError("the lamp has flashed")

    await held.engage()
    await held.pass_s(60)
    held.microscope.at_snap = broken_once
    await held.pass_s(600, drift_um_per_min=1.0)
    failed = [d for d in held.drift if d["source"] == "failed"]
    assert [d["last_check"]["outcome"] for d in failed] == ["hardware_error"]
    assert "lost" not in {d["state"] for d in held.drift}
    assert held.state.state == "locked"
    assert abs(held.error_um) < 4.1


async def test_three_errors_lose_the_hold_ten_more_end_it(held: Holding) -> None:
    def broken(_number: int) -> None:
        raise HardwareError("no light")

    await held.engage()
    await held.pass_s(60)
    snaps = len(held.microscope.snaps)
    held.microscope.at_snap = broken
    await held.pass_s(20_000)
    failed = [d["state"] for d in held.drift if d["source"] == "failed"]
    assert "lost" not in failed[:2]
    assert failed[2:] == ["lost"] * 11
    state = held.state
    assert state.next_check is None
    assert "13 checks in a row have failed: release and hold again" in state.reason
    assert len(held.microscope.snaps) == snaps


async def test_a_latched_fault_ends_all_trying(held: Holding) -> None:
    def broken(_number: int) -> None:
        held.hold._operations._rig._devices.latch("the camera did not answer")  # type: ignore[attr-defined]
        raise HardwareError("the camera did not answer")

    await held.engage()
    await held.pass_s(60)
    held.microscope.at_snap = broken
    await held.pass_s(5000)
    assert held.state.state == "lost"
    assert len([d for d in held.drift if d["source"] == "failed"]) == 1


async def test_what_no_drift_can_be_loses_the_hold_at_once_with_its_reason_and_may_pass(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lying(*_: Any, **__: Any) -> RefocusResult:
        raise AmbiguousError("all frames are the same: the camera is frozen", suspect="camera")

    await held.engage()
    await held.pass_s(60)
    with monkeypatch.context() as patched:
        patched.setattr(held.hold._operations, "refocus", lying)
        while not any(d["source"] == "failed" for d in held.drift):
            await held.pass_s(10)
    failed = [d for d in held.drift if d["source"] == "failed"]
    assert [d["state"] for d in failed] == ["lost"]
    assert failed[0]["reason"] == "all frames are the same: the camera is frozen"
    await held.pass_s(600)
    assert held.state.state == "locked"


async def test_a_check_is_told_how_far_it_may_go(held: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any, float]] = []
    refocus = held.hold._operations.refocus

    async def watched(params: RefocusParams, report: Report, **given: Any) -> RefocusResult:
        asked.append((params.prior, given["within_um"], held.microscope.z_um))
        return await refocus(params, report, **given)

    monkeypatch.setattr(held.hold._operations, "refocus", watched)
    await held.engage()
    await held.pass_s(600, drift_um_per_min=6.0)
    assert asked[0][:2] == (None, (-27.0, 33.0)), "around where the stage stands"
    assert len(asked) > 5
    for prior, within_um, z_um in asked[1:]:
        assert within_um == pytest.approx((prior[0] - 30.0, prior[0] + 30.0))
        assert within_um[0] <= z_um <= within_um[1]


async def test_status_tells_what_has_happened_so_far(held: Holding) -> None:
    await held.engage()
    before = held.state
    assert (before.checks, before.moves, before.last_check) == (0, 0, None)
    assert before.reason == "no check has been made yet"
    seen: list[states.Holding] = []
    held.microscope.at_snap = lambda number: seen.append(held.state) if number == 2 else None
    await held.hold.turn()
    assert (seen[0].checks, seen[0].last_check) == (0, None), "one under way has not been made"
    after = held.state
    assert after.checks == 1
    assert after.last_check is not None
    assert after.last_check.outcome == "focused"
    assert after.moves >= 1, "the check has moved the stage to the focus"
    assert after.reason == "found once, to be confirmed by a second check"
    assert held.drift[-1]["next_check_s"] == pytest.approx(SOONEST_S, abs=0.5)
    assert (after.next_check or "") > after.last_check.time


async def test_it_says_locked_only_while_the_focus_is_known(held: Holding) -> None:
    await held.engage()
    await held.pass_s(300, drift_um_per_min=6.0)
    assert held.state.state == "locked"
    await held.jobs.acquire_lease("bob", 10_000.0, None)
    z_um = held.microscope.z_um
    await held.pass_s(600, drift_um_per_min=6.0)
    assert held.microscope.z_um == z_um
    state = held.state
    assert (state.state, state.reason) == ("acquiring", "too uncertain where the focus is")


@pytest.mark.parametrize("velocity", [0.0, 1.0, -6.0, 20.0])
async def test_it_stays_in_focus_at_any_drift_with_the_defaults(held: Holding, velocity: float) -> None:
    await held.engage()
    errors_um: list[float] = []
    for _ in range(40):
        await held.pass_s(10, drift_um_per_min=velocity)
        errors_um.append(abs(held.error_um))
    assert max(errors_um) <= held.drift[-1]["dof_um"] / 2
    assert held.state.state == "locked"


async def test_a_refocus_of_a_client_runs_in_between_and_the_hold_measures_anew(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)

    async def move(report: Report) -> MoveResult:
        return await held.hold._operations.move(MoveParams(z_um=20.0), report)

    job = held.jobs.start("move", move, "bob")
    await job.wait()
    state = held.state
    assert (state.state, state.reason) == (
        "acquiring",
        "a move job of bob has used the stage since the last check",
    )
    snaps = len(held.microscope.snaps)
    await held.pass_s(0.1)
    assert len(held.microscope.snaps) > snaps + 1, "it checks before it moves"


async def refocused(held: Holding, roi: tuple[int, int, int, int] | None = None) -> None:
    """Bob refocuses."""
    asked = RefocusParams(roi=roi)

    async def refocus(report: Report) -> RefocusResult:
        return await held.hold._operations.refocus(asked, report)

    job = held.jobs.start("refocus", refocus, "bob", params=asked)
    await job.wait()
    assert job.state == "succeeded", job.error


async def test_a_refocus_of_a_client_counts_as_a_check_and_is_not_measured_again(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    exposures, checks = held.state.exposures, held.state.checks
    await refocused(held)
    snaps = len(held.microscope.snaps)
    await held.pass_s(SOONEST_S - 1)
    assert len(held.microscope.snaps) == snaps, "no second dose"
    assert held.state.state == "locked"
    assert (held.state.exposures, held.state.checks) == (exposures, checks)
    last = held.drift[-1]
    assert (last["source"], last["state"]) == ("refocus", "locked")
    assert abs(last["focus_um"] - held.scorer.focus_um) < 1.0
    numbers = [event["seq"] for event in held.events]
    assert numbers == sorted(numbers)


async def test_a_refocus_that_finds_the_focus_elsewhere_is_confirmed_before_the_lock(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    held.scorer.focus_um += 15.0
    await refocused(held)
    snaps = len(held.microscope.snaps)
    await held.pass_s(0.1)
    state = held.state
    assert state.state == "acquiring"
    assert state.reason == "a refocus job of bob has found the focus, to be confirmed by a check"
    assert len(held.microscope.snaps) == snaps
    await held.pass_s(SOONEST_S + 1)
    assert held.state.state == "locked"
    assert abs(held.error_um) < 1.0


async def test_a_refocus_finds_a_lost_focus_again(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    for _ in range(3):
        held.hold._held.lock.failed(held.clock(), "an empty field")  # type: ignore[union-attr]
    lost = held.state
    assert lost.state == "lost"
    await refocused(held)
    await held.pass_s(SOONEST_S + 1)
    assert held.state.state == "locked"


async def test_a_refocus_of_another_region_tells_nothing_of_the_held_one(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    await refocused(held, roi=(0, 0, 128, 128))
    snaps = len(held.microscope.snaps)
    await held.pass_s(0.1)
    assert len(held.microscope.snaps) > snaps
    assert not [d for d in held.drift if d["source"] == "refocus"]


async def test_a_hold_of_the_last_run_is_told_until_somebody_takes_notice(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    async with holding(calibrated, microscope, scorer) as held:
        before = len(microscope.snaps), len(microscope.moves)
        held.hold._interrupted = "a hold of ann at A1"
        await held.pass_s(300)
        state = held.hold.state()
        assert isinstance(state, Disengaged)
        assert state.reason
        assert state.reason.startswith("a hold of ann at A1 ended with the last run of focusd")
        assert (len(microscope.snaps), len(microscope.moves)) == before, "nothing moves by itself"
        await held.engage()
        await held.hold.release()
        assert held.hold.state() == Disengaged(state="disengaged")


async def test_a_check_gives_way_to_a_client_and_that_is_no_failure(held: Holding) -> None:
    await held.engage()
    started, loop = anyio.Event(), asyncio.get_running_loop()

    async def refocus(_report: Report) -> MoveResult:
        return MoveResult(z_start_um=0.0, z_um=0.0)

    held.microscope.at_snap = lambda number: number == 2 and loop.call_soon_threadsafe(started.set)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(held.hold.turn)
        await started.wait()
        job = held.jobs.start("refocus", refocus, "bob")
        await job.wait()
    assert job.state == "succeeded"
    ends = [e["data"]["state"] for e in held.events if e["topic"] == "job" and e["data"]["kind"] == CHECK]
    assert ends in (["running", "cancelled"], ["running", "succeeded"])
    assert not [d for d in held.drift if d["source"] == "failed"]


async def test_under_a_lease_it_neither_checks_nor_moves(held: Holding) -> None:
    await held.engage()
    await held.pass_s(600, drift_um_per_min=1.0)
    granted = await held.jobs.acquire_lease("bob", 600.0, None)
    snaps, moves = len(held.microscope.snaps), len(held.microscope.moves)
    await held.pass_s(599, drift_um_per_min=1.0)
    assert (len(held.microscope.snaps), len(held.microscope.moves)) == (snaps, moves)
    held.jobs.lease.release(granted.lease_id)
    await held.pass_s(60)
    assert len(held.microscope.moves) > moves
    assert abs(held.error_um) < 4.1


async def test_frames_of_the_acquisition_bring_a_check_forward_or_put_it_off(held: Holding) -> None:
    await held.engage()
    await held.pass_s(300)
    checks = held.state.checks
    assert held.hold.saw(5.0, None, {"frame": "1"})
    assert held.drift[-1]["tags"] == {"celsius": 37.0, "frame": "1"}
    await held.pass_s(SOONEST_S)
    assert held.state.checks == checks
    assert held.hold.saw(4.0, None, {})
    assert held.drift[-1]["dropped"] is True
    await held.pass_s(1)
    assert held.state.checks == checks + 1


async def test_frames_from_another_plane_tell_it_nothing(held: Holding) -> None:
    assert not held.hold.saw(5.0, 0.0, {}), "nothing is held"
    await held.engage()
    await held.pass_s(300)
    assert not held.hold.saw(5.0, held.microscope.z_um + 10.0, {})
    assert held.hold.saw(5.0, held.microscope.z_um, {})


async def test_it_is_held_once_and_released_with_its_bill(held: Holding) -> None:
    assert (await held.hold.release()) == Disengaged(state="disengaged")
    await held.engage()
    assert (await held.engage()).state == "acquiring", "asked again it goes on"
    with pytest.raises(BusyError, match="held already for ann; release it first"):
        await held.engage(client="bob")
    await held.pass_s(60)
    bill = await held.hold.release()
    assert isinstance(bill, states.Holding)
    snaps = len(held.microscope.snaps)
    assert (bill.state, bill.exposures) == ("disengaged", snaps)
    await held.pass_s(5000)
    assert len(held.microscope.snaps) == snaps


async def test_without_a_calibration_nothing_is_held(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    async with holding(operations, microscope, scorer) as held:
        with pytest.raises(CalibrationError, match="focusctl calibrate"):
            await held.engage()
        assert held.hold.state() == Disengaged(state="disengaged")


@dataclass
class Scripted:
    """Operations whose outcomes a test draws; they take a second, and the sample drifts."""

    clock: Clock
    outcomes: list[FocusdError | None]
    velocity_um_per_s: float
    z_um: float = 0.0
    fault: str | None = None
    went: list[float] = field(default_factory=list)
    windows: list[tuple[float, float] | None] = field(default_factory=list)

    @property
    def focus_um(self) -> float:
        return 2.0 + self.velocity_um_per_s * self.clock.now_s

    async def refocus(
        self,
        asked: RefocusParams,
        report: Report,
        *,
        usable_um: float | None = None,
        within_um: tuple[float, float] | None = None,
        is_thin: bool = False,
    ) -> RefocusResult:
        self.windows.append(within_um)
        start_um, outcome = self.z_um, self.outcomes.pop(0) if self.outcomes else None
        for z_um in (start_um, self.focus_um):
            self._go(z_um)
            report("focus.progress", {"z_um": z_um})
            self.clock.now_s += 0.5
        if outcome is None and within_um is not None and not within_um[0] <= self.focus_um <= within_um[1]:
            outcome = NoSampleError("nothing within reach")
        if outcome is not None:
            self._go(start_um)
            raise outcome
        return RefocusResult.model_construct(
            z_start_um=start_um, z_found_um=self.z_um, sigma_um=0.3, exposures=2
        )

    async def move(self, asked: MoveParams, report: Report) -> MoveResult:
        start_um = self.z_um
        self._go(asked.z_um)
        return MoveResult(z_start_um=start_um, z_um=asked.z_um)

    async def depth_of_field_um(self) -> float:
        return 8.3

    def _go(self, z_um: float) -> None:
        if abs(z_um - self.z_um) > 0.01:
            self.went.append(z_um)
        self.z_um = z_um


outcomes = st.sampled_from(
    [
        None,
        None,
        None,
        HardwareError("a flash"),
        NoSampleError("empty"),
        AmbiguousError("frozen", suspect="camera"),
    ]
)


@settings(max_examples=25, deadline=None)
@given(script=st.lists(outcomes, max_size=30), velocity=st.floats(-20.0, 20.0))
def test_counters_state_and_windows_agree_with_what_has_happened(
    script: list[FocusdError | None], velocity: float
) -> None:
    async def holds() -> None:
        clock, bus = Clock(), EventBus()
        events: list[Event] = []
        operations = Scripted(clock, list(script), velocity / 60)
        async with anyio.create_task_group() as tasks:
            jobs = Jobs(bus, tasks, clock)
            hold = Hold(operations, bus, jobs, HoldConfig(), 10.0, clock)
            with bus.subscribed(events.append):
                await hold.engage(HoldParams(client="ann"))
                while clock.now_s < 1800:
                    clock.now_s += await hold.turn()
                    state = hold.state()
                    assert isinstance(state, states.Holding)
                    kinds = [e["data"]["kind"] for e in events if e["topic"] == "job" and _has_ended(e)]
                    assert state.checks == kinds.count(CHECK) == len(operations.windows)
                    assert state.moves == len(operations.went)
                    assert (state.last_check is None) == (state.checks == 0)
                    if state.state == "locked":
                        assert state.reason == ""
                assert len(kinds) == kinds.count(CHECK) + kinds.count(FOLLOW)
            await jobs.shutdown()
        for window in operations.windows:
            assert window is None or window[1] - window[0] == pytest.approx(60.0)

    anyio.run(holds)


def _has_ended(event: Event) -> bool:
    return event["data"]["state"] in ("succeeded", "failed")
