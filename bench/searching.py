"""The product's own runs on whatever shows a bench frames: calibrations, searches, and the one kind of ending.

Everything that decides is focusd's: `Autofocus` makes the run, and the run says which plane it wants, checks each
frame, keeps to its budget and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from focusd.autofocus import Autofocus
from focusd.config import RigConfig
from focusd.errors import FocusdError
from focusd.focus.calibrating import CalibrationRun
from focusd.focus.frame import Frame
from focusd.focus.refocus import RefocusRun
from focusd.optics.instrument import Instrument
from focusd.protocol.results import CalibrationResult
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import load_model
from focusd.storage.store import CalibrationStore

FOCUSED = "focused"
NAN = float("nan")

FrameAt = Callable[[float], Frame]
"""Exposes at a z, or next to it: the frame's own z counts."""


@dataclass(frozen=True)
class Step:
    """After one exposure; NaN where nothing is known.

    Attributes:
        defocus_um: at which it was taken.
        error_um: of the focus as reported, or as believed by then.
        sigma_um: as stated with it.
        is_reported: whether it was reported as the focus.
    """

    defocus_um: float
    error_um: float = NAN
    sigma_um: float = NAN
    is_reported: bool = False


@dataclass(frozen=True)
class Ending:
    """How one run ended.

    Attributes:
        steps: one an exposure, the last of which ended it.
        outcome: `focused`, or that of the error.
        dof_um: depth of field.
        shape: of the field, as reported; empty where no focus was.
    """

    steps: tuple[Step, ...]
    outcome: str
    dof_um: float
    shape: str = ""

    @property
    def exposures(self) -> int:
        """How many frames were exposed."""
        return len(self.steps)

    @property
    def error_um(self) -> float:
        """Error of what was reported, or believed, at the end."""
        return self.steps[-1].error_um

    @property
    def sigma_um(self) -> float:
        """Standard uncertainty that was stated with it."""
        return self.steps[-1].sigma_um

    @property
    def is_gross(self) -> bool:
        """Whether that is off by more than a depth of field, or there was nothing to be near to."""
        return not abs(self.error_um) <= self.dof_um

    @property
    def is_silent(self) -> bool:
        """Whether it was reported all the same."""
        return self.outcome == FOCUSED and self.is_gross

    def after(self, images: int) -> Step:
        """Return the step after so many exposures; a run that had ended by then keeps its answer."""
        return self.steps[min(images, self.exposures) - 1]


@cache
def engine(
    folder: Path,
    objective: str,
    instrument: Instrument | None,
    limits_um: tuple[float, float],
    tiles: int | None = None,
) -> Autofocus:
    """Return the product's engine, one a process and objective, as configured by default.

    Args:
        folder: where calibrations are kept.
        objective: the name under which this one's are.
        instrument: None: its optics are not known.
        limits_um: of the stage.
        tiles: to score of a frame, at most; None: all, however long that takes.
    """
    optics: dict[str, Any] = {"name": objective}
    if instrument is not None:
        optics |= {
            "magnification": instrument.magnification,
            "na": instrument.na,
            "immersion_index": instrument.immersion_index,
            "wavelength_um": instrument.wavelength_um,
        }
    low_um, high_um = limits_um
    config = RigConfig.model_validate(
        {
            "name": "bench",
            "state_dir": folder,
            "objective": optics,
            "camera": {"pixel_um": instrument.camera_pixel_um if instrument else 6.5},
            "stage": {"min_um": low_um, "max_um": high_um, "towards_sample": "increasing"},
            "microscope": {"kind": "simulated"} if instrument else {"kind": "recorded", "stack": folder},
        }
    )
    scorer = Scorer(load_model(), instrument.sampling if instrument else None, max_tiles=tiles)
    return Autofocus(config, scorer, CalibrationStore(folder))


def calibrated(run: CalibrationRun, frame_at: FrameAt) -> CalibrationResult:
    """Expose what a calibration asks for; return its result.

    Raises:
        FocusdError: the calibration is refused.
    """
    while run.expose_um:
        run.tell(frame_at(run.expose_um[0]))
    return run.result


def searched(run: RefocusRun, frame_at: FrameAt, focus_um: Callable[[], float]) -> Ending:
    """Expose what a search asks for, until it ends.

    Args:
        frame_at: may refuse to expose any more, which ends the search too.
        focus_um: the truth at the last exposure; NaN: there is nothing to focus on.
    """
    steps: list[Step] = []
    outcome = FOCUSED
    while run.expose_um and outcome == FOCUSED:
        z_um = run.expose_um[0]
        try:
            frame = frame_at(z_um)
            z_um = frame.z_um
            run.tell(frame)
        except FocusdError as error:
            outcome = error.outcome
        is_reported = run.has_ended and outcome == FOCUSED
        steps.append(_step(run.believed, z_um, focus_um(), is_reported))
    shape = run.result.geometry.shape if outcome == FOCUSED else ""
    return Ending(tuple(steps), outcome, run.field.dof_um, shape)


def _step(believed: tuple[float, float] | None, z_um: float, focus_um: float, is_reported: bool) -> Step:
    if believed is None:
        return Step(z_um - focus_um)
    believed_um, sigma_um = believed
    return Step(z_um - focus_um, believed_um - focus_um, sigma_um, is_reported)
