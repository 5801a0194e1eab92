"""The way of a calibration stack, gone in thought before light is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from focusd.config import StageConfig
from focusd.errors import TravelLimitError
from focusd.microscope.guard import StageGuard


def rehearse(
    way_um: Sequence[float], start_um: float, stage: StageConfig, within_um: tuple[float, float]
) -> None:
    """Go the whole way with a guard that moves nothing.

    The way home is not counted: the guard gives it free, so that a stage always comes home.

    Args:
        way_um: all z that the stage is to be sent to, in their order.
        start_um: where it stands.
        within_um: lowest and highest z that may be on the way, besides the stage's limits.

    Raises:
        TravelLimitError: some z is outside the limits, or the way is too long; it says which range would do.
    """
    # In few steps: the way is as long in many, and there may be very many of them.
    guard = StageGuard(stage.model_copy(update={"max_step_um": stage.max_um - stage.min_um}))
    guard.begin_operation(start_um)
    try:
        for from_um, to_um in pairwise((start_um, *way_um)):
            for _ in guard.plan(from_um, to_um):
                pass
            _require_within(to_um, within_um)
    except TravelLimitError as error:
        advice = _advice(way_um, start_um, stage.max_travel_um, within_um)
        raise TravelLimitError(f"{error.message}; {advice}", **error.data) from None


def _require_within(z_um: float, within_um: tuple[float, float]) -> None:
    low_um, high_um = within_um
    if not low_um <= z_um <= high_um:
        raise TravelLimitError(
            f"z = {z_um:.3f} µm is beyond what a run may use, {low_um:g} … {high_um:g} µm",
            z_um=z_um,
            min_um=low_um,
            max_um=high_um,
        )


def _advice(
    way_um: Sequence[float], start_um: float, max_travel_um: float, within_um: tuple[float, float]
) -> str:
    """The widest stack around the start that the limits and the travel allow."""
    path_um = sum(abs(to - from_) for from_, to in pairwise((start_um, *way_um)))
    reach_um = max(way_um) - start_um, start_um - min(way_um)
    by_limits_um = min(within_um[1] - start_um, start_um - within_um[0])
    by_travel_um = max(reach_um) * max_travel_um / path_um if path_um else by_limits_um
    widest_um = max(0.0, min(by_limits_um, by_travel_um))
    return f"no exposure was taken; from z = {start_um:.4g} µm a stack of ±{widest_um:.3g} µm is the widest"
