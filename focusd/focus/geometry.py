"""The shape of a field: the plane through its local focus, and whether a plane tells the truth."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import LocalMap, shared_area
from focusd.focus.depth import depths_of, sharpest, spread_of
from focusd.focus.levels import two_levels
from focusd.focus.paraboloid import FREE_UM, fit_paraboloid, robust_fit
from focusd.protocol.results import FieldGeometry, Shape

Array = NDArray[np.float64]
Direction = Literal["increasing", "decreasing"]

MIN_BLOCKS = 6
"""Fewer blocks than this show no shape."""
NEAREST_SHARE = 0.05
"""The nearest surface is this quantile of the blocks, so that one wrong block does not decide."""
SURE_SIGMAS = 3.0
"""A slope counts as one from so many of its own standard uncertainties."""


@dataclass(frozen=True)
class Plane:
    """The plane through the blocks that count. NaN: they do not tell.

    Attributes:
        z_um, sigma_um: at (y_px, x_px), the middle of the field; where a slope is not known, that of the blocks.
        height_px, width_px: the field, over which the focus changes by tip and tilt.
        tip_um, tip_sigma_um: change of the focus from the first row of the field to the last.
        tilt_um, tilt_sigma_um: change from the first column to the last.
        tip_mrad, tilt_mrad: the same as angles in the sample.
        residual_um: RMS distance of the blocks from the plane, outliers left out.
    """

    z_um: float
    sigma_um: float
    y_px: float
    x_px: float
    height_px: float
    width_px: float
    tip_um: float
    tip_sigma_um: float
    tilt_um: float
    tilt_sigma_um: float
    tip_mrad: float
    tilt_mrad: float
    residual_um: float

    @property
    def is_sloped(self) -> bool:
        """Whether the field surely rises, if by less than the depth of field."""
        rise_um = math.hypot(self.tip_um, self.tilt_um)
        return rise_um > SURE_SIGMAS * math.hypot(self.tip_sigma_um, self.tilt_sigma_um)


@dataclass(frozen=True)
class Geometry:
    """What a local map says about the field.

    Attributes:
        mean_um, mean_sigma_um: average over the whole field (see `fit_paraboloid`), and its standard uncertainty.
        median_um, median_sigma_um: of the blocks, and its standard uncertainty; NaN: no block counts.
        nearest_um, nearest_sigma_um: the surface nearest to the objective, likewise.
        sharpest_um, sharpest_sigma_um: the plane at which most of the field is sharp, likewise.
        spread_um: how far the focus is spread over the field, likewise; NaN: too few blocks count.
        depths_um: below which `SHARES` of the sample lie; empty: too few blocks count.
        shape: flat: all of it is sharp at once; tilted; stepped: two surfaces; thick: neither plane nor step.
        reason: the shape in words.
    """

    plane: Plane
    mean_um: float
    mean_sigma_um: float
    median_um: float
    median_sigma_um: float
    nearest_um: float
    nearest_sigma_um: float
    sharpest_um: float
    sharpest_sigma_um: float
    spread_um: float
    depths_um: list[float]
    shape: Shape
    reason: str


def geometry_of(
    blocks: LocalMap,
    pixel_um: float | None,
    dof_um: float,
    towards_sample: Direction,
    extent_um: float = 0.0,
) -> Geometry:
    """The shape of a field, never an error: without a block that counts it is unknown.

    Args:
        pixel_um: a pixel in the sample; None: not known, and no angle either.
        dof_um: depth of field; what is smaller makes no difference to the image.
        towards_sample: which way of z brings objective and sample closer (`stage.towards_sample`).
        extent_um: how far the sample extends along z within a block.
    """
    plane = fit_plane(blocks, pixel_um)
    mean_um, mean_sigma_um = _mean(blocks, dof_um)
    shape, reason = _shape(blocks, plane, dof_um)
    middle, near = quantile(blocks, 0.5), quantile(blocks, _nearest_share(towards_sample))
    sharp = sharpest(blocks, dof_um, extent_um)
    told = blocks.counts.sum() >= MIN_BLOCKS
    spread_um = spread_of(blocks) if told else math.nan
    depths_um = depths_of(blocks, extent_um) if told else []
    return Geometry(
        plane, mean_um, mean_sigma_um, *middle, *near, *sharp, spread_um, depths_um, shape, reason
    )


def describe(blocks: LocalMap, geometry: Geometry, pixel_um: float | None) -> FieldGeometry:
    """Map and geometry as a result has them, and as `pictures.draw_field` draws them."""
    arrays = {name: getattr(blocks, name).tolist() for name in ("focus_um", "sigma_um", "y_px", "x_px")}
    return FieldGeometry(**arrays | asdict(geometry), block_px=blocks.block_px, pixel_um=pixel_um)


def _mean(blocks: LocalMap, dof_um: float) -> tuple[float, float]:
    """Average focus over the whole field, and its standard uncertainty, µm; NaN if no block counts.

    Unweighted: the blocks in focus are surer, and no more of the field.
    """
    focus_um, sigma_um = blocks.counted
    if focus_um.size >= MIN_BLOCKS:
        surface = fit_paraboloid(blocks, dof_um)
        return surface.mean_um, surface.mean_sigma_um
    return (float(focus_um.mean()), float(sigma_um.max())) if focus_um.size else (math.nan, math.nan)


def _nearest_share(towards_sample: Direction) -> float:
    """The nearest surface is in focus where objective and sample are furthest apart."""
    return NEAREST_SHARE if towards_sample == "increasing" else 1 - NEAREST_SHARE


def quantile(blocks: LocalMap, share: float) -> tuple[float, float]:
    """A quantile of the blocks' focus, and its standard uncertainty, µm; NaN if none counts.

    That is how far the quantiles lie apart within a standard error of `share`, whatever the distribution: of two
    surfaces of half the field each, the median may be either. Blocks that overlap count once.
    """
    z, _ = blocks.counted
    if not z.size:
        return math.nan, math.nan
    error = math.sqrt(share * (1 - share) / _independent(blocks))
    low, high = np.clip([share - error, share + error], NEAREST_SHARE, 1 - NEAREST_SHARE)
    from_um, z_um, to_um = np.quantile(z, [low, share, high])
    return float(z_um), float((to_um - from_um) * error / (high - low))


def _independent(blocks: LocalMap) -> float:
    """How many of the blocks that count do not overlap."""
    fit = blocks.height_px * blocks.width_px / blocks.block_px**2
    return max(1.0, float(blocks.counts.mean()) * min(fit, blocks.counts.size))


def fit_plane(blocks: LocalMap, pixel_um: float | None) -> Plane:
    """The robust plane through the blocks that count."""
    z, sigma = blocks.counted
    if not z.size:
        return _no_plane(blocks)
    y, x = blocks.y_px[blocks.counts], blocks.x_px[blocks.counts]
    middle = np.average([y, x], axis=1, weights=sigma**-2)
    level = float(np.median(z))
    design, shared = _design(blocks, middle), shared_area(y, x, blocks.block_px)
    widths_um = np.array([np.inf, FREE_UM, FREE_UM])
    slope, covariance, residual = robust_fit(design, z - level, sigma, shared, widths_um)
    tip, tilt = (_known(slope[i], covariance[i, i]) for i in (1, 2))
    if math.isfinite(tip[0]) and math.isfinite(tilt[0]):
        middle, slope, covariance = _centred(blocks, middle, slope, covariance)
    return Plane(
        z_um=level + float(slope[0]),
        sigma_um=math.sqrt(covariance[0, 0]),
        y_px=float(middle[0]),
        x_px=float(middle[1]),
        height_px=blocks.height_px,
        width_px=blocks.width_px,
        tip_um=tip[0],
        tip_sigma_um=tip[1],
        tilt_um=tilt[0],
        tilt_sigma_um=tilt[1],
        tip_mrad=_mrad(tip[0], blocks.height_px, pixel_um),
        tilt_mrad=_mrad(tilt[0], blocks.width_px, pixel_um),
        residual_um=residual,
    )


def _no_plane(blocks: LocalMap) -> Plane:
    """Of a field in which no block counts."""
    nothing = dict.fromkeys((field.name for field in fields(Plane)), math.nan)
    return Plane(**nothing | {"height_px": blocks.height_px, "width_px": blocks.width_px})


def _design(blocks: LocalMap, middle: Array) -> Array:
    """(n, 3): 1, and the place in the field relative to `middle`, in units of its height and width."""
    y, x = blocks.y_px[blocks.counts], blocks.x_px[blocks.counts]
    return np.stack(
        [np.ones_like(y), (y - middle[0]) / blocks.height_px, (x - middle[1]) / blocks.width_px], 1
    )


def _known(slope_um: float, variance_um2: float) -> tuple[float, float]:
    """Change over the field and its uncertainty; NaN where the blocks do not tell."""
    sigma_um = math.sqrt(variance_um2)
    return (math.nan, math.nan) if sigma_um > FREE_UM / 2 else (float(slope_um), sigma_um)


def _centred(blocks: LocalMap, middle: Array, slope: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """The same plane from the middle of the field."""
    centre = np.array([(p.min() + p.max()) / 2 for p in (blocks.y_px, blocks.x_px)])
    lever = np.eye(3)
    lever[0, 1:] = (centre - middle) / (blocks.height_px, blocks.width_px)
    return centre, lever @ slope, lever @ covariance @ lever.T


def _mrad(slope_um: float, extent_px: float, pixel_um: float | None) -> float:
    """Angle in the sample of a change over the field."""
    return math.nan if pixel_um is None else 1000 * math.atan(slope_um / (extent_px * pixel_um))


def _shape(blocks: LocalMap, plane: Plane, dof_um: float) -> tuple[Shape, str]:
    """The shape and its reason: only what is both sure and larger than the depth of field makes one."""
    z, sigma = blocks.counted
    if z.size < MIN_BLOCKS:
        return (
            "unknown",
            f"{z.size} of {blocks.counts.size} blocks count, {MIN_BLOCKS} are needed to see a shape",
        )
    levels = two_levels(_design(blocks, np.array([plane.y_px, plane.x_px])), z, sigma)
    if levels.distinct and levels.step_um > dof_um / 2:
        return (
            "stepped",
            f"two surfaces {levels.step_um:.1f} µm apart; choose a region of interest on one of them",
        )
    noise = float(np.median(sigma))
    if plane.residual_um > max(2 * noise, dof_um / 4):
        scatter = (
            f"the blocks lie {plane.residual_um:.1f} µm (RMS) off their plane, and know their own focus to"
        )
        return "thick", f"{scatter} {noise:.1f} µm; depth of field {dof_um:.1f} µm"
    return _slope_shape(plane, dof_um)


def _slope_shape(plane: Plane, dof_um: float) -> tuple[Shape, str]:
    """Of a field that a plane describes."""
    fall = abs(plane.tip_um) + abs(plane.tilt_um)
    sigma = math.hypot(plane.tip_sigma_um, plane.tilt_sigma_um)
    if not sigma <= max(dof_um / 2, fall / 3):
        return (
            "unknown",
            "the blocks that count lie too close to one line, or are too uncertain, to tell a slope",
        )
    told = f"the focus changes by {fall:.1f} ± {sigma:.1f} µm from corner to corner"
    if fall > dof_um:
        return "tilted", f"{told}, more than the depth of field ({dof_um:.1f} µm)"
    return "flat", f"{told}, within the depth of field ({dof_um:.1f} µm)"
