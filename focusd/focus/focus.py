"""What a search is, and what it finds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from focusd.errors import AmbiguousError, HardwareError, NoSampleError, OutOfRangeError
from focusd.focus.blocks import LocalMap
from focusd.focus.geometry import Geometry
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.scale import Scale
from focusd.focus.thickness import THIN_SAMPLE, Thickness
from focusd.optics.bands import BlockSpectra

Surface = Literal["mean", "median", "nearest", "sharpest"]

LEAST_SHARE = 0.8
"""Of the blocks that have to tell their focus before they overrule the search: where most of the field is empty,
blocks see the blurred light of what lies beside them, and are wrong together."""
OFF_SPREAD = 2.0
"""By so much of the spread of the field's focus, the search, for which the sharper parts count more, misses its mean
(standard deviation): slopes and bowls of 1 to 3 depths of field."""


@dataclass(frozen=True)
class Focus:
    """Where the focus is.

    Attributes:
        z_um: of the region of interest.
        sigma_um: standard uncertainty of it.
        local: over the field.
        message: what a user should know about the search, empty if nothing.
        target_um: the uncertainty that was asked for.
        known_um: standard uncertainty as far as exposures tell it, which is held against the target; None: all of it.
        origin_um: standard uncertainty of the calibration's own focus, which no exposure takes away.
        thickness: how far the sample extends along z within a block.
    """

    z_um: float
    sigma_um: float
    local: LocalMap
    message: str = ""
    target_um: float = math.inf
    known_um: float | None = None
    origin_um: float = 0.0
    thickness: Thickness = THIN_SAMPLE

    def with_doubt(self, sigma_um: float) -> float:
        """The uncertainty to report of a plane that blocks know so well: with what no exposure takes away."""
        return math.hypot(sigma_um, self.origin_um, self.thickness.uneven_um)


def surface_of(focus: Focus, geometry: Geometry, surface: Surface) -> tuple[float, float]:
    """The z to go to, and its standard uncertainty; as far as exposures tell it, never above what was asked for.

    The search looks at the field as a whole, where the sharper parts count more: of a field that is not level that is
    not the middle. There its blocks decide, if they know it well enough.

    Args:
        surface: `mean`, `median`, `nearest` to the objective, or `sharpest`: where most of the field is sharp.

    Raises:
        AmbiguousError: the blocks do not tell where the surface asked for lies.
    """
    if surface == "mean":
        return _middle(focus, geometry)
    asked_for = {
        "median": (geometry.median_um, geometry.median_sigma_um),
        "nearest": (geometry.nearest_um, geometry.nearest_sigma_um),
        "sharpest": (geometry.sharpest_um, geometry.sharpest_sigma_um),
    }
    return _asked_for(surface, focus, *asked_for[surface])


def _middle(focus: Focus, geometry: Geometry) -> tuple[float, float]:
    """The mean of the field, and its uncertainty.

    The search is off it by a share of the field's spread. The more the field is spread, and the better the blocks know
    its mean, the more they have a say, unless they do not know it to the target.
    """
    if geometry.shape == "unknown" or focus.local.counts.mean() < LEAST_SHARE:
        return focus.z_um, focus.sigma_um
    if geometry.shape in ("stepped", "thick"):
        z_um, sigma_um = geometry.median_um, _at_best(focus, geometry.median_sigma_um)
    else:
        off_um = OFF_SPREAD * geometry.spread_um
        weight = off_um**2 / (off_um**2 + geometry.mean_sigma_um**2 + focus.thickness.uneven_um**2)
        z_um = focus.z_um + weight * (geometry.mean_um - focus.z_um)
        sigma_um = math.hypot(_at_best(focus, 0.0), math.sqrt(weight) * geometry.mean_sigma_um)
    if sigma_um > focus.target_um or z_um == focus.z_um:
        return focus.z_um, focus.sigma_um
    return z_um, focus.with_doubt(sigma_um)


def _asked_for(surface: Surface, focus: Focus, z_um: float, sigma_um: float) -> tuple[float, float]:
    if math.isnan(z_um):
        raise AmbiguousError(
            f"no part of the field tells where its {surface} surface lies; ask for the mean, or choose another field"
        )
    sigma_um = _at_best(focus, sigma_um)
    if sigma_um > focus.target_um:
        raise AmbiguousError(
            f"the {surface} surface of this field is known to {sigma_um:.2f} µm ({focus.target_um:.2f} µm is "
            "wanted); ask for the mean, choose a region of interest, or accept a larger σ"
        )
    return z_um, focus.with_doubt(sigma_um)


def _at_best(focus: Focus, sigma_um: float) -> float:
    """What blocks say of their uncertainty, but no less than the search's own: they have the same exposures."""
    return max(sigma_um, focus.sigma_um if focus.known_um is None else focus.known_um)


