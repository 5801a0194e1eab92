"""What the methods of the slide's focus map answer; x, y and z in the stage's µm."""

from typing import Literal

from focusd.protocol.model import Known, Result


class MapPoint(Result):
    """A measured focus, in the reference channel."""

    x_um: float
    y_um: float
    z_um: float
    sigma_um: float
    """Standard uncertainty of z."""


class MapAdded(MapPoint):
    """What was put on the map."""

    positions: int
    """Positions that the map holds now."""


class MapPosition(MapPoint):
    """A position on the map."""

    counts: bool
    """False: it contradicts the others, and is left out."""
    off_um: Known
    """Distance from where the others alone expect it."""


class MapPrediction(Result):
    """The focus at a position, in the channel that was asked for; None: the map is empty."""

    x_um: float
    y_um: float
    z_um: float | None
    sigma_um: float | None
    """Standard uncertainty of z."""
    advice: Literal["trust", "refocus"]
    reason: str


class MapPredictions(Result):
    """One prediction for each position, in their order."""

    predictions: list[MapPrediction]
    next: int | None
    """Index of the position whose refocus would tell most about the others; None: all are trusted."""
    dof_um: float
    """Depth of field."""


class MapSlopes(Result):
    """Slope of the slide, mrad, with its standard uncertainties."""

    x: float
    y: float
    sigma_x: float
    sigma_y: float


class MapSurface(Result):
    """The surface over the measured part of the slide."""

    x_um: list[float]
    y_um: list[float]
    z_um: list[list[float]]
    """(len(y_um), len(x_um)) z."""
    sigma_um: list[list[float]]
    """(len(y_um), len(x_um)) standard uncertainty of z."""


class SlideSurface(Result):
    """Positions, offsets, and the surface through them."""

    positions: list[MapPosition]
    offsets_um: dict[str, float]
    """How far the focus of each channel lies above that of the reference."""
    slopes_mrad: MapSlopes | None
    """None: the map is empty."""
    surface: MapSurface | None


class FocusMapResult(SlideSurface):
    """The slide's focus map."""

    path: str
    """Its file on the daemon's disk."""


class MapOffsets(Result):
    """The offsets of all channels."""

    offsets_um: dict[str, float]
    """How far the focus of each channel lies above that of the reference."""


class MapCleared(Result):
    """The positions are forgotten."""

    cleared: int
    """Positions that the map held."""
