"""The focus map's part of both clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from focusd.protocol.messages import JsonObject

MAP_S = 15.0
"""A surface through hundreds of positions takes seconds on a busy machine."""

Answer = TypeVar("Answer")


class MapRequests(ABC, Generic[Answer]):
    """Requests about the slide's focus map; x, y and z in the stage's µm."""

    @abstractmethod
    def _call(self, method: str, params: JsonObject, timeout_s: float) -> Answer: ...

    def map_add(
        self,
        x_um: float,
        y_um: float,
        *,
        z_um: float | None = None,
        sigma_um: float | None = None,
        channel: str | None = None,
    ) -> Answer:
        """Put the last refocus, or the focus given, on the map, in place of one measured there before.

        Args:
            channel: in which it was focused, None: the reference. Its offset is taken off.
        """
        focus = {"z_um": z_um, "sigma_um": sigma_um, "channel": channel}
        return self._call("map.add", {"x_um": x_um, "y_um": y_um, **focus}, MAP_S)

    def map_predict(
        self, positions: Sequence[tuple[float, float]], *, channel: str | None = None, tolerance: float = 0.5
    ) -> Answer:
        """`predictions`: z, σ and advice for each (x, y); `next`: which of them to refocus first, or None.

        Args:
            channel: whose offset is added, None: the reference.
            tolerance: how far off an image may be, in depths of field; the map is trusted where 2σ are less.
        """
        params = {"positions": list(positions), "channel": channel, "tolerance": tolerance}
        return self._call("map.predict", params, MAP_S)

    def map_get(self) -> Answer:
        """All `positions`, `offsets_um`, and the `surface` through them."""
        return self._call("map.get", {}, MAP_S)

    def map_offset(self, channel: str, offset_um: float | None) -> Answer:
        """Set what a channel's focus lies above the reference; None forgets it."""
        return self._call("map.offset", {"channel": channel, "offset_um": offset_um}, MAP_S)

    def map_clear(self) -> Answer:
        """Forget the positions, for a new slide; the channels' offsets stay."""
        return self._call("map.clear", {}, MAP_S)
