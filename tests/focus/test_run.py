"""Runs without I/O, driven with whatever frames may show: each ends in time, with a result or an error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from focusd.errors import FocusdError, HardwareError, NoSampleError, RequestError, SaturatedError
from focusd.focus.budget import Budget
from focusd.focus.calibrating import REPEATED, TWICE, CalibrationRun
from focusd.focus.calibration import Calibration
from focusd.focus.far import FAR_EXPOSURES, FarSearch
from focusd.focus.focus import Search, Surface
from focusd.focus.frame import Frame
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.posterior import Prior
from focusd.focus.published import PublishedSearch
from focusd.focus.refocus import Field, RefocusRun
from focusd.focus.run import Run
from focusd.focus.search import PosteriorSearch
from focusd.focus.stack import calibrate
from focusd.optics.bands import BlockSpectra
from focusd.protocol.results import Curve, StoredCalibration
from tests.focus.exposures import WholeFrames, exposure

DOF_UM = 8.3
PIXELS = np.zeros((16, 16), np.uint8)
PLANES_UM = [float(z) for z in range(-100, 101, 10)]
PROBES_UM = [0.0, 6.0, -6.0]

# To shrink a failing script takes minutes, and the scripts are short.
NOSHRINK = [Phase.explicit, Phase.reuse, Phase.generate]
thorough = settings(max_examples=60, deadline=None, phases=NOSHRINK)


@dataclass(frozen=True)
class Shown:
    """What one frame shows.

    Attributes:
        focus_um: where the sample lies at that moment.
        strength: of its power over the noise.
        structure: probability that each tile holds something.
        refused: with which error the frame is; None: it is measured.
    """

    focus_um: float = 12.0
    strength: float = 1e4
    sigma: float = 0.01
    structure: float = 1.0
    refused: type[FocusdError] | None = None


HONEST = Shown()


class Script(WholeFrames):
    """Measures frames as told, one after the other; the last is repeated."""

    def __init__(self, shown: list[Shown]) -> None:
        self._shown = shown
        self.measured = 0

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        shown = self._shown[min(self.measured, len(self._shown) - 1)]
        self.measured += 1
        if shown.refused:
            raise shown.refused("refused", z_um=frame.z_um)
        seen = exposure(frame.z_um, shown.focus_um, shown.strength)
        same = np.ones(seen.b.shape)
        return replace(seen, sigma=shown.sigma * same, structure=shown.structure * same).scored_on(only)


@dataclass(frozen=True)
class Told:
    """How one frame is chosen: so many of the planes asked for are skipped, and the stage stands beside the next."""

    skipped: int = 0
    beside_um: float = 0.0

    def z_um(self, wanted_um: tuple[float, ...]) -> float:
        return wanted_um[min(self.skipped, len(wanted_um) - 1)] + self.beside_um


def frame(z_um: float) -> Frame:
    return Frame(PIXELS, z_um, 1.0)


@cache
def calibration() -> Calibration:
    return calibrate([exposure(z) for z in np.arange(-100, 101, 4.0)], {}, 0.5)[0]


@dataclass(frozen=True)
class Asked:
    """What a search is asked for."""

    strategy: str = "posterior"
    start_um: float = 0.0
    limits_um: tuple[float, float] = (-150.0, 150.0)
    exposures: int = 8
    dose_ms: float | None = None
    seconds: float | None = None
    prior: Prior | None = None
    surface: Surface = "mean"
    far: bool = False

    @property
    def most(self) -> int:
        """Exposures that the search may take."""
        return self.exposures + (FAR_EXPOSURES if self.far else 0)

    def run(self, measure: Script) -> RefocusRun:
        return RefocusRun(
            measure,
            self.far_search() if self.far else self.search(),
            Budget(self.exposures, self.seconds, self.dose_ms),
            Field(0.65, DOF_UM, "increasing", self.surface),
            start_um=self.start_um,
            limits_um=self.limits_um,
            exposure_ms=1.0,
            strategy=self.strategy,
            note="",
        )

    def far_search(self) -> Search:
        given = calibration(), self.limits_um
        return FarSearch(*given, away_is_low=True, threshold=0.5, begin=self.search)

    def search(self) -> Search:
        if self.strategy == "published":
            return PublishedSearch(calibration(), self.limits_um, away_is_low=True, threshold=0.5)
        return PosteriorSearch(
            calibration(),
            self.limits_um,
            away_is_low=True,
            threshold=0.5,
            target_um=0.1 * DOF_UM,
            usable_um=0.25 * DOF_UM,
            prior=self.prior,
        )


KEPT = StoredCalibration(
    objective="10x",
    fwhm_um=60.0,
    range_um=[-100.0, 100.0],
    origin="sharpest",
    r2=1.0,
    dof_um=DOF_UM,
    curve=Curve(z_um=[], b=[]),
    profile=Curve(z_um=[], b=[]),
    id="1",
    path="",
    in_force=True,
    message="",
)


def calibration_run(measure: Script) -> CalibrationRun:
    return CalibrationRun(
        measure,
        PROBES_UM,
        PLANES_UM,
        fingerprint={},
        threshold=0.5,
        instrument=None,
        whole_frames=4,
        keep=lambda _: KEPT,
        note="",
    )


refusals: st.SearchStrategy[type[FocusdError] | None] = st.sampled_from(
    [None] * 30 + [SaturatedError, HardwareError]
)
scripts = st.lists(
    st.builds(
        Shown,
        st.floats(-80, 80),
        st.sampled_from([0.0, 0.1, 10.0, 1e4, 1e7]),
        st.sampled_from([1e-3, 0.01, 0.3]),
        st.sampled_from([0.0, 0.4, 1.0, 1.0]),
        refusals,
    ),
    min_size=1,
    max_size=6,
) | st.builds(lambda focus_um: [Shown(focus_um)], st.floats(-80, 80))
beside = st.just(0.0) | st.floats(-8, 8) | st.floats(-400, 400)
told = st.lists(st.lists(st.builds(Told, st.integers(0, 2), beside), min_size=1, max_size=3), max_size=8)
limits = (
    st.tuples(st.floats(-150, -1), st.floats(1, 150))
    | st.tuples(st.floats(20, 30), st.floats(31, 90))
    | st.tuples(st.floats(-3000, -1), st.floats(1, 3000))
)
asked = st.builds(
    Asked,
    st.sampled_from(["posterior", "posterior", "published"]),
    st.floats(-100, 100),
    limits,
    st.integers(1, 8),
    st.none() | st.floats(1, 9),
    st.none() | st.floats(0.1, 3),
    st.none() | st.builds(Prior, st.floats(-50, 50), st.floats(0.1, 30)),
    st.sampled_from(["mean", "median", "nearest"]),
    st.booleans(),
)


def driven(run: Run[Any], told: list[list[Told]], elapsed_s: float = 0.2) -> Iterator[int]:
    """Tell the run what it asks for, as `told` says and then exactly, until it ends; yield the frames so far."""
    count = 0
    calls = iter(told)
    while run.expose_um:
        chosen = next(calls, [Told()])
        frames = [frame(each.z_um(run.expose_um)) for each in chosen]
        count += len(frames)
        try:
            run.tell(*frames, elapsed_s=count * elapsed_s)
        except FocusdError as error:
            with pytest.raises(type(error)):
                run.result  # noqa: B018
        yield count


def error_of(run: Run[Any]) -> FocusdError | None:
    """The error with which a run ended; None: it has a result."""
    try:
        assert run.result.exposures >= 1
    except FocusdError as error:
        return error
    return None


def require_ended(run: Run[Any]) -> None:
    """It has a result or an error, the error says what was spent, and nothing can be told any more."""
    assert run.has_ended
    assert run.expose_um == ()
    if error := error_of(run):
        assert error.message
        assert error.data["exposures"] >= 0
    exposures = run.exposures
    with pytest.raises(RequestError):
        run.tell(frame(0.0))
    assert run.exposures == exposures


@thorough
@given(asked=asked, script=scripts, told=told)
def test_every_search_ends_within_its_budget_and_asks_for_nothing_outside_its_limits(
    asked: Asked, script: list[Shown], told: list[list[Told]]
) -> None:
    measure = Script(script)
    run = asked.run(measure)
    low_um, high_um = asked.limits_um
    assert all(low_um <= z_um <= high_um for z_um in run.expose_um)
    for _ in driven(run, told):
        assert all(low_um <= z_um <= high_um for z_um in run.expose_um)
        assert len(run.measurements) <= measure.measured <= asked.most
        assert not run.measurements or len(run.measurements) <= run.progress.of <= asked.most
        assert asked.dose_ms is None or run.exposures <= asked.dose_ms
    require_ended(run)
    if error := error_of(run):
        assert len(error.data["probes"]) == len(run.measurements)
        assert error.data["dose_ms"] == run.exposures
        return
    focus_um, sigma_um = run.result.focus_um, run.result.sigma_um
    assert low_um <= focus_um <= high_um
    assert math.isfinite(sigma_um)
    assert run.believed == (focus_um, sigma_um)


@settings(thorough, max_examples=20)
@given(
    focus_um=st.floats(-60, 60),
    told=st.lists(st.lists(st.builds(Told, beside_um=st.floats(-3, 3)), min_size=1, max_size=1)),
)
def test_frames_beside_the_planes_asked_for_lead_to_the_focus_all_the_same(
    focus_um: float, told: list[list[Told]]
) -> None:
    run = Asked().run(Script([Shown(focus_um)]))
    for _ in driven(run, told):
        pass
    assert run.result.focus_um == pytest.approx(focus_um, abs=0.1 * DOF_UM)


@thorough
@given(script=scripts, told=told)
def test_every_calibration_ends_within_its_planes(script: list[Shown], told: list[list[Told]]) -> None:
    measure = Script(script)
    run = calibration_run(measure)
    most = len(PROBES_UM) + len(PLANES_UM) + TWICE + REPEATED
    planes = {*PROBES_UM, *PLANES_UM}
    for _ in driven(run, told):
        assert planes.issuperset(run.expose_um)
        assert measure.measured <= most
    require_ended(run)


def test_a_calibration_of_an_even_field_ends_at_its_focus_and_one_of_nothing_says_so() -> None:
    run, empty = calibration_run(Script([HONEST])), calibration_run(Script([Shown(structure=0.0)]))
    for each in (run, empty):
        for _ in driven(each, []):
            pass
    assert run.result.z_focus_um == pytest.approx(HONEST.focus_um, abs=0.5)
    assert run.result.exposures == 1 + len(PLANES_UM) + TWICE + REPEATED
    with pytest.raises(NoSampleError):
        empty.result  # noqa: B018


MALFORMED = {
    "floats": Frame(np.zeros((16, 16), np.float32), 0.0),
    "signed": Frame(np.zeros((16, 16), np.int16), 0.0),
    "one axis": Frame(np.zeros(256, np.uint8), 0.0),
    "three axes": Frame(np.zeros((3, 16, 16), np.uint8), 0.0),
    "no pixels": Frame(np.zeros((0, 16), np.uint8), 0.0),
    "z is NaN": Frame(PIXELS, math.nan),
    "z is infinite": Frame(PIXELS, math.inf),
}


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_is_no_camera_frame_changes_nothing_nor_do_the_frames_told_with_it(
    kind: str, before: int
) -> None:
    for run in (Asked().run(Script([HONEST])), calibration_run(Script([HONEST]))):
        for _ in zip(range(before), driven(run, []), strict=False):
            pass
        wanted_um, exposures, taken = run.expose_um, run.exposures, len(run.measurements)
        with pytest.raises(RequestError):
            run.tell(frame(wanted_um[0]), MALFORMED[kind], elapsed_s=5.0)
        assert (run.expose_um, run.exposures, len(run.measurements), run.elapsed_s) == (
            wanted_um,
            exposures,
            taken,
            0.2 * before,
        )
        assert not run.has_ended
        with pytest.raises(RequestError):
            run.result  # noqa: B018


def test_a_frame_that_is_refused_ends_the_run_and_counts_as_light() -> None:
    run = Asked().run(Script([HONEST, Shown(refused=SaturatedError)]))
    first_um, second_um = run.expose_um
    run.tell(frame(first_um))
    with pytest.raises(SaturatedError) as refused:
        run.tell(frame(second_um), elapsed_s=0.5)
    assert refused.value.data["dose_ms"] == 2.0
    assert refused.value.data["exposures"] == 1
    assert refused.value.data["seconds"] == 0.5
    assert refused.value.data["z_um"] == second_um
    require_ended(run)


def test_what_a_run_believes_on_its_way_changes_nothing_of_it() -> None:
    """Whoever watches sees the same run as one that nobody watches."""
    prior = Prior(10.0, 2.0)
    watched, alone = (Asked(prior=prior).run(Script([HONEST])) for _ in range(2))
    for run in (watched, alone):
        while run.expose_um:
            assert run is alone or run.believed is None or len(run.measurements) >= 2
            run.tell(frame(run.expose_um[0]))
    assert watched.result == alone.result
