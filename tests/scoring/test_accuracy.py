"""The least that the shipped network must do on scenes that nobody trained on; the figures proper are in bench/."""

from collections.abc import Mapping

import numpy as np
import pytest

from focusd.focus.measurement import Measurement
from focusd.optics.defocus import blurriness
from focusd.scoring.scorer import Scorer
from tests.scoring.scenes import INSTRUMENT, SCENES, frame

Z_UM = (-60.0, -40.0, -20.0, -10.0, 0.0, 10.0, 20.0, 40.0, 60.0)
SEEDS = (11, 12)
REGION = (128, 128, 256, 256)
LARGEST_MEDIAN_ERROR = 0.03

Scores = Mapping[tuple[str, int, float], Measurement]


@pytest.fixture(scope="module")
def scores(scorer: Scorer) -> Scores:
    """By scene, seed and z."""
    return {
        (name, seed, z): scorer.score(frame(name, z, seed), REGION)
        for name in SCENES
        for seed in SEEDS
        for z in Z_UM
    }


def medians(scores: Scores, z_um: float) -> np.ndarray:
    """Median b of each scene's tiles at z."""
    return np.array([np.median(scores[name, seed, z_um].b) for name in SCENES for seed in SEEDS])


@pytest.mark.parametrize("z_um", [z for z in Z_UM if z])
def test_b_is_the_zernike_focus_coefficient(scores: Scores, z_um: float) -> None:
    errors = np.abs(medians(scores, z_um) - blurriness(INSTRUMENT, z_um))
    assert np.median(errors) < LARGEST_MEDIAN_ERROR


def test_b_is_small_in_focus(scores: Scores) -> None:
    assert np.median(medians(scores, 0.0)) < blurriness(INSTRUMENT, 10.0) / 2 + LARGEST_MEDIAN_ERROR


@pytest.mark.parametrize("side", [-1, 1])
def test_b_grows_with_the_distance_from_the_focus(scores: Scores, side: int) -> None:
    """On each scene out of focus; in focus the median over the scenes, for dots may look like the blur of dots."""
    curves = np.stack([medians(scores, side * z) for z in (0.0, 10.0, 20.0, 40.0, 60.0)])
    assert (np.diff(np.median(curves, axis=1)) > 0).all()
    assert (np.diff(curves[1:], axis=0) > 0).all()


def test_sigma_tells_the_size_of_the_error(scores: Scores) -> None:
    """Of all tiles well out of focus, most lie within 3σ."""
    ratios = [
        np.abs(score.b - blurriness(INSTRUMENT, z)) / score.sigma for (_, _, z), score in scores.items() if z
    ]
    assert np.mean(np.concatenate([r.ravel() for r in ratios]) < 3) > 0.8
