"""What a search that has to end without a focus still knows of it, in words: how far, which way, what to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.frame import SAME_Z_UM
from focusd.focus.posterior import Evidence, log_scores

Array = NDArray[np.float64]

UNSURE_B = 0.08
"""σ of a score above which it tells no depth: it is below 0.04 wherever the curve is calibrated, and 0.1 to 0.5 where a
sample lies further than 1.5 times that away (simulated cells, beads and filaments at 10×/0.3)."""
_NEAR_END = 0.97
"""Share of the curve's highest value from which a score only tells that the sample lies at its end or beyond."""
_AS_MUCH = 0.5
"""Share of the highest contrast of a run."""
_EXCLUDED = 2.0
"""A place that the scores make less likely by this factor, e², is left out."""
_CLEAR = 0.7
"""R² of the line through the contrast over z from which it shows the way."""
_CHANGED = 1.5
"""Factor by which the contrast has to change over the exposures to show the way."""


def telling(evidence: Sequence[Evidence], calibration: Calibration) -> list[Evidence]:
    """The exposures whose score tells the distance. The nearest to the focus have the most contrast as well: a network
    that is shown a blur beyond its training may take it for a sharp image of something smooth."""
    sure = [could_be_inside(e, calibration) and e.sigma < UNSURE_B for e in evidence]
    contrast = _contrast(evidence)
    return [
        e
        for e, is_sure, its in zip(evidence, sure, contrast, strict=True)
        if is_sure and its >= _AS_MUCH * contrast.max()
    ]


def whereabouts(evidence: Sequence[Evidence], calibration: Calibration) -> str:
    """Where the focus may be, and what to do about it.

    Args:
        evidence: of one exposure or more.
    """
    if near := telling(evidence, calibration):
        best = min(near, key=lambda e: e.b or 0.0)
        places = _places(best, evidence, calibration)
        return f"the score of the exposure at {best.z_um:.1f} µm puts the focus near {places}: start there"
    z_um, way = [e.z_um for e in evidence], rising(evidence)
    return (
        f"no exposure from {min(z_um):.1f} to {max(z_um):.1f} µm shows the sample near its focus, which seems to lie "
        f"more than {calibration.max_um:.3g} µm away from all of them"
        + (f", towards {way} z, where the contrast rises" if way else "")
        + ": bring the sample closer to focus by eye, or calibrate over a wider range"
    )


def could_be_inside(exposure: Evidence, calibration: Calibration) -> bool:
    """Whether a score, sure or not, says that the defocus lies in the calibrated range."""
    highest = min(float(calibration.b[0]), float(calibration.b[-1]))
    return exposure.b is not None and exposure.b < _NEAR_END * highest


def _contrast(evidence: Sequence[Evidence]) -> Array:
    """Power of each exposure above its noise, (frames,)."""
    return np.array(
        [float(((e.spectrum.power - e.spectrum.noise) * e.spectrum.modes).clip(0).sum()) for e in evidence]
    )


def _places(nearest: Evidence, evidence: Sequence[Evidence], calibration: Calibration) -> str:
    """The one or two z that the score of an exposure allows, and the other scores do not exclude."""
    lowest = int(np.argmin(calibration.b))
    sides = slice(lowest, None, -1), slice(lowest, None)
    defocus_um = [np.interp(nearest.b or 0.0, calibration.b[s], calibration.z_um[s]) for s in sides]
    places_um = nearest.z_um - np.array(defocus_um)
    log = log_scores(np.subtract.outer([e.z_um for e in evidence], places_um), evidence, calibration)
    left = sorted({round(float(z_um), 1) for z_um in places_um[log > log.max() - _EXCLUDED]})
    return " or ".join(f"{z_um:g} µm" for z_um in left)


def rising(evidence: Sequence[Evidence]) -> str:
    """Towards which z the contrast rises: `lower`, `higher`, or empty if that is not clear."""
    z_um, contrast = np.array([e.z_um for e in evidence]), np.log(_contrast(evidence).clip(1e-30))
    if len(evidence) < 3 or np.ptp(z_um) < SAME_Z_UM:
        return ""
    slope, offset = np.polyfit(z_um, contrast, 1)
    explained = 1 - np.var(contrast - slope * z_um - offset) / max(float(np.var(contrast)), 1e-30)
    if explained < _CLEAR or abs(slope) * np.ptp(z_um) < np.log(_CHANGED):
        return ""
    return "higher" if slope > 0 else "lower"