def nothing_seen() -> NoSampleError:
    """What a search raises after three exposures that show nothing."""
    return NoSampleError(
        "the field holds nothing to focus on; move to a textured field, or raise the exposure"
    )


def suspected(what: str) -> HardwareError:
    """What a search raises where the frames contradict the z at which the stage says they were taken."""
    return HardwareError(
        f"the images contradict the reported z: it seems that {what}; check stage and camera (`focusd doctor "
        "--hardware`), and calibrate anew if stage, objective or light have been changed",
        suspect=what,
    )


def explained_nowhere(doubt: str) -> AmbiguousError:
    """What a search raises where no focus, and no fault that it is sure of, explains the exposures.

    Args:
        doubt: the fault that explains them best, if one does.
    """
    return AmbiguousError(
        "the calibration explains these exposures nowhere; "
        + (f"it may be that {doubt}; else " if doubt else "")
        + "take it on a sample of this kind, with this objective and in this light, or look whether the field moves or "
        "changes while it is exposed, and whether stage and camera do what they report"
    )


def far_away(whereabouts: str) -> OutOfRangeError:
    """What a search raises where all exposures lie too far from the focus.

    Args:
        whereabouts: what is known of the focus, in words.
    """
    return OutOfRangeError(whereabouts)


def beyond_reach(whereabouts: str = "bring the sample closer to focus") -> OutOfRangeError:
    """What a search raises where the best place is an end of those that could be looked at."""
    return OutOfRangeError(f"the focus lies beyond the calibrated range or the stage's limits; {whereabouts}")


class Search(ABC):
    """Decides from exposures which one to take next, and where the focus is.

    A search that knows nothing before it can decide, and is satisfied only then, has the answers that are given here.

    Attributes:
        measurements: all exposures so far, in their order.
    """

    measurements: list[Measurement]

    def add(self, measurement: Measurement) -> None:
        """Take one more exposure into account."""
        self.measurements.append(measurement)

    @abstractmethod
    def next_z_um(self) -> float | None:
        """Return where to expose next, after one exposure or more; None when that is not needed.

        Raises:
            NoSampleError, OutOfRangeError: no exposure would help.
        """

    @abstractmethod
    def opening_um(self, start_um: float) -> list[float]:
        """Return the planes to expose first, whatever they show, in this order; one or more.

        Args:
            start_um: where the stage stands.
        """

    @abstractmethod
    def decide(self) -> Focus:
        """Return the focus, of a search that is satisfied or usable.

        Raises:
            NoConvergenceError: it is neither.
        """

    def came_from(self, z_um: float) -> None:  # noqa: B027 - most searches do not ask
        """Take note of where the stage stood before it went to the first of the opening planes."""

    def telling_tiles(self) -> Mask | None:
        """Return the tiles, (rows, columns), that are worth scoring in the next exposure; None: all."""
        return None

    def likely_um(self, exposed_um: float, blocks: BlockSpectra) -> float | None:
        """Return where the stage will most likely be wanted next, for a probe or as the focus; None: not known yet.

        Args:
            exposed_um: of an exposure that is not yet scored.
            blocks: its spectra, all of them or `thinned`.
        """
        return None

    def so_far(self) -> dict[str, float]:
        """Return `focus_um` as far as it is known, its standard uncertainty `sigma_um`, and the one that is asked for,
        `target_um`; empty: not known yet."""
        return {}

    @property
    def believed(self) -> tuple[float, float] | None:
        """The most probable focus by now, however doubtful, and its σ, which says how doubtful; None: no belief."""
        return None

    @property
    def whereabouts(self) -> str:
        """What is known of the focus where it is not found, in words; empty: nothing that would help."""
        return ""

    @property
    def scale(self) -> Scale | None:
        """The scale of the axis, as the exposures tell it; None: they do not."""
        return None

    @property
    def is_usable(self) -> bool:
        """Whether the focus is known well enough to end with, once the budget is spent."""
        return False

    @property
    def besides(self) -> int:
        """How many exposures there may be besides those that the budget allows."""
        return 0
