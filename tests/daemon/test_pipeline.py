"""The pipeline: what runs at once, how many frames live, and that whatever ends it leaves the stage where it began."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from focusd.daemon.events import EventBus
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.operations import RigOperations
from focusd.errors import CancelledJobError, FocusdError, HardwareError, ScoringError
from focusd.focus import calibrating, pupil
from focusd.focus.frame import Frame
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.search import PosteriorSearch
from focusd.optics.bands import BlockSpectra
from focusd.protocol.requests import CalibrateParams, MoveParams
from focusd.protocol.results import RefocusResult
from focusd.protocol.states import Ended
from focusd.scoring.backends import Backends, CpuBackend
from focusd.scoring.pace import REMEMBERED
from focusd.scoring.spectra import Region
from tests.daemon.scripted import (
    HOME_UM,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
    refocus,
)
from tests.daemon.steps import stepping

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
FEW_TILES = np.array([[True, False, False], [False, False, True]])

Operation = Callable[[RigOperations, Report], Coroutine[Any, Any, Ended]]


def short_stack(operations: RigOperations, report: Report) -> Coroutine[Any, Any, Ended]:
    return operations.calibrate(CalibrateParams(range_um=30, step_um=10), report)


def published(operations: RigOperations, report: Report) -> Coroutine[Any, Any, Ended]:
    return refocus(operations, report=report)


def posterior(operations: RigOperations, report: Report) -> Coroutine[Any, Any, RefocusResult]:
    return refocus(operations, strategy="posterior", report=report)


class Gate:
    """Holds a call of the scorer until it is opened."""

    def __init__(self, scorer: ScriptedScorer, at: int) -> None:
        self._open = threading.Event()
        self._calls = 0
        self._at = at
        self._score = scorer.score
        scorer.score = self._hold  # type: ignore[method-assign, assignment]

    def _hold(self, *given: Any) -> Measurement:
        self._calls += 1
        if self._calls == self._at:
            assert self._open.wait(PATIENCE_S)
        return self._score(*given)

    def open(self) -> None:
        self._open.set()


async def reached(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  the devices' threads know no events of the loop
            await anyio.sleep(0.001)


async def test_the_next_planes_are_exposed_while_one_is_scored_and_no_more_than_fit(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    gate = Gate(scorer, at=3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(short_stack, operations, Reports())
        # After a look at the field: one plane is scored, one held, one waits in the stream and one for it; the stage
        # stands where the next will be.
        await reached(lambda: (len(microscope.snaps), len(microscope.moves)) == (5, 5))
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert (len(microscope.snaps), len(microscope.moves)) == (5, 5)
        gate.open()
    assert len(microscope.snaps) == 8 + calibrating.TWICE + calibrating.REPEATED


@pytest.mark.parametrize("operation", [published, posterior])
async def test_the_opening_planes_are_exposed_while_the_one_before_is_scored(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    operation: Operation,
) -> None:
    gate = Gate(scorer, at=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(operation, calibrated, Reports())
        await reached(lambda: len(microscope.snaps) == 2)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(microscope.snaps) == 2, "what comes next rests on the score"
        gate.open()
    assert microscope.snaps[1] == microscope.moves[0]
    assert microscope.moves.count(microscope.snaps[1]) == 1


async def test_the_focus_is_moved_to_as_soon_as_the_spectra_tell_it_and_exposed_once_the_score_agrees(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.focus_um = 9.0
    gate = Gate(scorer, at=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(posterior, calibrated, Reports())
        await reached(lambda: any(abs(z_um - 9.0) < 1.0 for z_um in microscope.moves))
        guess_um = microscope.moves[-1]
        assert len(microscope.snaps) == 2
        gate.open()
    assert microscope.snaps[2] == guess_um, "so near that it is not sent there again"


async def test_a_quarter_of_the_spectra_is_enough_to_move(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer.focus_um = 9.0
    released, spectra = threading.Event(), scorer.spectra

    def held(pixels: np.ndarray, region: Region | None = None, **which: Any) -> BlockSpectra:
        if which.get("known"):
            assert released.wait(PATIENCE_S)
        return spectra(pixels, region, **which)

    monkeypatch.setattr(scorer, "spectra", held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(posterior, calibrated, Reports())
        await reached(lambda: any(abs(z_um - 9.0) < 1.0 for z_um in microscope.moves))
        assert len(microscope.snaps) == 2
        released.set()


@pytest.mark.parametrize("wrong_um", [-60.0, 90.0])
async def test_a_wrong_guess_is_never_exposed_and_changes_no_answer(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    monkeypatch: pytest.MonkeyPatch,
    wrong_um: float,
) -> None:
    scorer.focus_um = 9.0
    right = await posterior(calibrated, Reports())
    await calibrated.move(MoveParams(z_um=HOME_UM), Reports())
    exposed_um = microscope.snaps.copy()
    monkeypatch.setattr(PosteriorSearch, "likely_um", lambda *_: wrong_um)
    misled = await posterior(calibrated, Reports())
    assert wrong_um in microscope.moves
    assert microscope.snaps[len(exposed_um) :] == pytest.approx(exposed_um, abs=0.1)
    assert misled.z_found_um == microscope.z_um == pytest.approx(right.z_found_um, abs=0.1)


async def test_after_the_first_frame_only_the_tiles_that_tell_are_scored(
    calibrated: RigOperations, scorer: ScriptedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        PosteriorSearch, "telling_tiles", lambda search: FEW_TILES if search.measurements else None
    )
    scorer.focus_um = 9.0
    scorer.asked.clear()
    result = await posterior(calibrated, Reports())
    assert result.z_found_um == pytest.approx(9.0, abs=2 * result.sigma_um)
    assert scorer.asked[0] is None
    assert all(only is FEW_TILES for only in scorer.asked[1:])
    assert all(probe.b is not None for probe in result.probes)


@pytest.mark.parametrize("telling", [None, FEW_TILES])
async def test_the_pupil_is_fitted_while_the_last_planes_are_taken(
    operations: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    monkeypatch: pytest.MonkeyPatch,
    telling: Mask | None,
) -> None:
    """Of planes that are scored on all tiles, and on few after the first."""
    begun, fit = threading.Event(), pupil._fit_pupil
    starts = []

    def counted(*given: Any) -> tuple[float, float, pupil.PupilModel, float]:
        starts.append(given[-1])
        begun.set()
        return fit(*given)

    monkeypatch.setattr(pupil, "_fit_pupil", counted)
    monkeypatch.setattr(calibrating, "telling_tiles", lambda *_: telling)
    microscope.at_snap = lambda number: number == 76 and (begun.wait(PATIENCE_S) or pytest.fail("not begun"))
    await calibrate_at_focus(operations)
    assert len(microscope.snaps) == 82 + calibrating.TWICE + calibrating.REPEATED
    assert len(starts) == len(set(starts)), "and not once more at the end"
    assert all(only is None for only in scorer.asked[: REMEMBERED + 1]), "also of the look at the field"
    assert all(only is telling for only in scorer.asked[REMEMBERED + 1 :])


async def test_a_fit_ahead_that_fails_leaves_the_fit_to_the_end(
    operations: RigOperations, microscope: ScriptedMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("too few planes")

    expected = await calibrate_at_focus(operations)
    monkeypatch.setattr(calibrating, "pupil_ahead", fails)
    assert (await calibrate_at_focus(operations)).z_focus_um == pytest.approx(expected.z_focus_um, abs=0.05)


async def test_few_frames_are_alive_at_any_time(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watched() -> Frame:
        nonlocal most
        frame = snap()
        alive.append(weakref.ref(frame.pixels))
        most = max(most, sum(each() is not None for each in alive))
        return frame

    snap, microscope.snap = microscope.snap, watched  # type: ignore[method-assign]
    await calibrate_at_focus(operations)
    gc.collect()
    assert len(alive) == 82 + calibrating.TWICE + calibrating.REPEATED
    assert most <= 5, "exposing, waiting for the stream, in the stream, being scored, and the one before"
    assert sum(each() is not None for each in alive) <= 1, "the device's thread remembers its last call"


@pytest.mark.parametrize("operation", [short_stack, published, posterior])
async def test_cancelled_at_any_await_the_stage_is_back_and_the_daemon_serves(
    calibrated: RigOperations, microscope: ScriptedMicroscope, operation: Operation
) -> None:
    bus = EventBus()
    cancelled = 0
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(bus, tasks)
        for chosen in range(1, 10_000):
            awaits = 0

            def tell(chosen: int = chosen) -> None:
                nonlocal awaits
                awaits += 1
                if awaits == chosen and jobs.running:
                    jobs.cancel(jobs.running.id)

            with stepping(tell):
                job = jobs.start("any", lambda report: operation(calibrated, report))
                await job.wait()
            if job.state == "cancelled":
                cancelled += 1
                assert job.error is not None
                assert job.error.data.model_dump().get("stage_z_um", HOME_UM) == microscope.z_um == HOME_UM, (
                    chosen
                )
            else:  # not, or too late
                assert job.result is not None, job.error
                assert job.result.model_dump().get("z_found_um", HOME_UM) == microscope.z_um, chosen
                await calibrated.move(MoveParams(z_um=HOME_UM), Reports())
            if awaits < chosen:
                break
        assert cancelled > 20
        again = jobs.start("any", lambda report: published(calibrated, report))
        await again.wait()
    assert again.state == "succeeded"


def fails(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    def at_snap(number: int) -> None:
        if number == 2:
            raise HardwareError("no light")

    microscope.at_snap = at_snap


def score_raises(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    def blur(defocus_um: np.ndarray) -> np.ndarray:
        if len(scorer.regions) == 2:
            raise ScoringError("out of order")
        return np.asarray(curve(defocus_um))

    curve, scorer.blur = scorer.blur, blur


def score_is_nan(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.blur = lambda defocus_um: np.full_like(defocus_um, np.nan)


def score_hangs(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    """As a real scorer's call does that never returns, with less patience."""
    never = threading.Event()
    backends = Backends(CpuBackend(scorer.model.network), deadline_s=0.3)
    scorer.score = lambda *_: backends.run(lambda _: never.wait())  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("operation", [short_stack, published, posterior])
