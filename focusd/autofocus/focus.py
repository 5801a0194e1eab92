"""What a search is, and what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from focusd.autofocus.geometry import Geometry, LocalMap
from focusd.autofocus.observation import Observation
from focusd.errors import AmbiguousError, NoSampleError, OutOfRangeError
from focusd.optics.bands import BlockSpectra

Surface = Literal["mean", "median", "nearest"]

LEAST_SHARE = 0.5
"""Of the field's blocks that have to tell their focus before they overrule the search: a few may be wrong together."""


@dataclass(frozen=True)
class Focus:
    """Where the focus is.

    Attributes:
        z_um: of the region of interest.
        sigma_um: standard uncertainty of it.
        local: over the field.
        message: what a user should know about the search, empty if nothing.
    """

    z_um: float
    sigma_um: float
    local: LocalMap
    message: str = ""


def surface_of(focus: Focus, geometry: Geometry, surface: Surface) -> tuple[float, float]:
    """The z to go to, and its standard uncertainty.

    The search looks at the field as a whole, where the sharper parts count more: of a sloped or stepped field that
    is not the middle. There its blocks decide.

    Args:
        surface: `mean`, `median`, or `nearest` to the objective.

    Raises:
        AmbiguousError: no block tells where the surface asked for lies.
    """
    if surface != "mean":
        return _asked_for(geometry, surface), focus.sigma_um
    if geometry.shape == "unknown" or focus.local.counts.mean() < LEAST_SHARE:
        return focus.z_um, focus.sigma_um
    if geometry.shape in ("stepped", "thick"):
        return geometry.median_um, max(geometry.plane.residual_um, focus.sigma_um)
    if geometry.plane.is_sloped:
        return geometry.plane.z_um, max(geometry.plane.sigma_um, focus.sigma_um)
    return focus.z_um, focus.sigma_um


def _asked_for(geometry: Geometry, surface: Surface) -> float:
    z_um = geometry.nearest_um if surface == "nearest" else geometry.median_um
    if math.isnan(z_um):
        raise AmbiguousError(
            f"no part of the field tells where its {surface} surface lies; ask for the mean, or choose another field"
        )
    return z_um


def nothing_seen() -> NoSampleError:
    """What a search raises after three exposures that show nothing."""
    return NoSampleError(
        "the field holds nothing to focus on; move to a textured field, or raise the exposure"
    )


def beyond_reach() -> OutOfRangeError:
    """What a search raises where the best place is an end of those that could be looked at."""
    return OutOfRangeError(
        "the focus lies beyond the calibrated range or the stage's limits; bring the sample closer to focus"
    )


class Search(Protocol):
    """Decides from exposures which one to take next, and where the focus is."""

    observations: list[Observation]

    def add(self, observation: Observation) -> None:
        """Take one more exposure into account."""
        ...

    def next_z_um(self) -> float | None:
        """Where to expose next, after one exposure or more; None when that is not needed.

        Raises:
            NoSampleError, OutOfRangeError: no exposure would help.
        """
        ...

    def likely_um(self, exposed_um: float, blocks: BlockSpectra | None = None) -> float | None:
        """Where the stage will most likely be wanted next, for a probe or as the focus; None: nobody knows yet.

        Args:
            exposed_um: of an exposure that is not yet scored.
            blocks: its spectra, where they are known.
        """
        ...

    def decide(self) -> Focus:
        """The focus.

        Raises:
            NoConvergenceError: it is not known well enough.
        """
        ...
