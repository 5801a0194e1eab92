"""What a search is, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from focusd.autofocus.observation import Observation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LocalMap:
    """The focus over the field; all arrays (rows, columns).

    Attributes:
        focus_um: NaN where it is not known.
        sigma_um: standard uncertainty, NaN likewise.
        y_px, x_px: centres of the places, in pixels of the frame.
    """

    focus_um: Array
    sigma_um: Array
    y_px: Array
    x_px: Array


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

    def decide(self) -> Focus:
        """The focus.

        Raises:
            NoConvergenceError: it is not known well enough.
        """
        ...
