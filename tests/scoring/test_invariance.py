"""Scores of the shipped network: what must not change them, and what they say of frames of nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.scoring.backends import Backends, CpuBackend
from focusd.scoring.scorer import Scorer
from focusd.scoring.views import CANONICAL_SAMPLING, TILE_PX
from focusd.scoring.weights import Model
from tests.scoring.scenes import (
    DEFOCUS_UM,
    INSTRUMENT,
    SCENES,
    counts,
    detected,
    frame,
    noise,
    parts,
    scene,
    seen,
)


@pytest.mark.parametrize("name", list(SCENES))
def test_bit_depth_does_not_change_b(scorer: Scorer, name: str) -> None:
    electrons = detected(seen(scene(name, 1), DEFOCUS_UM))
    scores = {bits: np.median(scorer.score(counts(electrons, bits, 12000.0)).b) for bits in (8, 12, 16)}
    assert scores[8] == pytest.approx(scores[16], abs=0.02)
    assert scores[12] == pytest.approx(scores[16], abs=0.005)


def test_pixels_above_half_of_the_range_are_not_negative(
    scorer: Scorer, defocused: NDArray[np.uint16]
) -> None:
    halved = np.minimum(defocused, 32767)
    doubled = halved * np.uint16(2)
    assert np.quantile(doubled, 0.5) > 32767
    assert scorer.score(doubled).b == pytest.approx(scorer.score(halved).b, abs=2e-3)


def nothing(kind: str) -> NDArray[np.uint16]:
    """A frame that holds nothing to focus on."""
    shape = (384, 384)
    kinds: dict[str, Callable[[], NDArray[np.uint16]]] = {
        "black": lambda: np.zeros(shape, np.uint16),
        "constant": lambda: np.full(shape, 1000, np.uint16),
        "saturated": lambda: np.full(shape, 65535, np.uint16),
        "noise": lambda: noise(shape),
        "read noise": lambda: np.random.default_rng(1).normal(100, 3, shape).round().astype(np.uint16),
    }
    return kinds[kind]()


@pytest.mark.parametrize("kind", ["black", "constant", "saturated", "noise", "read noise"])
def test_a_frame_of_nothing_is_finite_and_has_no_structure(scorer: Scorer, kind: str) -> None:
    measure = scorer.score(nothing(kind))
    assert all(np.isfinite(part).all() for part in parts(measure))
    assert np.median(measure.structure) < 0.5


@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("z_um", [0.0, 20.0])
def test_a_textured_frame_has_structure(scorer: Scorer, name: str, z_um: float) -> None:
    assert np.median(scorer.score(frame(name, z_um)).structure) > 0.5


def test_the_same_frame_scores_the_same(model: Model, scorer: Scorer, defocused: NDArray[np.uint16]) -> None:
    first = scorer.score(defocused)
    for other in (scorer, Scorer(model, INSTRUMENT.sampling)):
        for one, two in zip(parts(first), parts(other.score(defocused)), strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_batch_size_does_not_change_the_score(
    model: Model, scorer: Scorer, defocused: NDArray[np.uint16], batch: int
) -> None:
    field = defocused[:256, :256]
    measure = Scorer(model, INSTRUMENT.sampling, Backends(CpuBackend(model.network, batch))).score(field)
    for one, two in zip(parts(measure), parts(scorer.score(field)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("ratio", [0.92, 1.05])
def test_the_score_scales_with_a_sampling_that_is_not_resampled(
    model: Model, defocused: NDArray[np.uint16], ratio: float
) -> None:
    canonical = Scorer(model, CANONICAL_SAMPLING).score(defocused)
    scaled = Scorer(model, ratio * CANONICAL_SAMPLING).score(defocused)
    np.testing.assert_allclose(scaled.b, ratio * canonical.b, rtol=1e-6)
    np.testing.assert_allclose(scaled.sigma, ratio * canonical.sigma, rtol=1e-6)
    np.testing.assert_array_equal(scaled.structure, canonical.structure)


def test_an_unknown_sampling_is_taken_for_the_canonical_one(
    model: Model, defocused: NDArray[np.uint16]
) -> None:
    unknown, canonical = (Scorer(model, sampling).score(defocused) for sampling in (None, CANONICAL_SAMPLING))
    np.testing.assert_array_equal(unknown.b, canonical.b)
    np.testing.assert_array_equal(unknown.sigma, canonical.sigma)


@pytest.mark.parametrize("axis", [0, 1])
def test_b_follows_a_step_of_the_focus_along_the_axis_of_the_step(scorer: Scorer, axis: int) -> None:
    """Rows and columns are not mixed up: one half of the field is sharp, the other is not."""
    both = seen(scene("sand", 3), 3.0)
    both[:, 256:] = seen(scene("sand", 3), 50.0)[:, 256:]
    b = scorer.score(counts(detected(np.moveaxis(both, 1, axis)), 16, 12000.0)).b
    along = np.moveaxis(b, axis, 0)
    assert along.shape == (512 // TILE_PX, 512 // TILE_PX)
    assert along[0].max() < along[-1].min()
