"""Spherical aberration of a layer that the objective was not made for: another cover glass, or a sample deep below it.

A layer of thickness t and index m adds W(ρ) = t √(m² − NA² ρ²) to the phase of the pupil, less what a move of the stage
takes away again, √(n² − NA² ρ²), and a constant (Gibson & Lanni, J. Opt. Soc. Am. A 8 (1991) 1601).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from focusd.optics.instrument import Instrument
from focusd.optics.zernike import SPHERICAL, zernike

GLASS_INDEX = 1.515
"""Of the layer, a cover glass, for objectives made for less. Those for oil look into samples of about their index."""
INDEX_STEP = 0.1
"""Of an oil's index and that of a sample in water, or in what it is mounted in."""
_ORDERS = (SPHERICAL, 22, 37, 56)
"""Noll's indices of radial order 4, 6, 8 and 10."""
_RINGS = 2000


@dataclass(frozen=True)
class Layer:
    """What a layer adds to the pupil; its shape hardly depends on the layer.

    Attributes:
        shape: Noll's index → share of the RMS.
        waves_per_um: RMS that each µm of its thickness adds.
    """

    shape: dict[int, float]
    waves_per_um: float


@lru_cache
def layer_over(instrument: Instrument) -> Layer:
    """The aberration of a layer between the sample and this objective."""
    squared = (np.arange(_RINGS) + 0.5) / _RINGS  # of ρ, even over the pupil's area
    n = instrument.immersion_index
    moved = np.sqrt(n**2 - instrument.na**2 * squared)
    is_dry = n < GLASS_INDEX
    phase = np.sqrt(GLASS_INDEX**2 - instrument.na**2 * squared) if is_dry else INDEX_STEP * n / moved
    known = np.stack([np.ones(_RINGS), moved], axis=1)
    phase = phase - known @ np.linalg.lstsq(known, phase, rcond=None)[0]
    rho, theta = torch.tensor(np.sqrt(squared)), torch.zeros(_RINGS, dtype=torch.float64)
    terms = {order: float((phase * zernike(order, rho, theta).numpy()).mean()) for order in _ORDERS}
    rms = math.sqrt(sum(term**2 for term in terms.values()))
    return Layer({order: term / rms for order, term in terms.items()}, rms / instrument.wavelength_um)
