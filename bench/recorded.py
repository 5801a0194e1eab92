"""Accuracy on recorded stacks: calibrated on one field, focused on another of the same instrument.

The truth is where the other field's own stack puts its origin. Pairs and triples: the posterior from these
recorded planes alone, at most 45 µm apart. Searches: from every plane; each probe shows the nearest recorded plane that
was not shown yet, so that no image is a blend of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bench.errors import Errors, Figures
from bench.plan import POSTERIOR
from bench.searching import FOCUSED, NAN, Ending, FrameAt, calibrated, engine, searched
from bench.stacks import readable_stacks, tell
from focusd.autofocus import Autofocus
from focusd.demo.main import DEFAULT_STACKS
from focusd.errors import FocusdError, HardwareError
from focusd.focus.frame import Frame
from focusd.focus.measurement import Measurement
from focusd.microscope.recorded import Stack, read_stack

APART_UM = 45.0
HALVED = "wafer-pattern.ome.tif"
"""Calibrated on one half of its field and focused on the other, where no stacks are named."""


Field = tuple[str, Stack]
Row = dict[str, str | float | int | None]


def run_recorded(calibrate_on: Path | None, folder: Path | None) -> list[Row]:
    """Rows of pairs, triples and searches; none where there is nothing recorded."""
    rows: list[Row] = []
    known_um: dict[str, float] = {}
    with TemporaryDirectory() as kept:
        for teacher, pupil in _lessons(calibrate_on, folder):
            try:
                for field in (teacher, pupil):
                    if field[0] not in known_um:
                        known_um[field[0]] = _calibrate(field, Path(kept))
                rows += _rows(teacher[0], pupil, known_um[pupil[0]], Path(kept))
            except FocusdError as error:
                tell(f"{teacher[0]} → {pupil[0]}: {error.message}")
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
    teacher = calibrate_on.name, read_stack(calibrate_on)
    for path, stack in readable_stacks(source, but=calibrate_on):
        yield teacher, (path.name, stack)


def _halves(path: Path) -> tuple[Field, Field]:
    stack = read_stack(path)
    middle = stack.pixels.shape[2] // 2
    left = f"{path.name} left", replace(stack, pixels=stack.pixels[:, :, :middle])
    return left, (f"{path.name} right", replace(stack, pixels=stack.pixels[:, :, middle:]))


def _engine(calibrated_on: str, stack: Stack, kept: Path) -> Autofocus:
    """Return the engine on a stack, with the calibration of a field; the optics are not known."""
    return engine(kept, calibrated_on, None, (float(stack.z_um[0]), float(stack.z_um[-1])))


def _calibrate(field: Field, kept: Path) -> float:
    """Calibrate on all planes of a field; return its focus.

    Raises:
        FocusdError: no calibration can come of them.
    """
    name, stack = field
    frames = frames_of(stack)

    def nearest(z_um: float) -> Frame:
        return min(frames, key=lambda frame: abs(frame.z_um - z_um))

    middle_um = float(stack.z_um[[0, -1]].mean())
    run = _engine(name, stack, kept).calibrate(middle_um, planes_um=stack.z_um.tolist())
    return float(calibrated(run, nearest).z_focus_um)


def frames_of(stack: Stack) -> list[Frame]:
    """Return the recorded planes."""
    planes = zip(stack.pixels, stack.z_um, strict=True)
    return [Frame(np.ascontiguousarray(pixels), float(z_um)) for pixels, z_um in planes]


def _rows(teacher: str, pupil: Field, focus_um: float, kept: Path) -> list[Row]:
    autofocus, frames = _engine(teacher, pupil[1], kept), frames_of(pupil[1])
    dof_um = autofocus.depth_of_field_um()
    name = f"{teacher} → {pupil[0]}"
    measured = _measured(autofocus, frames)
    rows = []
    for images in (2, 3):
        errors = [_judged(autofocus, group, focus_um) for group in groups(measured, images)]
        rows.append(_row(name, f"all groups of {images}", images, errors, dof_um))
    ended = [_from_plane(autofocus, frames, start, focus_um) for start in frames]
    typical = int(np.median([end.exposures for end in ended]))
    answers = [(end.error_um, end.outcome == FOCUSED) for end in ended]
    rows.append(_row(name, "search from every plane", typical, answers, dof_um))
    return rows


def _measured(autofocus: Autofocus, frames: list[Frame]) -> list[Measurement]:
    """Measure each plane once, as the product's run does."""
    run = autofocus.refocus(frames[0].z_um)
    return [run.measure(frame) for frame in frames]


def groups(measurements: list[Measurement], images: int) -> Iterator[tuple[Measurement, ...]]:
    """Return all choices of planes that are no further apart than allowed."""
    for group in combinations(measurements, images):
        if np.ptp([o.z_um for o in group]) <= APART_UM:
            yield group


def _judged(autofocus: Autofocus, group: tuple[Measurement, ...], focus_um: float) -> tuple[float, bool]:
    """Return the error of what a run believes after a group of planes, and whether it would end with that."""
    run = autofocus.refocus(group[0].z_um)
    for measurement in group:
        run.add(measurement.scored_on(run.informative_tiles()))
    try:
        run.judge()
        is_reported = run.has_ended
    except FocusdError:
        is_reported = False
    believed_um, _ = run.believed or (NAN, NAN)
    return believed_um - focus_um, is_reported


def _from_plane(autofocus: Autofocus, frames: list[Frame], start: Frame, focus_um: float) -> Ending:
    """Return how a search that begins at a plane ends; it has no more exposures than there are planes."""
    most = min(autofocus.config.autofocus.max_exposures, len(frames))
    run = autofocus.refocus(start.z_um, max_exposures=most)
    return searched(run, unseen(frames, start), lambda: focus_um)


def unseen(frames: list[Frame], start: Frame) -> FrameAt:
    """Show the nearest plane that was not shown yet; the first to be shown is the start."""
    left = [frame for frame in frames if frame is not start]
    first = [start]

    def frame_at(z_um: float) -> Frame:
        if first:
            return first.pop()
        if not left:
            raise HardwareError("no recorded plane is left")
        return left.pop(min(range(len(left)), key=lambda k: abs(left[k].z_um - z_um)))

    return frame_at


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
