"""How the focus is spread over a field and along z: where most of the field is sharp, and how much of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import LocalMap, overlapping, shared_area

Array = NDArray[np.float64]

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the field, whose depths a result tells."""
FALL_DOF = 0.5
"""Sharpness falls with the distance from focus as a normal curve of this standard deviation, in depths of field: to
0.61 where the depth of field ends, and to 0.14 at twice that. A harder edge would leave the sharpest plane of a level
field open, which is all sharp over some µm."""

_LAYERS = 41
"""Of a thick sample, that stand for all."""
_DRAWS = 128
"""Tell a standard deviation to 6 %."""
_STARTS = 17
"""Blocks from the lowest to the highest, from the best of which the sharpest plane is climbed to."""
_CLIMBS = 30
_SETTLED_DOF = 1e-3
_HALVINGS = 40
_NEIGHBOURS = np.array([(0, 0)] * 5 + [(0, 1), (0, -1), (1, 0), (-1, 0)])
"""Rows and columns away: about every other time a block shows itself. A straight edge across 7×9 blocks then scatters
about as much as if it lay anywhere between the two columns that show it (2.9 and 3.2 % of the field)."""
_RIDGE = 1e-6
"""Where blocks overlap so much that their errors are the same."""


def sharpest(blocks: LocalMap, dof_um: float, extent_um: float = 0.0) -> tuple[float, float]:
    """Find the plane at which most of the field is sharp, and its standard uncertainty, µm; NaN if no block counts.

    It is where the sharpness that is expected of the blocks, `FALL_DOF`, is highest on average. A block that hardly
    knows its focus, or extends along z, is expected to be less sharp anywhere.

    The uncertainty is how far the answers scatter were the field seen again. Of two surfaces that are equally large it
    is half their distance, and on a long slope most of that.
    """
    focus_um, sigma_um = blocks.counted
    if not focus_um.size:
        return math.nan, math.nan
    width_um = np.sqrt((FALL_DOF * dof_um) ** 2 + sigma_um**2 + extent_um**2 / 12)
    found_um = float(_summit(focus_um[None], width_um, dof_um)[0])
    again_um = _summit(_seen_again(blocks), width_um, dof_um)
    return found_um, math.sqrt(float(((again_um - found_um) ** 2).mean()))


def spread_of(blocks: LocalMap) -> float:
    """Half the range of the middle 68 % of the field's focus, beyond the blocks' own uncertainty, µm."""
    low_um, high_um = np.quantile(_drawn_together(blocks), [0.16, 0.84])
    return float(high_um - low_um) / 2


def depths_of(blocks: LocalMap, extent_um: float) -> list[float]:
    """Depths below which `SHARES` of the sample lie, µm: over the field, and along z within each block."""
    return [float(z_um) for z_um in np.quantile(_layers(blocks, extent_um), SHARES)]


def share_in_focus(blocks: LocalMap, extent_um: float, z_um: float, dof_um: float) -> float:
    """Share of the sample, over the field and along z, that lies within half a depth of field of a plane."""
    return float((np.abs(_layers(blocks, extent_um) - z_um) <= dof_um / 2).mean())


def _layers(blocks: LocalMap, extent_um: float) -> Array:
    """Depths that stand for all of the sample, (blocks, layers)."""
    within_um = extent_um * ((np.arange(_LAYERS) + 0.5) / _LAYERS - 0.5)
    return np.add.outer(_drawn_together(blocks), within_um)


def _drawn_together(blocks: LocalMap) -> Array:
    """Focus of the blocks that count, scattered no more than the field itself, (n,).

    What they scatter beyond that is their own error. The less a block knows, the nearer it is taken to lie to the
    others (Louis 1984, constrained empirical Bayes).
    """
    focus_um, sigma_um = blocks.counted
    own_um2 = _variance(focus_um, sigma_um)
    share = np.sqrt(own_um2 / (own_um2 + sigma_um**2))
    middle_um = np.average(focus_um, weights=1 / (own_um2 + sigma_um**2))
    return np.asarray(middle_um + share * (focus_um - middle_um))


