"""How honest the score's own σ is: how many errors of single tiles lie within it, by thirds of the range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bench.synthetic import INSTRUMENT
from focusd.optics.defocus import blurriness

Array = NDArray[np.float64]

THIRDS = 3


@dataclass(frozen=True)
class Honesty:
    """Of all tiles of all textures on the planes of one third of the range, both sides of the focus.

    Attributes:
        from_um, to_um: distance from the focus.
        median_error: of b.
        within_1_sigma, within_2_sigma: share of the errors, 0.683 and 0.954 if Gaussian and honest.
        calibrated_1_sigma, calibrated_2_sigma: the same of the differences from the textures' median curve, which
            stands for the calibration that a search compares with.
    """

    from_um: float
    to_um: float
    median_error: float
    within_1_sigma: float
    within_2_sigma: float
    calibrated_1_sigma: float
    calibrated_2_sigma: float


def honesty(z_um: Array, b: Array, sigma: Array) -> list[Honesty]:
    """By thirds, from near to far.

    Args:
        z_um: (planes,).
        b, sigma: (textures, planes, tiles).
    """
    truth = np.array([blurriness(INSTRUMENT, float(z)) for z in z_um])
    return list(_thirds(z_um, b - truth[:, None], b - np.median(b, (0, 2), keepdims=True), sigma))


def _thirds(z_um: Array, error: Array, difference: Array, sigma: Array) -> Iterator[Honesty]:
    """Of errors from the truth, and of differences from the calibration."""
    edges_um = np.linspace(0, np.abs(z_um).max(), THIRDS + 1)
    third = np.clip(np.searchsorted(edges_um, np.abs(z_um), side="right") - 1, 0, THIRDS - 1)
    for k in range(THIRDS):
        wrong, apart, said = (each[:, third == k] for each in (np.abs(error), np.abs(difference), sigma))
        shares = [float((of < times * said).mean()) for of in (wrong, apart) for times in (1, 2)]
        yield Honesty(float(edges_um[k]), float(edges_um[k + 1]), float(np.median(wrong)), *shares)


def table_of(thirds: list[Honesty]) -> Table:
    """To be printed."""
    table = Table(title="Tiles: errors of b, and how many lie within the σ that is stated")
    for column in asdict(thirds[0]):
        table.add_column(column.replace("_", " "), justify="right")
    for third in thirds:
        table.add_row(*(f"{value:.4g}" for value in asdict(third).values()))
    return table
