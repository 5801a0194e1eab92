"""The bench of lying hardware can tell right from wrong, whatever the product makes of the lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from bench import lies, lying
from bench.drifting import Clock
from bench.lies import HONEST, KINDS, Eye, Lie, LyingMicroscope
from bench.lying import MODES, Run, run_once, summarised
from focusd.daemon.operation import operation_on
from focusd.daemon.operations import RigOperations
from focusd.errors import HardwareError, NoConvergenceError
from focusd.protocol.requests import RefocusParams
from focusd.protocol.results import RefocusResult


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lying")
    lying.calibrated(folder)
    return folder


@pytest.fixture
def eye(folder: Path) -> Eye:
    eye = lying._eye(folder)
    eye.lay("gravel", 1, 0.0)
    return eye


def lying_one(eye: Eye, lie: Lie) -> LyingMicroscope:
    microscope = LyingMicroscope(eye, Clock(), 10.0, "camera")
    microscope.begin(lie)
    return microscope


@pytest.mark.parametrize(
    ("stage", "truth_um"),
    [
        (lies.Stage(), (20.0, 15.0)),
        (lies.Scaled(0.5), (15.0, 12.5)),
        (lies.Stuck(1), (20.0, 20.0)),
        (lies.Creeping(4.0, 0.01, arrives=False), (24.0, 11.0)),
        (lies.Creeping(4.0, 1e9, arrives=True), (16.0, 19.0)),
        (lies.Loose(3.0), (18.5, 16.5)),
        (lies.OneMoveLate(), (10.0, 20.0)),
        (lies.Gridded(5.0, 1.0), (21.0, 16.0)),
        (lies.Miscounting(Random(1), 0.0), (20.0, 15.0)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, lies.Stage) else "",
)
def test_a_stage_stands_elsewhere_than_it_says(
    eye: Eye, stage: lies.Stage, truth_um: tuple[float, ...]
) -> None:
    microscope = lying_one(eye, Lie(stage=stage))
    for asked_um, true_um in zip((20.0, 15.0), truth_um, strict=True):
        microscope.move_to(asked_um)
        assert microscope.position_um() == asked_um
        assert microscope.error_um() == pytest.approx(true_um, abs=0.01)
    assert microscope.asked_um == [20.0, 15.0]


def test_moves_are_dropped_or_doubled(eye: Eye) -> None:
    microscope = lying_one(eye, Lie(stage=lies.Miscounting(Random(1), 1.0)))
    microscope.move_to(11.0)
    assert microscope.error_um() in (10.0, 12.0)


def test_a_read_back_that_lags_comes_in_the_end(eye: Eye) -> None:
    microscope = lying_one(eye, Lie(stage=lies.SlowToRead(1.0)))
    microscope.move_to(20.0)
    assert 10.0 < microscope.position_um() < 12.0
    assert microscope.error_um() == 20.0
    microscope._clock.now_s += 60.0
    assert microscope.position_um() == pytest.approx(20.0)


def test_frozen_frames_are_the_same_bit_for_bit_and_frozen_planes_are_not(eye: Eye) -> None:
    for camera, alike in ((lies.Frozen(1), True), (lies.FrozenPlane(1), False)):
        microscope = lying_one(eye, Lie(camera=camera))
        frames = []
        for z_um in (0.0, 20.0, 40.0):
            microscope.move_to(z_um)
            frames.append(microscope.snap())
        assert [frame.z_um for frame in frames] == [0.0, 20.0, 40.0]
        assert [frame.sequence for frame in frames] == [1, 2, 3]
        assert bool((frames[2].pixels == frames[0].pixels).all()) == alike
        spread = [float(np.std(frame.pixels)) for frame in frames]
        assert spread[2] == pytest.approx(spread[0], rel=0.02)


def test_a_stale_camera_shows_what_was_there_before(eye: Eye) -> None:
    microscope = lying_one(eye, Lie(camera=lies.Stale(1, 1.0, Random(1))))
    seen = []
    for z_um in (0.0, 40.0, 40.0):
        microscope.move_to(z_um)
        seen.append(float(np.std(microscope.snap().pixels)))
    assert seen[1] > seen[0] > seen[2], "10 µm off, in focus, 40 µm off"


def test_a_field_that_shifts_moves_its_content(eye: Eye) -> None:
    microscope = lying_one(eye, Lie(camera=lies.Shifting(0, 40)))
    first, second = (microscope.snap().pixels[100:-100].astype(float) for _ in range(2))
    moved, still = (
        np.corrcoef(a.ravel(), first[:, :-40].ravel())[0, 1] for a in (second[:, 40:], second[:, :-40])
    )
    assert moved > 0.9 > still


def test_light_and_objective_change(eye: Eye) -> None:
    bright = lying_one(eye, Lie(camera=lies.Lit(lambda count: 2.0 if count == 1 else 1.0)))
    means = [float(bright.snap().pixels.mean()) for _ in range(3)]
    assert means[1] == pytest.approx(2 * means[0], rel=0.1)
    assert means[2] == pytest.approx(means[0], rel=0.02)
    usual, small_na = float(np.std(bright.snap().pixels)), Lie(camera=lies.OtherObjective(10.0, 0.15))
    assert np.std(lying_one(eye, small_na).snap().pixels) > 1.1 * usual, "less blurred at 10 µm"


def test_hardware_fails_once(eye: Eye) -> None:
    microscope = lying_one(eye, Lie(stage=lies.FailingStage(1), camera=lies.FailingCamera(0)))
    microscope.move_to(1.0)
    for fails in (lambda: microscope.move_to(2.0), microscope.snap):
        with pytest.raises(HardwareError):
            fails()
        fails()


@pytest.mark.parametrize("mode", MODES)
def test_on_honest_hardware_the_product_is_right(folder: Path, mode: str) -> None:
    runs = run_once(folder, HONEST, mode, 3)
    assert runs
    for run in runs:
        assert run.claims, run
        assert (run.is_beyond_sigma, run.is_beyond_depth, run.beyond_reach) == (False, False, False), run
        assert 2 <= run.exposures <= 8


Refocus = Callable[..., Any]


def naive(goes_um: float = 0.0, fails: bool = False) -> Refocus:
    """A refocus that knows where the focus is, believes its stage, and looks nowhere; it may go far away before."""

    async def refocus(self: lying._Watched, _asked: RefocusParams, _report: Any, **_: Any) -> RefocusResult:
        async with operation_on(self._rig) as operation:
            operation.leave()
            focus_um = self.microscope._eye.focus_um
            if goes_um:
                await self._rig.move_to(focus_um + goes_um)
            if fails:
                raise NoConvergenceError("it sees nothing")
            z_um = await self._rig.move_to(focus_um)
        return RefocusResult.model_construct(
            outcome="focused",
            focus_um=focus_um,
            z_found_um=z_um,
            z_start_um=operation.start_um,
            sigma_um=0.1,
            exposures=0,
        )

    return refocus


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "is_wrong"), [("stage moves × 0.5", True), (HONEST, False)])
def test_who_believes_a_lying_stage_is_counted_as_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, kind: str, is_wrong: bool
) -> None:
    monkeypatch.setattr(RigOperations, "refocus", naive())
    runs = [run for seed in (1, 2, 5) for run in run_once(folder, kind, mode, seed)]
    assert all(run.claims for run in runs)
    assert any(run.is_beyond_sigma for run in runs) == is_wrong
    if mode == "cold":
        assert any(run.is_beyond_depth for run in runs) == is_wrong
    (row,) = summarised(runs)
    assert (row["wrong_3_sigma"] > 0, row["n"], row["refusals"]) == (is_wrong, len(runs), {})


def test_a_check_that_goes_too_far_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for goes_um, is_beyond in ((50.0, True), (15.0, False)):
        monkeypatch.setattr(RigOperations, "refocus", naive(goes_um))
        runs = run_once(folder, HONEST, "hold", 1)
        assert all(run.beyond_reach == is_beyond for run in runs)
        assert min(run.farthest_um for run in runs) > goes_um - 12
    assert not any(run.beyond_reach for run in run_once(folder, HONEST, "cold", 1))


def test_an_error_is_no_claim_unless_the_hold_says_locked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RigOperations, "refocus", naive(fails=True))
    (run,) = run_once(folder, "stage moves × 0", "cold", 1)
    assert (run.outcome, run.message, run.claims) == ("no_convergence", "it sees nothing", False)
    assert not run.is_beyond_depth
    assert abs(run.error_um) > run.dof_um / 2
    locked = replace(run, claims=True, sigma_um=100.0)
    assert (locked.is_beyond_depth, locked.is_beyond_sigma) == (True, False)
    assert (run.is_locked_after_failure, locked.is_locked_after_failure) == (False, True)


def test_an_error_without_a_name_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RigOperations, "refocus", broken)
    (run,) = run_once(folder, HONEST, "warm", 1)
    assert (run.outcome, run.message) == ("untyped", "ZeroDivisionError()")


def test_two_processes_run_what_is_asked(folder: Path) -> None:
    runs = lying.run_lying([HONEST, "stage sticks"], searches=2, seed=1, modes=["cold"], folder=folder)
    assert [(run.kind, run.seed) for run in runs] == [
        (HONEST, 1),
        (HONEST, 2),
        ("stage sticks", 1),
        ("stage sticks", 2),
    ]
    assert all(isinstance(run, Run) for run in runs)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_what_it_does_and_the_same_for_the_same_seed(kind: str) -> None:
    told = [KINDS[kind](Random(seed)).told for seed in (1, 1, 2, 3)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("kind", "seed"),
    [("stage sticks", 60), ("stage moves × 0", 60), ("stage moves × 0.5", 201), ("stage moves × 0.5", 203)],
)
def test_a_check_of_a_thin_sample_takes_no_lie_for_a_thick_one_nor_for_drift(
    folder: Path, kind: str, seed: int
) -> None:
    """Each ended locked, up to a depth of field beside the focus: what the hold had seen before was forgotten."""
    runs = run_once(folder, kind, "hold", seed)
    assert runs
    assert not any(run.is_beyond_sigma or run.is_beyond_depth for run in runs)
