"""An acquisition on a core with focusd attached: where each plane was exposed, and what the refocuses cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import useq
from pymmcore_plus.mda import MDAEngine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from focusd.config import RigConfig
from focusd.demo.core import OwnedMicroscope, embedded_rig, owned_microscope
from focusd.embedded import FocusdEngine, attach
from focusd.microscope.micromanager import close_core
from focusd.microscope.simulation import instrument_of

DRIFT_UM_PER_MIN = 6.0
TILT = (0.02, -0.01)
POSITIONS = ((100.0, 0.0), (-200.0, 50.0), (0.0, 300.0), (150.0, -250.0), (-100.0, -100.0))
PLANES_UM = (-4.0, -2.0, 0.0, 2.0, 4.0)
ALLOWED_DOF = 0.1


@dataclass(frozen=True)
class Figures:
    """What one acquisition gave.

    Attributes:
        engine, triggered: how it ran: whose engine, and whether the hardware stepped through the planes.
        frames, skipped: exposed for the plan, and left out for want of focus.
        far: frames further than a tenth of the depth of field from where the plan wants them.
        worst_um: the furthest.
        refocuses: of the plan.
        exposures_mean, exposures_max: of one refocus.
    """

    engine: str
    triggered: bool
    frames: int
    skipped: int
    far: int
    worst_um: float
    refocuses: int
    exposures_mean: float
    exposures_max: int


def run_embedded(positions: int, times: int, json_file: Path | None) -> None:
    """Run the acquisition with either engine, stepwise and triggered; print the figures."""
    kinds = [(engine, triggered) for engine in ("pymmcore-plus", "focusd") for triggered in (False, True)]
    figures = [acquire(*kind, positions, times) for kind in track(kinds, console=Console(stderr=True))]
    table = Table(
        "engine", "z", "frames", "skipped", "beyond 0.1 DOF", "worst µm", "refocuses", "exposures each"
    )
    for each in figures:
        table.add_row(
            each.engine,
            "triggered" if each.triggered else "stepwise",
            str(each.frames),
            str(each.skipped),
            str(each.far),
            f"{each.worst_um:.2f}",
            str(each.refocuses),
            f"{each.exposures_mean:.2f}, at most {each.exposures_max}",
        )
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps([asdict(each) for each in figures], indent=1), encoding="utf-8")


def acquire(engine: str, triggered: bool, positions: int, times: int) -> Figures:
    """Run one acquisition on a drifting, tilted slide."""
    with _attached() as owned:
        owned.stage.can_step = triggered
        core, indices = owned.core, list[dict[str, int]]()
        ours = FocusdEngine(core)
        core.mda.set_engine(ours if engine == "focusd" else MDAEngine(core))
        core.mda.events.frameReady.connect(lambda _image, event: indices.append(dict(event.index)))
        begin = len(owned.camera.exposed)
        core.run_mda(_plan(positions, times), block=True)
        exposed = owned.camera.exposed[begin:]
        taken = [each for each in exposed if not each.by_focusd]
        errors_um = [
            abs(each.defocus_um - PLANES_UM[index["z"]]) for index, each in zip(indices, taken, strict=True)
        ]
        costs = [
            len(list(group))
            for by_focusd, group in groupby(exposed, lambda each: each.by_focusd)
            if by_focusd
        ]
        return Figures(
            engine,
            triggered,
            len(errors_um),
            ours.skipped,
            sum(error_um > ALLOWED_DOF * _depth_of_field_um() for error_um in errors_um),
            max(errors_um),
            len(costs),
            sum(costs) / len(costs),
            max(costs),
        )


def _config(state: Path) -> RigConfig:
    scene = {"kind": "simulated", "focus_z_um": 8.0, "drift_um_per_min": DRIFT_UM_PER_MIN}
    return RigConfig.model_validate(
        {
            "name": "bench-embedded",
            "state_dir": state,
            "objective": {"name": "10x-0.3", "magnification": 10.0, "na": 0.3},
            "camera": {"pixel_um": 6.5, "exposure_ms": 10.0},
            "stage": {"min_um": -150.0, "max_um": 150.0, "towards_sample": "increasing"},
            "microscope": scene,
            "server": {"control": "tcp://127.0.0.1:*", "events": "tcp://127.0.0.1:*"},
        }
    )


def _depth_of_field_um() -> float:
    config = _config(Path())
    return instrument_of(config.objective, config.camera).depth_of_field_um


@contextmanager
def _attached() -> Iterator[OwnedMicroscope]:
    """A microscope of a program's own, calibrated at rest, with focusd attached."""
    with TemporaryDirectory() as folder:
        config = _config(Path(folder))
        rig, scene = embedded_rig(config)
        still = owned_microscope(config, scene.model_copy(update={"drift_um_per_min": 0.0}))
        try:
            with attach(still.core, rig) as focusd:
                still.focus_by_eye()
                focusd.calibrate()
        finally:
            close_core(still.core)
        owned = owned_microscope(config, scene, TILT)
        try:
            with attach(owned.core, rig):
                yield owned
        finally:
            close_core(owned.core)


def _plan(positions: int, times: int) -> useq.MDASequence:
    return useq.MDASequence.model_validate(
        {
            "axis_order": "tpcz",
            "stage_positions": [(x, y, 0.0) for x, y in POSITIONS[:positions]],
            "time_plan": {"interval": 0, "loops": times},
            "channels": ["green", "red"],
            "z_plan": {"relative": list(PLANES_UM)},
            "autofocus_plan": {"axes": ("t", "p")},
        }
    )
