"""Acquisitions of pymmcore-plus on a core with focusd attached: each plane is where the plan wants it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import useq
from pymmcore_plus.mda import MDAEngine

from focusd.embedded import FocusdEngine, FocusLostError
from focusd.errors import BusyError, NoSampleError
from tests.embedded.owned import Bench, attached, core_state

DOF_UM = 8.28
NEAR_UM = 0.1 * DOF_UM
TILT = (0.02, -0.01)
POSITIONS = ((100.0, 0.0, 0.0), (-200.0, 50.0, 0.0))
PLANES_UM = (-2.0, 0.0, 2.0)
DRIFTING = {"drift_um_per_min": 6.0}


def plan(**changed: Any) -> useq.MDASequence:
    values: dict[str, Any] = {
        "axis_order": "tpcz",
        "stage_positions": POSITIONS,
        "time_plan": {"interval": 0, "loops": 2},
        "channels": ["green", "red"],
        "z_plan": {"relative": list(PLANES_UM)},
        "autofocus_plan": useq.AxesBasedAF(axes=("t", "p")),
    }
    return useq.MDASequence(**(values | changed))


class Taken:
    """The frames of an acquisition, and the truth about each.

    Attributes:
        indices: of the frames' events, in their order.
    """

    def __init__(self, bench: Bench) -> None:
        self._camera = bench.owned.camera
        self._begin = len(self._camera.exposed)
        self.indices: list[dict[str, int]] = []
        bench.core.mda.events.frameReady.connect(self.take)

    def take(self, _image: object, event: useq.MDAEvent) -> None:
        self.indices.append({str(axis): number for axis, number in event.index.items()})

    @property
    def frames(self) -> list[tuple[dict[str, int], float]]:
        """Index and defocus of each."""
        exposed = [each for each in self._camera.exposed[self._begin :] if not each.by_focusd]
        return [(index, each.defocus_um) for index, each in zip(self.indices, exposed, strict=True)]


def run(bench: Bench, sequence: useq.MDASequence) -> Taken:
    taken = Taken(bench)
    bench.core.run_mda(sequence, block=True)
    return taken


def errors_um(taken: Taken, offsets_um: tuple[float, ...] = (0.0, 0.0)) -> list[float]:
    """How far each frame is from where the plan wants it."""
    return [defocus_um - PLANES_UM[index["z"]] - offsets_um[index["c"]] for index, defocus_um in taken.frames]


@pytest.mark.parametrize("engine", ["stock", "focusd"])
@pytest.mark.parametrize("triggered", [False, True])
def test_each_plane_is_where_the_plan_wants_it(tmp_path: Path, engine: str, triggered: bool) -> None:
    with attached(tmp_path, TILT, microscope=DRIFTING) as bench:
        bench.owned.stage.can_step = triggered
        if engine == "focusd":
            bench.core.mda.set_engine(FocusdEngine(bench.core))
        before = core_state(bench.core)
        taken = run(bench, plan())
        assert len(taken.frames) == 2 * 2 * 2 * 3
        assert max(map(abs, errors_um(taken))) < NEAR_UM
        assert bench.focusd.exposures <= 3 * 4
        changed = core_state(bench.core)
        assert changed | {"groups": None, "properties": None} == before | {"groups": None, "properties": None}


def test_a_position_without_focus_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    with attached(tmp_path, TILT) as bench:
        bench.owned.slide.empty.add(POSITIONS[1][:2])
        engine = FocusdEngine(bench.core)
        bench.core.mda.set_engine(engine)
        taken = run(bench, plan())
        assert [index["p"] for index, _ in taken.frames] == 2 * 6 * [0]
        assert engine.skipped == 12
        assert [type(result) for _, result in engine.results].count(NoSampleError) == 2


def test_the_user_may_go_on_without_focus_or_stop(tmp_path: Path) -> None:
    with attached(tmp_path, TILT) as bench:
        bench.owned.slide.empty.add(POSITIONS[1][:2])
        bench.core.mda.set_engine(FocusdEngine(bench.core, on_failure="go_on"))
        assert len(run(bench, plan()).frames) == 24
        bench.core.mda.set_engine(FocusdEngine(bench.core, on_failure="stop"))
        assert [index["p"] for index, _ in run(bench, plan()).frames] == 6 * [0]


def test_a_refocus_at_each_third_time_point_or_after_so_many_minutes(tmp_path: Path) -> None:
    with attached(tmp_path, TILT) as bench:
        sequence = plan(
            time_plan={"interval": 0, "loops": 4}, stage_positions=POSITIONS[:1], channels=["green"]
        )
        for options, times in (({"every_n": 3}, [0, 3]), ({"every_min": 5.0}, [0])):
            engine = FocusdEngine(bench.core, **options)
            bench.core.mda.set_engine(engine)
            assert len(run(bench, sequence).frames) == 12
            assert [index["t"] for index, _ in engine.results] == times


def test_offsets_of_channels_do_not_shift_the_reference(tmp_path: Path) -> None:
    with attached(tmp_path, TILT) as bench:
        seen: list[str] = []
        core = bench.core
        core.mda.set_engine(FocusdEngine(core, channel="white"))
        core.events.imageSnapped.connect(lambda _label: seen.append(core.getCurrentConfig("Channel")))
        offset = [{"config": "green", "z_offset": 5.0}, {"config": "red", "z_offset": -3.0}]
        taken = run(bench, plan(channels=offset, time_plan={"interval": 0, "loops": 1}))
        assert max(map(abs, errors_um(taken, (5.0, -3.0)))) < NEAR_UM
        assert seen.count("white") == bench.focusd.exposures
        assert seen.count("green") == seen.count("red") == 6


def test_an_offset_of_the_plan_s_autofocus_is_kept(tmp_path: Path) -> None:
    with attached(tmp_path) as bench:
        sequence = plan(
            stage_positions=[(0.0, 0.0, 0.0)],
            time_plan={"interval": 0, "loops": 1},
            autofocus_plan=useq.AxesBasedAF(axes=("t",), autofocus_motor_offset=4.0),
        )
        for engine in (MDAEngine(bench.core), FocusdEngine(bench.core)):
            bench.core.mda.set_engine(engine)
            # A plan remembers the last index that it has seen, and would not refocus a second time.
            again = sequence.model_copy(
                update={"autofocus_plan": useq.AxesBasedAF(axes=("t",), autofocus_motor_offset=4.0)}
            )
            assert max(map(abs, errors_um(run(bench, again), (4.0, 4.0)))) < NEAR_UM


def test_nothing_but_the_plan_s_refocus_runs_during_an_acquisition(bench: Bench) -> None:
    told: list[type[BaseException]] = []

    def ask(*_: object) -> None:
        for asked in (bench.core.fullFocus, bench.focusd.refocus):

            def from_elsewhere(asked: Any = asked) -> None:
                try:
                    asked()
                except Exception as error:
                    told.append(type(error))

            thread = threading.Thread(target=from_elsewhere)
            thread.start()
            thread.join()

    bench.core.mda.events.frameReady.connect(ask)
    exposures = bench.focusd.exposures
    bench.core.run_mda(
        plan(
            autofocus_plan=None,
            channels=["green"],
            stage_positions=[(0, 0, 8)],
            time_plan={"interval": 0, "loops": 1},
        ),
        block=True,
    )
    assert told == 3 * [FocusLostError, BusyError]
    assert bench.focusd.exposures == exposures


def test_a_cancelled_acquisition_leaves_focusd_usable_and_the_core_as_it_was(tmp_path: Path) -> None:
    with attached(tmp_path, TILT) as bench:
        bench.core.setExposure(20.0)
        before = core_state(bench.core)
        bench.core.mda.events.frameReady.connect(lambda *_: bench.core.mda.cancel())
        bench.core.run_mda(plan(channels=["green"]), block=True)
        assert core_state(bench.core) == before
        with pytest.raises(BusyError, match="detach"), bench.focusd.acquisition():
            bench.focusd.detach()
        bench.core.fullFocus()
        assert abs(bench.owned.defocus_um) < NEAR_UM
