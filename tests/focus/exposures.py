"""Exposures as an ideal network and camera would make them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from focusd.focus.frame import Frame
from focusd.focus.measurement import Measurement
from focusd.optics.bands import BlockSpectra, band_modes

Array = NDArray[np.float64]
Observe = Callable[..., Measurement]

BLOCK_PX = 256
MODES = band_modes(BLOCK_PX)
SPREAD = np.zeros(len(MODES))
"""These bands are single frequencies."""
FREQUENCIES = np.linspace(0.01, 0.5, len(MODES))
NOISE = 1.0


def curve(z: Array) -> Array:
    """A blurriness as the network gives it: rounded at the focus, steep, then bending over."""
    return np.asarray(0.04 + np.sqrt(z**2 + 4.0**2) / (124.0 + 0.15 * np.abs(z)))


def transfer(defocus_um: Array) -> Array:
    """Share of the power that passes, (…, bands): less of the high frequencies."""
    return np.asarray(1 / (1 + (defocus_um[..., None] * FREQUENCIES / 3.0) ** 2) ** 2)


def exposure(z_um: float, focus_um: float | Array = 0.0, strength: float = 1e4) -> Measurement:
    """3×4 tiles, and as many blocks, at z, of a field whose focus is a number or a map.

    Args:
        strength: power of the object over the noise's at low frequencies.
    """
    field = np.broadcast_to(np.asarray(focus_um, dtype=float), (3, 4))
    same = np.ones(field.shape)
    y_px, x_px = np.indices(field.shape) * 128.0 + 64
    objects = strength / (1 + (FREQUENCIES / 0.05) ** 2)
    blocks = BlockSpectra(
        objects * transfer(z_um - field) + NOISE, NOISE * same, MODES, SPREAD, y_px, x_px, BLOCK_PX
    )
    return Measurement(z_um, curve(z_um - field), 0.01 * same, same, y_px, x_px, blocks)


class WholeFrames:
    """What the measuring of a run has besides `measure`, where `tell` measures whole frames at once."""

    def check(self, frame: Frame) -> None:
        """It refuses nothing before it measures."""

    def spectra(
        self, frame: Frame, *, thinned: bool = False, known: BlockSpectra | None = None
    ) -> BlockSpectra:
        raise NotImplementedError("`tell` measures everything at once")
