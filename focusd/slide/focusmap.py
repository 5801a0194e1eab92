"""A focus map over a slide: from positions that were refocused to z ± σ at others, and whether to refocus there.

The map holds the focus of the reference channel alone. Offsets of other channels are kept beside it: they belong to
the optics, not to the slide, are taken off what is measured and added to what is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from focusd.errors import RequestError
from focusd.protocol.slide import MapPosition, MapSlopes, MapSurface, SlideSurface
from focusd.slide.surface import Surface, fit_surface

FORMAT = 1
SAME_PLACE_UM = 1.0
"""A position measured again, within what stages repeat, takes the place of the old one."""
MAX_POSITIONS = 1000
"""More make the file long and the surface no better."""
MIN_SIGMA_UM = 1e-3
"""A smaller uncertainty is a mistake."""
GRID = 25
"""Points along each side of the surface that is described."""
SURE = 2.0
"""The map is trusted where this many σ are within the tolerance: 19 times of 20."""

Xy = tuple[float, float]


@dataclass(frozen=True)
class Position:
    """A measured focus, in the stage's coordinates and the reference channel."""

    x_um: float
    y_um: float
    z_um: float
    sigma_um: float


@dataclass(frozen=True)
class Prediction:
    """The focus at a position, in the channel that was asked for; None: the map is empty."""

    x_um: float
    y_um: float
    z_um: float | None
    sigma_um: float | None
    advice: Literal["trust", "refocus"]
    reason: str


