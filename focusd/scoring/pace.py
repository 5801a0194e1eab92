"""How many tiles of a frame this machine scores in the time that it is given."""

from __future__ import annotations

from collections import deque
from statistics import median

LEAST_TILES = 4
"""Scored whatever they cost: one in each quarter of the field."""
REMEMBERED = 9
"""Frames whose median counts: neither the first one of a process nor a moment's load decides."""


class Pace:
    """Learns what a tile costs, and says how many to score.

    Args:
        most: tiles of a frame, however fast the machine; None: all.
        budget_s: of a frame's scores; None: any.
    """

    def __init__(self, most: int | None, budget_s: float | None) -> None:
        self._most = most
        self._budget_s = budget_s
        self._seconds_per_tile: deque[float] = deque(maxlen=REMEMBERED)

    def took(self, seconds: float, tiles: int) -> None:
        """A frame was scored in so many seconds; what all its tiles share is counted as theirs."""
        self._seconds_per_tile.append(seconds / tiles)

    @property
    def tiles(self) -> int | None:
        """Tiles to score of the next frame whose tiles are free; None: all."""
        if self._budget_s is None or not self._seconds_per_tile:
            return self._most
        fitting = max(LEAST_TILES, int(self._budget_s / median(self._seconds_per_tile)))
        return fitting if self._most is None else min(self._most, fitting)
