"""What is said of a set of errors: untrimmed, gross failures counted, and those that were reported as success."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.searching import FOCUSED, Ending

Array = NDArray[np.float64]
Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Errors:
    """Of some runs, after a number of exposures.

    Attributes:
        error_um: (runs,) signed; NaN: no answer, a gross failure.
        reported: (runs,) whether the search would have called this a success.
        dof_um: depth of field.
        bound_um: (runs,) what could be known; empty where nobody asked.
    """

    error_um: Array
    reported: NDArray[np.bool_]
    dof_um: float
    bound_um: Sequence[float] = ()

    @property
    def gross(self) -> NDArray[np.bool_]:
        """(runs,) whether the answer is off by more than a depth of field, or missing."""
        return ~(np.abs(self.error_um) <= self.dof_um)

    @property
    def silent(self) -> NDArray[np.bool_]:
        """(runs,) whether that was called a success."""
        return self.gross & self.reported

    def figures(self) -> Figures:
        """One row; the names are those of the JSON. Mean and SD are of the answers alone."""
        known = np.abs(self.error_um[np.isfinite(self.error_um)])
        median = _or_none(np.median, self._sizes)
        return {
            "n": len(self.error_um),
            "median_um": median,
            "mean_um": _or_none(np.mean, known),
            "sd_um": _or_none(np.std, known),
            "p95_um": self.quantile_um(0.95),
            "median_dof": None if median is None else median / self.dof_um,
            "gross_failures": int(self.gross.sum()),
            "silent_failures": int(self.silent.sum()),
            "bound_um": _or_none(np.median, np.asarray(self.bound_um)),
        }

    def quantile_um(self, level: float) -> float | None:
        """Of |error|, no answer among the largest; None where it is no number."""
        return _finite(float(np.quantile(self._sizes, level, method="higher")))

    @property
    def _sizes(self) -> Array:
        """(runs,) |error|; no answer counts as the largest."""
        return np.nan_to_num(np.abs(self.error_um), nan=np.inf)


def of_answers(endings: Sequence[Ending], unit: str, unit_um: Callable[[Ending], float]) -> dict[str, Any]:
    """Of all searches; errors, in a unit that each may have its own of, are those of the answers given as focused."""
    told = [e for e in endings if e.outcome == FOCUSED]
    errors = np.array([abs(e.error_um) / unit_um(e) for e in told])
    outcomes = [e.outcome for e in endings]
    return {
        "runs": len(endings),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "images_mean": _or_none(np.mean, np.array([e.exposures for e in endings])),
        f"median_{unit}": _or_none(np.median, errors),
        f"p95_{unit}": _or_none(lambda each: np.quantile(each, 0.95, method="higher"), errors),
        f"max_{unit}": _or_none(np.max, errors),
        "within_2_sigma": _or_none(np.mean, np.array([abs(e.error_um) <= 2 * e.sigma_um for e in told])),
    }


def trimmed(error_um: Array) -> Array:
    """|errors| within half an interquartile range of the quartiles, as the paper's program drops the others."""
    size = np.abs(error_um)
    low, high = np.quantile(size, (0.25, 0.75))
    reach = 0.5 * (high - low)
    return np.asarray(size[(size >= low - reach) & (size <= high + reach)])


def exposures_to_reach(error_um: Array, limit_um: float, share: float) -> int | None:
    """After how many exposures this share of the runs is, and stays, within a limit.

    Args:
        error_um: (runs, exposures).
    """
    within = (np.abs(error_um) <= limit_um).mean(0) >= share
    lasting = np.logical_and.accumulate(within[::-1])[::-1]
    return int(np.argmax(lasting)) + 1 if lasting.any() else None


def _or_none(figure: Callable[[Array], Any], values: Array) -> float | None:
    return _finite(float(figure(values))) if len(values) else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
