"""A calibration's field that is tilted or curved is levelled: each block counts at its own distance from its focus.

Else the blocks, each sharp at another z, give together a transfer that falls more slowly on either side of the focus
than that of any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.local import local_map
from focusd.focus.measurement import Measurement
from focusd.focus.paraboloid import Paraboloid, fit_paraboloid

Array = NDArray[np.float64]

NEAR_UNITS = 4.0
"""Planes within so much of the focus tell that of each block, in λ·n/NA²; further away its light comes from others."""
LEAST_PLANES, MOST_PLANES = 3, 12
"""Of those: fewer do not tell it, and more of them, which are left out evenly, tell little more."""
LEAST_UNITS = 0.04
"""Standard deviation of the field's focus from which it matters."""
LEAST_BLOCKS = 6
"""Fewer blocks that tell their focus show no surface."""
MOST_GAIN = 4.0
"""By so much at most the power of a block is changed from that in the plane beside."""


def uneven_field(
    planes: Sequence[Measurement], calibration: Calibration, focus_um: float, dof_um: float
) -> Paraboloid | None:
    """Return the surface in which the field of a stack is in focus; None: it is level, or its blocks do not tell.

    Args:
        planes: of the stack, ascending.
        calibration: from them.
        focus_um: of the field as a whole.
        dof_um: depth of field.
    """
    unit_um = calibration.axial_unit_um
    near = [plane for plane in planes if abs(plane.z_um - focus_um) <= NEAR_UNITS * unit_um]
    if len(near) < LEAST_PLANES:
        return None
    chosen = np.unique(np.linspace(0, len(near) - 1, min(MOST_PLANES, len(near))).round().astype(int))
    blocks = local_map([near[k] for k in chosen], calibration, focus_um)
    if blocks.counts.sum() < LEAST_BLOCKS:
        return None
    surface = fit_paraboloid(blocks, dof_um)
    is_uneven = surface.is_uneven and surface.heights_um.std() >= LEAST_UNITS * unit_um
    return surface if is_uneven else None


def levelled(
    planes: Sequence[Measurement], heights_um: Array, calibration: Calibration, focus_um: float
) -> list[Measurement]:
    """Return the planes as if each block were in focus where the field is on average.

    A block's power at a distance from its focus is that of the planes on either side, times what the calibration says
    passes there rather than in them.

    Args:
        planes: ascending.
        heights_um: (rows, columns) focus of each block from the field's mean.
        calibration: of the field as a whole.
        focus_um: the field's mean.
    """
    z_um = np.array([plane.z_um for plane in planes])
    power = np.stack([plane.blocks.power for plane in planes])
    noise = np.stack([plane.blocks.noise for plane in planes])[..., None]
    signal, rows = power - noise, np.indices(heights_um.shape)
    changed = []
    for plane, plane_noise in zip(planes, noise, strict=True):
        wanted_um = np.clip(plane.z_um + heights_um, z_um[0], z_um[-1])
        after = np.searchsorted(z_um, wanted_um).clip(1, len(z_um) - 1)
        share = (wanted_um - z_um[after - 1]) / (z_um[after] - z_um[after - 1])
        passes = calibration.transfer.at(plane.z_um - focus_um + 0 * heights_um)[0]
        total = np.zeros_like(plane.blocks.power)
        for beside, weight in ((after - 1, 1 - share), (after, share)):
            there = calibration.transfer.at(z_um[beside] - heights_um - focus_um)[0]
            gain = np.exp(np.clip(passes - there, -np.log(MOST_GAIN), np.log(MOST_GAIN)))
            total += weight[..., None] * gain * signal[beside, *rows]
        changed.append(plane.with_spectra(replace(plane.blocks, power=plane_noise + total)))
    return changed
