"""The backlash of a stage, from where the focus is found by planes approached from below and by planes from above.

A stage with backlash stands behind what it reads by half of it, to the side that it comes from. So does the z of the
focus, and the difference of the two is the backlash, whatever the sample, its drift and the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from focusd.errors import OutOfRangeError

ROUND = (1, -1, -1, 1)
"""Sides of the foci of one round: 1 as the first. A sample that drifts evenly is seen as if it rested."""
LENGTHS = (1.0, 2.0)
"""How far the stage goes beyond, in turn: a backlash that is longer shows itself by what it changes then."""
_DISAGREE = 3.0
"""σ by which what the two lengths have shown may differ."""
_SEEN = 2.0
"""A backlash of fewer σ is none that could be seen."""
_MARGIN = 1.2
"""Of what is advised over what was found: backlash differs with place, load and temperature."""


@dataclass(frozen=True)
class Found:
    """A focus, with all planes approached from one side.

    Attributes:
        way: 1: from below; -1: from above.
        beyond_um: how far the stage went beyond each plane before.
    """

    way: int
    beyond_um: float
    focus_um: float
    sigma_um: float


@dataclass(frozen=True)
class Backlash:
    """What some rounds have shown.

    Attributes:
        backlash_um: how much higher the focus reads from below than from above.
        sigma_um: standard uncertainty of it.
        differences_um: of each round.
        advised_um: what the stage has to go beyond from now on; 0: no backlash could be seen.
    """

    backlash_um: float
    sigma_um: float
    differences_um: tuple[float, ...]
    advised_um: float


def backlash_of(found: Sequence[Found]) -> Backlash:
    """Return what whole rounds of foci say of the backlash.

    Raises:
        OutOfRangeError: it changes with how far the stage went beyond, which was too short.
    """
    foci = np.array([each.focus_um for each in found]).reshape(-1, len(ROUND))
    sigmas = np.array([each.sigma_um for each in found]).reshape(-1, len(ROUND))
    ways = np.array([each.way for each in found]).reshape(-1, len(ROUND))
    beyond_um = np.array([each.beyond_um for each in found]).reshape(-1, len(ROUND))[:, 0]
    differences = 2 * (ways * foci).mean(axis=1)
    each_um = np.sqrt((sigmas**2).sum(axis=1)) * 2 / len(ROUND)
    _require_agreement(differences, each_um, beyond_um)
    mean_um, sigma_um = float(differences.mean()), _sigma_of_mean(differences, each_um)
    most_um = _MARGIN * (mean_um + _SEEN * sigma_um)
    return Backlash(
        mean_um,
        sigma_um,
        tuple(differences.tolist()),
        math.ceil(10 * most_um) / 10 if mean_um > _SEEN * sigma_um else 0.0,
    )


def _sigma_of_mean(differences: np.ndarray, each_um: np.ndarray) -> float:
    """What the foci say of themselves, or their scatter, where that is larger."""
    count = len(differences)
    scatter_um = float(differences.std(ddof=1)) if count > 1 else 0.0
    return max(scatter_um, math.sqrt(float((each_um**2).mean()))) / math.sqrt(count)


def _require_agreement(differences: np.ndarray, each_um: np.ndarray, beyond_um: np.ndarray) -> None:
    """Raises OutOfRangeError where a longer way beyond shows another backlash, or one that is longer than the way."""
    is_short = beyond_um == beyond_um.min()
    lengths = [chosen for chosen in (is_short, ~is_short) if chosen.any()]
    means_um = [float(differences[chosen].mean()) for chosen in lengths]
    sigma_um = math.hypot(*(_sigma_of_mean(differences[chosen], each_um[chosen]) for chosen in lengths))
    if max(means_um) > beyond_um.min() or max(means_um) - min(means_um) > _DISAGREE * sigma_um:
        seen = " and ".join(f"{mean_um:.2f} µm" for mean_um in means_um)
        raise OutOfRangeError(
            f"the backlash seems to be {seen}, by how far the stage went beyond: it is larger than "
            f"{beyond_um.min():g} µm, or the stage does not repeat itself; measure again with a larger up_to_um"
        )
