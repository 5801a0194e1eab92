"""How well the focus can be known from some frames: the Cramér–Rao bound for an unknown object.

Each Fourier mode of frame i is O·H(zᵢ − Δz) plus white noise of variance N; the complex O of every mode is as unknown
as Δz. Eliminating it leaves the information (1/N)·|O|²·(Σ|H′ᵢ|² − |ΣHᵢ*H′ᵢ|²/Σ|Hᵢ|²) a mode. One frame holds none.
An unbiased Gaussian estimate at the bound has a median |error| of 0.67 of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from bench.rig import Rig
from bench.transfers import transfer

_STEP_UNITS = 0.02
"""Of the finite difference, in axial units."""


def bounds_um(rig: Rig, defocus_um: Iterable[float]) -> list[float]:
    """The bound after each of a rig's frames, in µm; infinite after the first."""
    return list(bounds(rig.object_power, rig.noise, _responses(rig, defocus_um)))


def bounds(object_power: Tensor, noise: float, responses: Iterable[tuple[Tensor, Tensor]]) -> Iterator[float]:
    """The bound after each frame, in the unit of the defocus.

    Args:
        object_power: |O|² of the modes on the half-plane of an rfft2, (y, x // 2 + 1), x even.
        noise: its variance in the same units.
        responses: of each frame, H and dH/dz.
    """
    weight = _multiplicity(object_power) * object_power / noise
    slope2 = cross = power = torch.zeros(())
    for h, slope in responses:
        slope2 = slope2 + _squared(slope)
        cross = cross + h.conj() * slope
        power = power + _squared(h)
        lost = _squared(cross) / power.clamp(min=1e-30)
        information = float((weight * (slope2 - lost).clamp(min=0)).sum())
        yield information**-0.5 if information > 1e-12 else float("inf")


def _responses(rig: Rig, defocus_um: Iterable[float]) -> Iterator[tuple[Tensor, Tensor]]:
    step_um = _STEP_UNITS * rig.setting.instrument.axial_unit_um
    for z_um in defocus_um:
        before, after = (transfer(rig.setting, z_um + s * step_um).to(torch.complex128) for s in (-1, 1))
        yield (before + after) / 2, (after - before) / (2 * step_um)


def _squared(values: Tensor) -> Tensor:
    return values.real**2 + values.imag**2


def _multiplicity(half_plane: Tensor) -> Tensor:
    """How many modes of the full plane each mode of an rfft2 stands for."""
    count = torch.full(half_plane.shape[-1:], 2.0)
    count[0] = count[-1] = 1.0
    return count