def _variance(focus_um: Array, sigma_um: Array) -> float:
    """Variance of the field itself: that with which the blocks scatter as they should (Paule & Mandel 1982)."""
    low, high = 0.0, float(np.ptp(focus_um)) ** 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weight = 1 / (middle + sigma_um**2)
        apart_um = focus_um - (weight @ focus_um) / weight.sum()
        scatters_more = weight @ apart_um**2 > len(focus_um) - 1
        low, high = (middle, high) if scatters_more else (low, middle)
    return low


def _seen_again(blocks: LocalMap) -> Array:
    """The focus of the blocks, were the field seen again, (draws, n).

    Each block errs anew, as its neighbours do with which it shares area, and shows what a neighbour shows now and then:
    where the edge of a surface passes between them nobody knows. Blocks that overlap do so together.
    """
    rng = np.random.default_rng(1)
    counts, (_, sigma_um) = blocks.counts, blocks.counted
    field_um = np.full(counts.shape, np.nan)
    field_um[counts] = _drawn_together(blocks)
    together = overlapping(blocks.y_px, blocks.x_px, blocks.block_px)
    shown_um = field_um[_beside(rng, counts.shape, together)]
    shown_um = np.where(np.isfinite(shown_um), shown_um, field_um)[:, counts]
    shared = shared_area(blocks.y_px[counts], blocks.x_px[counts], blocks.block_px)
    root = np.linalg.cholesky(shared + _RIDGE * np.eye(len(shared)))
    return np.asarray(shown_um + sigma_um * (rng.standard_normal((_DRAWS, len(sigma_um))) @ root.T))


def _beside(
    rng: np.random.Generator, shape: tuple[int, ...], together: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of each block itself or one beside it, (draws, rows, columns) each.

    Args:
        together: blocks along a side of a square that move the same way.
    """
    squares = [math.ceil(side / together) for side in shape]
    chosen = rng.integers(len(_NEIGHBOURS), size=(_DRAWS, *squares))
    chosen = chosen.repeat(together, axis=1).repeat(together, axis=2)[:, : shape[0], : shape[1]]
    step = _NEIGHBOURS[chosen]
    rows, columns = np.indices(shape)
    return (rows + step[..., 0]).clip(0, shape[0] - 1), (columns + step[..., 1]).clip(0, shape[1] - 1)


def _summit(focus_um: Array, width_um: Array, dof_um: float) -> Array:
    """Where the sum of normal curves about the blocks is highest, (draws,).

    The highest of some places is climbed from, each step to the mean of the blocks by what they add there and by how
    steep they are (mean shift: Comaniciu & Meer 2002).

    Args:
        focus_um: (draws, n) middles of the curves.
        width_um: (n,) their standard deviations; each curve has the same area.
    """
    level_um = float(np.median(focus_um))
    focus_um, width_um = (focus_um - level_um).astype(np.float32), width_um.astype(np.float32)
    count = focus_um.shape[1]
    chosen = np.linspace(0, count - 1, min(_STARTS, count)).round().astype(int)
    starts_um = np.sort(focus_um, axis=1)[:, chosen]
    heights = np.stack([_curves(focus_um, width_um, each_um).sum(1) for each_um in starts_um.T], axis=1)
    z_um = np.take_along_axis(starts_um, heights.argmax(1)[:, None], 1)[:, 0]
    for _ in range(_CLIMBS):
        before_um = z_um
        pull = _curves(focus_um, width_um, z_um) / width_um**2
        z_um = (pull * focus_um).sum(1) / pull.sum(1)
        if np.abs(z_um - before_um).max() < _SETTLED_DOF * dof_um:
            break
    return level_um + z_um.astype(np.float64)


def _curves(focus_um: Array, width_um: Array, z_um: Array) -> Array:
    """What each block adds at one place of each draw, (draws, n)."""
    return np.asarray(np.exp(-0.5 * ((z_um[:, None] - focus_um) / width_um) ** 2) / width_um)