@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (fails, HardwareError, "no light"),
        (score_raises, ScoringError, "out of order"),
        (score_is_nan, ScoringError, "no numbers"),
        (score_hangs, ScoringError, "not answered"),
    ],
)
async def test_what_fails_on_the_way_ends_all_stages_and_the_stage_is_back(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    harm: Callable[[ScriptedMicroscope, ScriptedScorer], None],
    error: type[FocusdError],
    message: str,
    operation: Operation,
) -> None:
    scorer.regions.clear()
    harm(microscope, scorer)

    with pytest.raises(error, match=message) as raised:
        await operation(calibrated, Reports())

    assert microscope.z_um == raised.value.data["stage_z_um"] == HOME_UM
    assert len(microscope.snaps) <= 5
    assert (await calibrated.move(MoveParams(z_um=5.0), Reports())).z_um == 5


@pytest.mark.parametrize("operation", [short_stack, published, posterior])
@pytest.mark.parametrize("device", ["camera", "stage"])
async def test_a_device_that_hangs_on_the_way_is_left_alone_and_the_last_z_is_told(
    microscope: ScriptedMicroscope, scorer: ScriptedScorer, tmp_path: Path, operation: Operation, device: str
) -> None:
    released = threading.Event()
    async with operations_of(config_of(tmp_path), microscope, scorer) as operations:
        await calibrate_at_focus(operations)
    microscope.snaps.clear()
    config = config_of(tmp_path, stage={"timeout_s": 0.3})
    async with operations_of(config, microscope, scorer) as operations:
        if device == "camera":
            microscope.at_snap = lambda number: number == 2 and released.wait(PATIENCE_S)
        else:
            microscope.at_move = lambda z_um: len(microscope.snaps) == 1 and released.wait(PATIENCE_S)
        with pytest.raises(HardwareError, match=f"the {device} did not answer") as raised:
            await operation(operations, Reports())
        state = await operations.state()
        assert raised.value.data["stage_z_um"] == state.z_um
        assert device in (state.fault or "")
        left = (len(microscope.moves), len(microscope.snaps))
        with pytest.raises(HardwareError, match="an operator has to check it"):
            await operation(operations, Reports())
        assert (len(microscope.moves), len(microscope.snaps)) == left
        released.set()


async def test_an_exposure_under_way_when_a_score_fails_counts_in_the_dose(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    lit, released = threading.Event(), threading.Event()

    def at_snap(number: int) -> None:
        if number == 2:
            lit.set()
            assert released.wait(PATIENCE_S)

    def score(*_: Any) -> Measurement:
        assert lit.wait(PATIENCE_S)
        raise ScoringError("out of order")

    microscope.at_snap, scorer.score = at_snap, score  # type: ignore[method-assign, assignment]
    with pytest.raises(ScoringError) as raised:
        await posterior(calibrated, Reports())
    released.set()
    assert raised.value.data["dose_ms"] == 2
    assert microscope.z_um == HOME_UM


async def test_a_cancelled_opening_is_stopped_and_taken_back(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    gate = Gate(scorer, at=1)
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope, pytest.raises(CancelledJobError):
            await published(calibrated, Reports())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await reached(lambda: microscope.moves != [])
        scope.cancel()
        gate.open()
    assert microscope.z_um == HOME_UM
    assert len(microscope.snaps) <= 2