@dataclass(frozen=True)
class FocusMap:
    """Measured positions and the channels' offsets. It never changes: each change is a new map."""

    positions: tuple[Position, ...] = ()
    offsets_um: Mapping[str, float] = field(default_factory=dict)

    def measured(self, position: Position, channel: str | None = None) -> FocusMap:
        """The map with a position that was focused in a channel; None: the reference.

        Raises:
            RequestError: a number is not finite, the map is full, or it does not know the channel.
        """
        if not all(map(math.isfinite, (position.x_um, position.y_um, position.z_um))):
            raise RequestError(
                f"a position on the map has a finite x, y and z, not {position.x_um:g}, {position.y_um:g}, "
                f"{position.z_um:g} µm; read the stage's position again"
            )
        if not MIN_SIGMA_UM <= position.sigma_um < math.inf:
            raise RequestError(
                f"σ = {position.sigma_um:g} µm: no focus is known better than to {MIN_SIGMA_UM:g} µm; give the "
                "uncertainty of the measurement"
            )
        referred = replace(position, z_um=position.z_um - self.offset_um(channel))
        others = tuple(p for p in self.positions if not _same_place(p, position))
        if len(others) >= MAX_POSITIONS:
            raise RequestError(
                f"the map holds {MAX_POSITIONS} positions, and needs no more; clear it for a new slide"
            )
        return replace(self, positions=(*others, referred))

    def with_offset(self, channel: str, offset_um: float | None) -> FocusMap:
        """The map with a channel's offset from the reference; None: forgotten."""
        others = {name: um for name, um in self.offsets_um.items() if name != channel}
        return replace(self, offsets_um=others if offset_um is None else others | {channel: offset_um})

    def cleared(self) -> FocusMap:
        """No positions; the offsets stay."""
        return replace(self, positions=())

    def offset_um(self, channel: str | None) -> float:
        """What a channel's focus lies above that of the reference.

        Raises:
            RequestError: the map does not know the channel.
        """
        if channel is None:
            return 0.0
        if channel not in self.offsets_um:
            known = ", ".join(map(repr, self.offsets_um)) or "none"
            raise RequestError(
                f"the channel {channel!r} has no offset (known: {known}); set one with map.offset"
            )
        return self.offsets_um[channel]

    @cached_property
    def surface(self) -> Surface:
        """Fitted to the positions, of which there must be one."""
        values = np.array([(p.x_um, p.y_um, p.z_um, p.sigma_um) for p in self.positions])
        return fit_surface(values[:, :2], values[:, 2], values[:, 3])

    def predict(
        self, xy_um: Sequence[Xy], tolerance_um: float, channel: str | None = None
    ) -> list[Prediction]:
        """The focus at positions, and whether a refocus there is worth its dose.

        Args:
            xy_um: (x, y) of the stage.
            tolerance_um: how far off an image may be; the map is trusted where 2σ are less.
            channel: whose offset is added; None: the reference.

        Raises:
            RequestError: the map does not know the channel.
        """
        offset_um = self.offset_um(channel)
        if not self.positions:
            return [Prediction(x, y, None, None, "refocus", "the map is empty") for x, y in xy_um]
        z, sigma = self.surface.predict(np.array(xy_um, np.float64))
        return [
            self._prediction(xy, float(z_um) + offset_um, float(sigma_um), tolerance_um)
            for xy, z_um, sigma_um in zip(xy_um, z, sigma, strict=True)
        ]

    def _prediction(self, xy_um: Xy, z_um: float, sigma_um: float, tolerance_um: float) -> Prediction:
        width = f"2σ = {SURE * sigma_um:.2g} µm"
        if SURE * sigma_um <= tolerance_um:
            return Prediction(*xy_um, z_um, sigma_um, "trust", f"{width}, within {tolerance_um:.2g} µm")
        away_mm = min(math.dist(xy_um, (p.x_um, p.y_um)) for p in self.positions) / 1000
        reason = (
            f"{width}, more than {tolerance_um:.2g} µm; {away_mm:.2g} mm from the nearest measured position"
        )
        return Prediction(*xy_um, z_um, sigma_um, "refocus", reason)

    def next_to_measure(self, predictions: Sequence[Prediction]) -> int | None:
        """Index of the position whose refocus would tell most about all that the map is not trusted at; None: none."""
        unsure = [index for index, prediction in enumerate(predictions) if prediction.advice == "refocus"]
        if not unsure:
            return None
        if not self.positions:
            return _most_central(predictions)
        return unsure[
            self.surface.best_of(np.array([(predictions[i].x_um, predictions[i].y_um) for i in unsure]))
        ]

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "format": FORMAT,
            "positions": [asdict(p) for p in self.positions],
            "offsets_um": dict(self.offsets_um),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FocusMap:
        """What `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is something else.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, this focusd reads {FORMAT}")
        positions = tuple(
            Position(**{name: float(p[name]) for name in _COORDINATES}) for p in values["positions"]
        )
        offsets = {str(channel): float(um) for channel, um in values["offsets_um"].items()}
        numbers = [*offsets.values(), *(number for p in positions for number in asdict(p).values())]
        if not all(map(math.isfinite, numbers)) or any(p.sigma_um <= 0 for p in positions):
            raise ValueError("a number is not finite, or a σ not positive")
        return cls(positions, offsets)

    def describe(self) -> SlideSurface:
        """Positions, offsets, and the surface: what `pictures.draw_map` draws."""
        offsets_um = dict(self.offsets_um)
        if not self.positions:
            return SlideSurface(positions=[], offsets_um=offsets_um, slopes_mrad=None, surface=None)
        (x, y), (sigma_x, sigma_y) = self.surface.slopes()
        return SlideSurface(
            positions=self._judged(),
            offsets_um=offsets_um,
            slopes_mrad=MapSlopes(x=x, y=y, sigma_x=sigma_x, sigma_y=sigma_y),
            surface=self._grid(),
        )

    def _judged(self) -> list[MapPosition]:
        """Whether each position counts, and its distance from where the others alone expect it."""
        off_um = self.surface.z_um - self.surface.expected[0]
        return [
            MapPosition(**asdict(position), counts=bool(counts), off_um=float(off))
            for position, counts, off in zip(self.positions, self.surface.kept, off_um, strict=True)
        ]

    def _grid(self) -> MapSurface:
        """The surface and its σ over the measured part of the slide."""
        low, high = self.surface.xy_um.min(0), self.surface.xy_um.max(0)
        margin = max(0.05 * float((high - low).max()), 100.0)
        x, y = (np.linspace(low[i] - margin, high[i] + margin, GRID) for i in (0, 1))
        places = np.stack(np.meshgrid(x, y), -1)
        z, sigma = (
            values.reshape(GRID, GRID).tolist() for values in self.surface.predict(places.reshape(-1, 2))
        )
        return MapSurface(x_um=x.tolist(), y_um=y.tolist(), z_um=z, sigma_um=sigma)


_COORDINATES = ("x_um", "y_um", "z_um", "sigma_um")


def _same_place(a: Position, b: Position) -> bool:
    return math.hypot(a.x_um - b.x_um, a.y_um - b.y_um) <= SAME_PLACE_UM


def _most_central(predictions: Sequence[Prediction]) -> int:
    """Where nothing is known yet, the middle is nearest to everything."""
    xy = np.array([(p.x_um, p.y_um) for p in predictions])
    return int(np.argmin(((xy - xy.mean(0)) ** 2).sum(1)))
