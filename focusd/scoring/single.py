"""The score of a single frame, in numbers of its field: of one that a client sends, or that lies in an archive."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from focusd.focus.frame import Frame
from focusd.focus.grey import components
from focusd.focus.sensor import PLAIN, Sensor
from focusd.protocol.results import Score, ScoreOutcome
from focusd.scoring.measuring import require_numbers
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region


def score_of(
    scorer: Scorer,
    pixels: NDArray[np.unsignedinteger],
    roi: Region | None,
    *,
    threshold: float,
    max_saturated: float,
    sensor: Sensor = PLAIN,
) -> Score:
    """Score a frame; `b` is None if it shows nothing.

    Args:
        pixels: (y, x), or (y, x, 3 or 4) in colour.
        roi: (y, x, height, width) in pixels: the part that counts; None: all of it.
        threshold: probability of structure from which a tile counts.
        max_saturated: fraction of pixels at full scale above which a frame is called saturated.
        sensor: what is known of the camera.

    Raises:
        RequestError: it is no frame, or the region is not inside it.
    """
    image = sensor.seen(components(pixels))
    measured = scorer.score(image, roi)
    require_numbers(measured)
    seen = measured.structure >= threshold
    saturated = Frame(pixels, math.nan).saturated_fraction > max_saturated
    outcome: ScoreOutcome = "saturated" if saturated else "scored" if seen.any() else "no_sample"
    return Score(
        outcome=outcome,
        b=measured.mean_b(seen) if outcome == "scored" else None,
        sigma=float(np.median(measured.sigma)),
        structure=float(np.median(measured.structure)),
        sharpness=sharpness(image, roi),
        tracked=False,
    )


def sharpness(pixels: NDArray[np.generic], roi: Region | None) -> float:
    """Return the energy of the gradient: comparable between frames of one field only, and finest near focus.

    Each gradient is multiplied by its neighbour's, which shares no pixel with it. So noise adds nothing to the mean: in
    Tenengrad it hides what little light shows (at 10 electrons all but a twentieth).
    """
    y, x, height, width = roi or (0, 0, *pixels.shape)
    image = pixels[y : y + height, x : x + width].astype(np.float32)
    along_x, along_y = image[:, 2:] - image[:, :-2], image[2:] - image[:-2]
    pairs = along_x[1:] * along_x[:-1], along_y[:, 1:] * along_y[:, :-1]
    mean = float(image.mean())
    if mean <= 0 or not all(pair.size for pair in pairs):
        return 0.0
    return sum(float(pair.mean(dtype=np.float64)) for pair in pairs) / mean**2
