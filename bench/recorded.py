"""Accuracy on recorded stacks: calibrated on one field, focused on another of the same instrument.

The truth is where the other field's own stack puts its origin. Pairs and triples: the posterior from these
recorded planes alone, at most 45 µm apart. Searches: from every plane; each probe shows the nearest recorded plane that
was not shown yet, so that no image is a blend of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import Errors, Figures
from bench.plan import POSTERIOR
from bench.rig import observe
from bench.searches import (
    BUDGET,
    FOCUSED,
    STRUCTURE_THRESHOLD,
    TARGET_DOF,
    alone,
    posterior_steps,
)
from bench.stacks import readable_stacks, tell
from focusd.demo.main import DEFAULT_STACKS
from focusd.errors import FocusdError, HardwareError
from focusd.focus.calibration import Calibration, calibrate
from focusd.focus.observation import Observation
from focusd.focus.search import USABLE_DOF, PosteriorSearch
from focusd.microscope.recorded import Stack, read_stack

APART_UM = 45.0
HALVED = "wafer-pattern.ome.tif"
"""Calibrated on one half of its field and focused on the other, where no stacks are named."""

Row = dict[str, str | float | int | None]


@dataclass(frozen=True)
class Field:
    """A recorded field.

    Attributes:
        observations: one a plane.
    """

    name: str
    observations: list[Observation]


def run_recorded(calibrate_on: Path | None, folder: Path | None) -> list[Row]:
    """Rows of pairs, triples and searches; none where there is nothing recorded."""
    rows: list[Row] = []
    for teacher, pupil in _lessons(calibrate_on, folder):
        try:
            rows += _rows(teacher, pupil)
        except FocusdError as error:
            tell(f"{teacher.name} → {pupil.name}: {error.message}")
    return rows


def _lessons(calibrate_on: Path | None, folder: Path | None) -> Iterator[tuple[Field, Field]]:
    """Which field to calibrate on, and which to focus on."""
    source = folder or DEFAULT_STACKS
    if calibrate_on is None:
        if (source / HALVED).is_file():
            left, right = _halves(source / HALVED)
            yield left, right
            yield right, left
        elif folder:
            tell(f"{folder}: name the stack to calibrate on, as in --calibrate {folder}/FIELD.tif")
        return
    teacher = _field(calibrate_on.name, read_stack(calibrate_on))
    for path, stack in readable_stacks(source, but=calibrate_on):
        yield teacher, _field(path.name, stack)


def _halves(path: Path) -> tuple[Field, Field]:
    stack = read_stack(path)
    middle = stack.pixels.shape[2] // 2
    left = _field(f"{path.name} left", replace(stack, pixels=stack.pixels[:, :, :middle]))
    return left, _field(f"{path.name} right", replace(stack, pixels=stack.pixels[:, :, middle:]))


def _field(name: str, stack: Stack) -> Field:
    planes = zip(stack.pixels, stack.z_um, strict=True)
    return Field(name, [observe(np.ascontiguousarray(p), float(z), None) for p, z in planes])


def _rows(teacher: Field, pupil: Field) -> list[Row]:
    calibration, _ = calibrate(teacher.observations, {}, STRUCTURE_THRESHOLD)
    _, focus_um = calibrate(pupil.observations, {}, STRUCTURE_THRESHOLD)
    z_um = [o.z_um for o in pupil.observations]
    search = partial(_search, calibration, (min(z_um), max(z_um)))
    dof_um = calibration.axial_unit_um  # as the daemon takes it where the optics are unknown
    name = f"{teacher.name} → {pupil.name}"
    rows = []
    for images in (2, 3):
        steps = [_judge(search(), group, focus_um) for group in groups(pupil.observations, images)]
        rows.append(_row(name, f"all groups of {images}", images, steps, dof_um))
    ended = [
        _from_plane(search(), pupil.observations, start, focus_um, dof_um) for start in pupil.observations
    ]
    typical = int(np.median([count for count, _, _ in ended]))
    rows.append(_row(name, "search from every plane", typical, [end[1:] for end in ended], dof_um))
    return rows


def groups(observations: list[Observation], images: int) -> Iterator[tuple[Observation, ...]]:
    """All choices of planes that are no further apart than allowed."""
    for group in combinations(observations, images):
        if np.ptp([o.z_um for o in group]) <= APART_UM:
            yield group


def _search(calibration: Calibration, limits_um: tuple[float, float]) -> PosteriorSearch:
    dof_um = calibration.axial_unit_um
    return PosteriorSearch(
        calibration,
        limits_um,
        away_is_low=True,
        threshold=STRUCTURE_THRESHOLD,
        target_um=TARGET_DOF * dof_um,
        usable_um=USABLE_DOF * dof_um,
    )


def _judge(search: PosteriorSearch, group: tuple[Observation, ...], focus_um: float) -> tuple[float, bool]:
    """Error of the focus that a group of planes tells, and whether it would be reported."""
    for observation in group:
        search.add(observation)
    return search.estimate.focus_um - focus_um, search.satisfied


def _from_plane(
    search: PosteriorSearch, planes: list[Observation], start: Observation, focus_um: float, dof_um: float
) -> tuple[int, float, bool]:
    """Exposures, error, and whether a focus was reported, of a search that begins at a plane."""
    look = unseen(planes, start)
    steps = posterior_steps(search, look, lambda: focus_um, dof_um)
    count, step = alone(steps, min(BUDGET, len(planes)))
    return count, step.error_um, step.outcome == FOCUSED


def unseen(planes: list[Observation], start: Observation) -> Callable[[float], Observation]:
    """Shows the nearest plane that was not shown yet; the first to be shown is the start."""
    left = list(planes)
    first = [start]

    def look(z_um: float) -> Observation:
        if not left:
            raise HardwareError("no recorded plane is left")
        nearest = first.pop() if first else min(left, key=lambda o: abs(o.z_um - z_um))
        left.remove(nearest)
        return nearest

    return look


def _row(fields: str, planes: str, images: int, steps: list[tuple[float, bool]], dof_um: float) -> Row:
    error_um: NDArray[np.float64] = np.array([error for error, _ in steps])
    figures: Figures = Errors(error_um, np.array([told for _, told in steps]), dof_um).figures()
    about: Row = {"strategy": POSTERIOR, "images": images, "objective": "unknown", "optics": "recorded"}
    about |= {
        "start_um": APART_UM,
        "electrons": None,
        "scene": "recorded",
        "fields": fields,
        "planes": planes,
    }
    return about | figures
