"""Synthesised samples: the same for the same seed, labelled by the physics, and covering the range of b."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from focusd.optics.defocus import blurriness
from focusd.optics.instrument import Instrument
from focusd.scoring.views import CANONICAL_SAMPLING, RINGS, SAMPLING_TOLERANCE, TILE_PX, resample
from focusd.training.synthesis import SCENE_PX, Optics, Samples, draw_optics, join, synthesise
from tests.training.equal import same

Image = NDArray[np.float32]

SCENES, TILES, CHUNKS = 3, 2, 24
EXACT_B = 1e-5
RELIEF_B = 0.15
"""Samples are up to two axial units thick: a location may lie one above or below the frame's defocus."""


def white(seed: int) -> Image:
    """An object with the same power at all frequencies."""
    return np.random.default_rng(seed).random((SCENE_PX, SCENE_PX), dtype=np.float32)


def expected_b(optics: Optics, scene: int) -> float:
    """Apparent blurriness of a flat scene, by way of an instrument in µm."""
    instrument = Instrument(magnification=10, na=float(optics.sin_alpha[scene]))
    b = blurriness(instrument, float(optics.u[scene]) * instrument.axial_unit_um)
    return b * CANONICAL_SAMPLING / float(optics.seen[scene])


def drawn(seed: int, count: int = SCENES, mainstream: bool = False) -> Optics:
    """The instruments that `synthesise` draws first of all from a seed."""
    return draw_optics(np.random.default_rng(seed), count, mainstream)[0]


def truth(seed: int) -> NDArray[np.float64]:
    """b of each sample of a seed's chunk, were its scenes flat."""
    return np.array([expected_b(drawn(seed), i) for i in range(SCENES)]).repeat(TILES)


@pytest.fixture(scope="module")
def chunks() -> list[Samples]:
    """Chunk k has the seed k."""
    objects = [white(k) for k in range(SCENES)]
    return [synthesise(objects, seed, TILES) for seed in range(CHUNKS)]


def test_a_seed_is_a_chunk_whatever_torchs_own_seed(chunks: list[Samples]) -> None:
    objects = [white(k) for k in range(SCENES)]
    torch.manual_seed(12345)
    assert same(synthesise(objects, 4, TILES), chunks[4])
    assert not same(chunks[4], chunks[5])


def test_samples_have_their_shapes(chunks: list[Samples]) -> None:
    for samples in chunks:
        count = SCENES * TILES
        assert samples.views.pixels.shape == (count, 3, TILE_PX, TILE_PX)
        assert samples.views.spectra.shape == (count, 3, RINGS)
        assert samples.views.contrast.shape == (count, 3)
        assert samples.b.shape == samples.structure.shape == (count,)
        assert samples.views.pixels.dtype == samples.b.dtype == torch.float32


def test_samples_are_finite(chunks: list[Samples]) -> None:
    whole = join(chunks)
    views = whole.views
    for part in (views.pixels, views.spectra, views.contrast, whole.b, whole.structure):
        assert torch.isfinite(part).all()


def test_joining_keeps_order(chunks: list[Samples]) -> None:
    joined = join(chunks[:3])
    count = SCENES * TILES
    assert torch.equal(joined.b[count : 2 * count], chunks[1].b)
    assert torch.equal(joined.views.spectra[2 * count :], chunks[2].views.spectra)


def test_b_is_the_physics_of_the_drawn_optics(chunks: list[Samples]) -> None:
    """Exactly where the sample is flat, within its thickness where it is not."""
    flat = 0
    for seed, samples in enumerate(chunks):
        difference = np.abs(samples.b.numpy() - truth(seed)).max()
        assert difference < RELIEF_B
        flat += bool(difference < EXACT_B)
    assert 0.6 * CHUNKS < flat < CHUNKS


def test_b_spans_its_range() -> None:
    b = np.array([expected_b(drawn(seed), i) for seed in range(150) for i in range(SCENES)])
    assert b.min() < 0.01
    assert b.max() > 1.2
    for low in np.arange(0, 1, 0.1):
        assert np.mean((b >= low) & (b < low + 0.1)) > 0.02


def test_both_sides_of_the_focus_are_drawn_alike() -> None:
    u = torch.cat([drawn(seed).u for seed in range(150)])
    assert 0.4 < float((u > 0).float().mean()) < 0.6


def test_a_label_belongs_to_its_image(chunks: list[Samples]) -> None:
    """Of white objects, the finer detail in the 2× binned view falls with b; labels mixed up would give 0 ± 0.1."""
    whole = join(chunks)
    seen = whole.structure == 1
    spectra = whole.views.spectra[seen, 1]
    finer = spectra[:, 8:20].mean(1) - spectra[:, 1:4].mean(1)
    assert spearmanr(finer.numpy(), whole.b[seen].numpy()).statistic < -0.4


def test_empty_flat_scenes_are_labelled_so() -> None:
    constant = [np.full((SCENE_PX, SCENE_PX), level, np.float32) for level in (0.0, 0.3, 1.0)]
    made = [(seed, synthesise(constant, seed, TILES)) for seed in range(8)]
    flat = [samples for seed, samples in made if np.abs(samples.b.numpy() - truth(seed)).max() < EXACT_B]
    assert len(flat) >= 5
    assert all(samples.structure.tolist() == [0.0] * SCENES * TILES for samples in flat)


def test_textured_scenes_are_labelled_so(chunks: list[Samples]) -> None:
    """White objects: little is left of them far from focus or in few electrons, and some are made empty."""
    structure = join(chunks).structure
    assert set(structure.tolist()) <= {0.0, 0.5, 1.0}
    assert float((structure == 1).float().mean()) > 0.4
    sharp = join(chunks).b < 0.1
    assert float((structure[sharp] == 1).float().mean()) > 0.75


def test_what_the_network_sees_is_the_sampling_after_resampling_or_an_unknown_one() -> None:
    for seed in range(100):
        optics = drawn(seed)
        resampled = optics.seen != optics.sampling
        assert bool((optics.seen[resampled] == torch.tensor(CANONICAL_SAMPLING)).all())


def test_the_label_knows_when_a_frame_is_not_resampled() -> None:
    for seed in range(100):
        optics = drawn(seed)
        for sampling, seen in zip(optics.sampling.tolist(), optics.seen.tolist(), strict=True):
            factor = resample(torch.zeros(1, 1), sampling)[1] if sampling != seen else 1.0
            assert sampling / factor == pytest.approx(seen, rel=1e-5)


@pytest.mark.parametrize("mainstream", [True, False])
def test_most_frames_are_near_the_canonical_sampling_and_some_far_from_it(mainstream: bool) -> None:
    ratio = (
        torch.cat([drawn(seed, mainstream=mainstream).sampling for seed in range(150)]) / CANONICAL_SAMPLING
    )
    assert 0.55 < float(((ratio - 1).abs() <= SAMPLING_TOLERANCE).float().mean()) < 0.85
    assert 2**-1.1 <= float(ratio.min()) < 0.5
    assert 1.7 < float(ratio.max()) <= 2.0
