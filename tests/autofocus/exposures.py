"""Exposures as an ideal network would score them."""

from collections.abc import Callable

import numpy as np

from focusd.autofocus.observation import Observation

Observe = Callable[..., Observation]


def curve(z: np.ndarray) -> np.ndarray:
    """A blurriness as the network gives it: rounded at the focus, steep, then bending over."""
    return 0.04 + np.sqrt(z**2 + 4.0**2) / (124.0 + 0.15 * np.abs(z))


def exposure(z_um: float, focus_um: float | np.ndarray = 0.0) -> Observation:
    """3×4 tiles at z, of a field whose focus is a number or a map."""
    field = np.broadcast_to(np.asarray(focus_um, dtype=float), (3, 4))
    return Observation(z_um, curve(z_um - field), np.full(field.shape, 0.01), np.ones(field.shape))
