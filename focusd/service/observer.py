"""Move, expose, score: one exposure as the decisions see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from focusd.autofocus.observation import Observation
from focusd.errors import CancelledJobError, FocusdError, HardwareError, SaturatedError
from focusd.microscope.protocol import Frame
from focusd.service.metrics import STAGE_SECONDS
from focusd.service.rig import Rig
from focusd.sharpness.scorer import Region, Scorer

MAX_LIGHT_RATIO = 3.0
"""Of the means of two frames of one operation."""


class Observer:
    """Exposes and scores on one rig.

    Args:
        max_saturated: fraction of pixels at full scale above which a frame is refused.
    """

    def __init__(self, rig: Rig, scorer: Scorer, max_saturated: float) -> None:
        self.rig = rig
        self._scorer = scorer
        self._max_saturated = max_saturated
        self._light: float | None = None
        """Mean of the operation's first frame."""

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[float]:
        """One operation's travel. Yields the z at which it begins; goes back there if it fails or is cancelled.

        Raises:
            CancelledJobError: it was cancelled; as in every error here, `stage_z_um` is where the stage stands now.
        """
        start_um = await self.rig.begin_operation()
        self._light = None
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

    async def observe(self, z_um: float | None, roi: Region | None) -> Observation:
        """The scores of one exposure at z, or where the stage stands.

        Raises:
            SaturatedError: too many pixels at full scale; and what rig and scorer raise.
        """
        if z_um is not None:
            await self.rig.move_to(z_um)
        frame = await self.rig.snap()
        _refuse_dead(frame)
        self._refuse_saturated(frame)
        self._refuse_other_light(frame)
        with STAGE_SECONDS.labels("score").time():
            measure = await to_thread.run_sync(self._scorer.score, frame.pixels, roi)
        return Observation(frame.z_um, measure.b, measure.sigma, measure.structure)

    def _refuse_saturated(self, frame: Frame) -> None:
        fraction = frame.saturated_fraction
        if fraction > self._max_saturated:
            raise SaturatedError(
                f"{fraction:.0%} of the pixels are at full scale ({self._max_saturated:.0%} is allowed); "
                "lower the exposure or the lamp",
                saturated_fraction=fraction,
                z_um=frame.z_um,
            )

    def _refuse_other_light(self, frame: Frame) -> None:
        """Defocus spreads light and loses none: a mean that jumps is a shutter or a lamp, not a depth."""
        mean = float(frame.pixels.mean())
        before = self._light = self._light or mean
        if not before / MAX_LIGHT_RATIO <= mean <= before * MAX_LIGHT_RATIO:
            raise HardwareError(
                f"the light has changed from a mean of {before:.0f} to {mean:.0f} since this operation began: check "
                "lamp and shutter, and keep both as they are until it ends",
                z_um=frame.z_um,
            )


def _refuse_dead(frame: Frame) -> None:
    """Light or no light, a camera that reads out has noise. Dead frames among good ones would bend the answer."""
    value = frame.pixels.flat[0]
    if 0 <= value < frame.full_scale and (frame.pixels == value).all():
        raise HardwareError(
            f"all pixels of the frame are {value}: the camera does not read out; check it and its connection",
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
