"""The hold on a scripted rig with a clock of its own: it follows, gives way, and once lost lets the stage rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from focusd.config import HoldConfig
from focusd.errors import BusyError, CalibrationError, HardwareError
from focusd.service import hold as hold_module
from focusd.service.events import Event, EventBus
from focusd.service.hold import CHECK, Hold
from focusd.service.jobs import Jobs, Report
from focusd.service.operations import RigOperations
from tests.service.scripted import ScriptedMicroscope, ScriptedScorer

pytestmark = pytest.mark.anyio


INTERVAL_S = HoldConfig().min_interval_s
"""The smallest between two checks."""


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

    async def engage(self, **given: Any) -> dict[str, Any]:
        asked: dict[str, Any] = {"client": "ann", "roi": None, "position": "A1", "tags": {"celsius": 37.0}}
        return await self.hold.engage(**(asked | given))

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
    assert held.hold.state()["state"] == "locked"
    assert held.hold.state()["exposures"] == len(held.microscope.snaps) < 150
    assert {e["kind"] for e in (x["data"] for x in held.events if x["topic"] == "job")} == {
        "hold-check",
        "hold-follow",
    }


async def test_each_estimate_is_told_with_its_cost_and_its_tags(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    first, second = held.drift[:2]
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
    lost = held.hold.state()
    rests_um = held.microscope.z_um
    assert lost["state"] == "lost"
    assert "holds nothing to focus on" in lost["reason"]
    since_lost = [d["z_um"] for d in held.drift if d["state"] == "lost"]
    assert set(since_lost) == {rests_um}, "it never chases"
    held.scorer.structure = 1.0
    await held.pass_s(1800)
    assert held.hold.state()["state"] == "locked"
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
    assert "out of the hold's reach" in held.drift[-1]["reason"]


async def test_a_fault_of_the_hardware_ends_all_trying(held: Holding) -> None:
    def broken(_number: int) -> None:
        raise HardwareError("no light")

    await held.engage()
    await held.pass_s(60)
    snaps = len(held.microscope.snaps)
    held.microscope.at_snap = broken
    await held.pass_s(5000)
    assert held.hold.state()["state"] == "lost"
    assert len([d for d in held.drift if d["source"] == "failed"]) == 1
    assert len(held.microscope.snaps) == snaps


async def test_a_refocus_of_a_client_runs_in_between_and_the_hold_measures_anew(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)

    async def move(report: Report) -> dict[str, Any]:
        return await held.hold._operations.move(z_um=20.0, report=report)

    job = held.jobs.start("move", move, "bob")
    await job.wait()
    state = held.hold.state()
    assert (state["state"], state["reason"]) == (
        "acquiring",
        "a move job of bob has used the stage since the last check",
    )
    snaps = len(held.microscope.snaps)
    await held.pass_s(0.1)
    assert len(held.microscope.snaps) > snaps + 1, "it checks before it moves"


async def refocused(held: Holding, roi: tuple[int, int, int, int] | None = None) -> None:
    """Bob refocuses."""
    asked: dict[str, Any] = {"roi": roi, "strategy": None, "max_exposures": None}

    async def refocus(report: Report) -> dict[str, Any]:
        return await held.hold._operations.refocus(**asked, target_um=None, report=report)

    job = held.jobs.start("refocus", refocus, "bob", params=asked)
    await job.wait()
    assert job.state == "succeeded", job.error


async def test_a_refocus_of_a_client_counts_as_a_check_and_is_not_measured_again(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    exposures, checks = held.hold.state()["exposures"], held.hold.state()["checks"]
    await refocused(held)
    snaps = len(held.microscope.snaps)
    await held.pass_s(INTERVAL_S - 1)
    assert len(held.microscope.snaps) == snaps, "no second dose"
    assert held.hold.state()["state"] == "locked"
    assert (held.hold.state()["exposures"], held.hold.state()["checks"]) == (exposures, checks)
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
    state = held.hold.state()
    assert state["state"] == "acquiring"
    assert state["reason"] == "a refocus job of bob has found the focus, to be confirmed"
    assert len(held.microscope.snaps) == snaps
    await held.pass_s(INTERVAL_S + 1)
    assert held.hold.state()["state"] == "locked"
    assert abs(held.error_um) < 1.0


async def test_a_refocus_finds_a_lost_focus_again(held: Holding) -> None:
    await held.engage()
    await held.pass_s(60)
    for _ in range(3):
        held.hold._held.lock.failed(held.clock(), "an empty field")  # type: ignore[union-attr]
    assert held.hold.state()["state"] == "lost"
    await refocused(held)
    await held.pass_s(INTERVAL_S + 1)
    assert held.hold.state()["state"] == "locked"


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
        assert state["state"] == "disengaged"
        assert state["reason"].startswith("a hold of ann at A1 ended with the last run of focusd")
        assert (len(microscope.snaps), len(microscope.moves)) == before, "nothing moves by itself"
        await held.engage()
        await held.hold.release()
        assert held.hold.state() == {"state": "disengaged"}


async def test_a_check_gives_way_to_a_client_and_that_is_no_failure(held: Holding) -> None:
    await held.engage()
    started, loop = anyio.Event(), asyncio.get_running_loop()

    async def refocus(_report: Report) -> dict[str, Any]:
        return {"z_found_um": 0.0, "sigma_um": 0.1}

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
    held.jobs.lease.release(granted["lease_id"])
    await held.pass_s(60)
    assert len(held.microscope.moves) > moves
    assert abs(held.error_um) < 4.1


async def test_frames_of_the_acquisition_bring_a_check_forward_or_put_it_off(held: Holding) -> None:
    await held.engage()
    await held.pass_s(300)
    checks = held.hold.state()["checks"]
    assert held.hold.saw(5.0, None, {"frame": "1"})
    assert held.drift[-1]["tags"] == {"celsius": 37.0, "frame": "1"}
    await held.pass_s(INTERVAL_S)
    assert held.hold.state()["checks"] == checks
    assert held.hold.saw(4.0, None, {})
    assert held.drift[-1]["dropped"] is True
    await held.pass_s(1)
    assert held.hold.state()["checks"] == checks + 1


async def test_frames_from_another_plane_tell_it_nothing(held: Holding) -> None:
    assert not held.hold.saw(5.0, 0.0, {}), "nothing is held"
    await held.engage()
    await held.pass_s(300)
    assert not held.hold.saw(5.0, held.microscope.z_um + 10.0, {})
    assert held.hold.saw(5.0, held.microscope.z_um, {})


async def test_it_is_held_once_and_released_with_its_bill(held: Holding) -> None:
    assert (await held.hold.release()) == {"state": "disengaged"}
    await held.engage()
    assert (await held.engage())["state"] == "acquiring", "asked again it goes on"
    with pytest.raises(BusyError, match="held already for ann; release it first"):
        await held.engage(client="bob")
    await held.pass_s(60)
    bill = await held.hold.release()
    snaps = len(held.microscope.snaps)
    assert (bill["state"], bill["exposures"]) == ("disengaged", snaps)
    await held.pass_s(5000)
    assert len(held.microscope.snaps) == snaps


async def test_without_a_calibration_nothing_is_held(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    async with holding(operations, microscope, scorer) as held:
        with pytest.raises(CalibrationError, match="focusctl calibrate"):
            await held.engage()
        assert held.hold.state() == {"state": "disengaged"}
