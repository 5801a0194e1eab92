"""Move, expose, score: the steps of one exposure as the decisions see it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from focusd.autofocus.observation import Blocks, Observation
from focusd.errors import CancelledJobError, FocusdError, SaturatedError, ScoringError
from focusd.microscope.protocol import Frame
from focusd.service.rig import Rig
from focusd.sharpness.scorer import FocusMeasure, Scorer
from focusd.sharpness.spectra import Region


@dataclass
class Stopwatch:
    """Where an operation's time goes.

    Attributes:
        seconds: of each stage so far.
    """

    seconds: dict[str, float] = field(
        default_factory=lambda: {"exposing": 0.0, "moving": 0.0, "scoring": 0.0}
    )
    began_s: float = field(default_factory=time.monotonic)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the block's time, however it ends."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - began_s

    @property
    def elapsed_s(self) -> float:
        """Since the operation began."""
        return time.monotonic() - self.began_s

    def split(self) -> dict[str, float]:
        """Seconds by stage; `waiting` is what no stage accounts for."""
        return {**self.seconds, "waiting": max(0.0, self.elapsed_s - sum(self.seconds.values()))}


class Observer:
    """Exposes and scores on one rig.

    Args:
        max_saturated: fraction of pixels at full scale above which a frame is refused.
    """

    def __init__(self, rig: Rig, scorer: Scorer, max_saturated: float) -> None:
        self.rig = rig
        self._scorer = scorer
        self._max_saturated = max_saturated
        self._first: FocusMeasure | None = None
        self._sent_um: float | None = None
        self.stopwatch = Stopwatch()

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[float]:
        """One operation's travel. Yields the z at which it begins; goes back there if it fails or is cancelled.

        Raises:
            CancelledJobError: it was cancelled; as in every error here, `stage_z_um` is where the stage stands now.
        """
        self.stopwatch = Stopwatch()
        self._first = self._sent_um = None
        start_um = await self.rig.begin_operation()
        try:
            yield start_um
        except FocusdError as error:
            error.data["stage_z_um"] = await self._go_home()
            raise
        except anyio.get_cancelled_exc_class():
            z_um = await self._go_home()
            raise CancelledJobError(f"cancelled; the stage stands at {z_um} µm", stage_z_um=z_um) from None
        except Exception:
            await self._go_home()
            raise

    async def _go_home(self) -> float | None:
        """Back to where the operation began, unless the hardware is at fault; returns the last z read back."""
        if not self.rig.fault:
            with anyio.CancelScope(shield=True):
                await self.rig.return_to_start()
        return self.rig.last_z_um

    async def expose(self, z_um: float | None) -> Frame:
        """One exposure at z, or where the stage stands.

        Raises:
            FocusdError: what the rig raises.
        """
        if z_um is not None:
            await self.move_to(z_um)
        with self.stopwatch.timing("exposing"):
            return await self.rig.snap()

    async def look(self, frame: Frame, roi: Region | None) -> Observation:
        """Score a frame; in one operation always the same tiles.

        Raises:
            SaturatedError: too many pixels are at full scale.
            ScoringError: there are no scores.
        """
        with self.stopwatch.timing("scoring"):
            return await to_thread.run_sync(self._look, frame, roi)

    async def move_to(self, z_um: float) -> float:
        """Move, unless this operation's last move went there; returns the z read back."""
        if z_um == self._sent_um and self.rig.last_z_um is not None:
            return self.rig.last_z_um
        self._sent_um = None
        with self.stopwatch.timing("moving"):
            reached_um = await self.rig.move_to(z_um)
        self._sent_um = z_um
        return reached_um

    def _look(self, frame: Frame, roi: Region | None) -> Observation:
        """Scores and spectra of a frame."""
        self._refuse_saturated(frame)
        measure = self._scorer.score(frame.pixels, roi, self._first)
        self._first = self._first or measure
        if not all(np.isfinite(part).all() for part in (measure.b, measure.sigma, measure.structure)):
            raise ScoringError("the scores are NaN or infinite; if that stays so, reinstall focusd")
        s = measure.spectra
        return Observation(
            frame.z_um,
            measure.b,
            measure.sigma,
            measure.structure,
            measure.y_px,
            measure.x_px,
            Blocks(s.power, s.noise, s.modes, s.y_px, s.x_px, s.size_px),
        )

    def _refuse_saturated(self, frame: Frame) -> None:
        fraction = frame.saturated_fraction
        if fraction > self._max_saturated:
            raise SaturatedError(
                f"{fraction:.0%} of the pixels are at full scale ({self._max_saturated:.0%} is allowed); "
                "lower the exposure or the lamp",
                saturated_fraction=fraction,
                z_um=frame.z_um,
            )


def summary(observation: Observation) -> dict[str, Any]:
    """An exposure in the numbers that a person reads: medians over the field."""
    return {
        "z_um": observation.z_um,
        "b": float(np.median(observation.b)),
        "sigma": float(np.median(observation.sigma)),
        "structure": float(np.median(observation.structure)),
    }
