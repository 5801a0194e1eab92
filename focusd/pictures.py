"""Pictures of what focusd says, drawn from its JSON alone: the focus of a field, a slide's focus map, a hold's drift.

This needs matplotlib and NumPy, which a client that draws nothing does without: import it late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from focusd.driftlog import Event, minutes_of
from focusd.errors import RequestError

Json = dict[str, Any]
Array = NDArray[np.float64]
Extent = tuple[float, float, float, float]

KINDS = (".png", ".svg", ".pdf")


def checked(path: Path) -> Path:
    """A path that a picture can be written to: told before exposures are spent.

    Raises:
        RequestError: another kind of file, or no such folder.
    """
    if path.suffix.lower() not in KINDS:
        raise RequestError(f"{path}: a picture's name ends with {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent}: there is no such folder")
    return path


def draw_field(geometry: Json, path: Path) -> None:
    """The local focus of a field relative to its plane's middle, the plane's contours, hatched where nothing counts.

    Args:
        geometry: `geometry` of a refocus' result.
        path: .png, .svg or .pdf.
    """
    plane = geometry["plane"]
    scale, unit = (geometry["pixel_um"], "µm") if geometry["pixel_um"] else (1.0, "px")
    height = np.array(geometry["focus_um"], np.float64) - (plane["z_um"] or 0.0)
    y, x = (scale * np.array(geometry[name], np.float64) for name in ("y_px", "x_px"))
    extent = _extent(y, x, scale * geometry["block_px"])
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.patch.set(hatch="////", facecolor="white", edgecolor="silver")
    largest = max(float(np.nanmax(np.abs(height))), 0.1) if np.isfinite(height).any() else 0.1
    image = axes.imshow(height, extent=extent, cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.colorbar(image, label=f"Δz (µm) from z = {_shown(plane['z_um'], '.2f')} µm")
    _draw_contours(axes, plane, extent, scale)
    axes.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})", title=_field_title(geometry))
    figure.savefig(path, dpi=110)


def draw_map(described: Json, path: Path) -> None:
    """The surface through the measured positions, and its uncertainty.

    Args:
        described: the answer to `map.get`, with one position or more.
        path: .png, .svg or .pdf.

    Raises:
        RequestError: the map is empty.
    """
    surface = described["surface"]
    if surface is None:
        raise RequestError("the map is empty: there is nothing to draw")
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, name, label, colours in zip(
        figure.subplots(1, 2), ("z_um", "sigma_um"), ("z (µm)", "σ (µm)"), ("viridis", "magma_r"), strict=True
    ):
        drawn = axes.pcolormesh(*_mm(surface["x_um"], surface["y_um"]), surface[name], cmap=colours)
        figure.colorbar(drawn, label=label)
        _draw_positions(axes, described["positions"])
        axes.set(xlabel="x (mm)", ylabel="y (mm)", aspect="equal")
    figure.suptitle(_map_title(described))
    figure.savefig(path, dpi=110)


def draw_drift(estimates: list[Event], path: Path) -> None:
    """Focus and stage over time, and how sure the hold was.

    Args:
        estimates: of `driftlog.estimates_of`.
        path: .png, .svg or .pdf.
    """
    hours = [minute / 60 for minute in minutes_of(estimates)]
    data = [event["data"] for event in estimates]
    focus, sigma, stage = ([d[name] for d in data] for name in ("focus_um", "sigma_um", "z_um"))
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    low, high = zip(*((f - 2 * s, f + 2 * s) for f, s in zip(focus, sigma, strict=True)), strict=True)
    top.fill_between(hours, low, high, color="tab:blue", alpha=0.2, label="±2σ")
    top.plot(hours, focus, color="tab:blue", label="focus, estimated")
    top.plot(hours, stage, color="black", linewidth=0.8, drawstyle="steps-post", label="stage")
    failed = [(h, d["z_um"]) for h, d in zip(hours, data, strict=True) if d["source"] == "failed"]
    if failed:
        top.plot(*zip(*failed, strict=True), "x", color="tab:red", label="failed checks")
    top.set(ylabel="z (µm)")
    top.legend()
    bottom.plot(hours, [d["exposures"] for d in data], color="tab:orange", drawstyle="steps-post")
    bottom.set(xlabel="hours", ylabel="exposures of the hold")
    figure.savefig(path, dpi=110)


def _extent(y: Array, x: Array, block: float) -> Extent:
    """Left, right, bottom, top of an image whose cells are centred on the blocks; y grows downwards."""
    (bottom, top), (left, right) = (
        (p.min() - half, p.max() + half)
        for p, half in ((y, _pitch(y, block) / 2), (x, _pitch(x.T, block) / 2))
    )
    return float(left), float(right), float(top), float(bottom)


def _pitch(place: Array, block: float) -> float:
    """Distance of neighbouring rows; of a single row, its blocks' size."""
    return float(place[1, 0] - place[0, 0]) if len(place) > 1 else block


def _draw_contours(axes: Axes, plane: Json, extent: Extent, scale: float) -> None:
    """Lines of equal focus on the fitted plane; none where it is level or not known."""
    if plane["tip_um"] is None or plane["tilt_um"] is None or not (plane["tip_um"] or plane["tilt_um"]):
        return
    left, right, bottom, top = extent
    x, y = np.meshgrid(np.linspace(left, right, 50), np.linspace(top, bottom, 50))
    along_y = plane["tip_um"] * (y - scale * plane["y_px"]) / plane["height_px"]
    along_x = plane["tilt_um"] * (x - scale * plane["x_px"]) / plane["width_px"]
    lines = axes.contour(x, y, (along_y + along_x) / scale, levels=7, colors="black", linewidths=0.8)
    axes.clabel(lines, fmt="%+.2g", fontsize=8)


def _field_title(geometry: Json) -> str:
    plane = geometry["plane"]
    slopes = (
        f"{name} {_shown(plane[f'{name}_um'], '+.2f')} ± {_shown(plane[f'{name}_sigma_um'], '.2f')} µm"
        for name in ("tip", "tilt")
    )
    return f"{geometry['shape']}: {', '.join(slopes)}\nσ(z) {_shown(plane['sigma_um'], '.2f')} µm"


def _draw_positions(axes: Axes, positions: list[Json]) -> None:
    """Where it was measured; crossed out what does not count."""
    for counts, marker, label in ((True, "o", "measured"), (False, "X", "left out")):
        chosen = [p for p in positions if p["counts"] is counts]
        if chosen:
            places = _mm([p["x_um"] for p in chosen], [p["y_um"] for p in chosen])
            axes.scatter(*places, marker=marker, color="white", edgecolors="black", label=label)
    axes.legend(fontsize=8)


def _map_title(described: Json) -> str:
    slopes = described["slopes_mrad"]
    told = ", ".join(
        f"{axis} {slopes[axis]:+.2f} ± {slopes[f'sigma_{axis}']:.2f} mrad" for axis in ("x", "y")
    )
    return f"focus map of {len(described['positions'])} positions; slope along {told}"


def _mm(*values_um: list[float]) -> list[Array]:
    return [np.array(values) / 1000 for values in values_um]


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
