"""Procedural textures follow from their seeds, fill their range, and are sharp to the pixel."""

import numpy as np
import pytest

from focusd.training.procedural import FAMILIES, procedural
from focusd.training.textures import SHARPNESS_FLOOR, fine_share

every_family = pytest.mark.parametrize("family", range(len(FAMILIES)), ids=[f.__name__ for f in FAMILIES])
"""Consecutive seeds go through the families."""


@every_family
def test_a_seed_is_a_texture(family: int) -> None:
    seed = family + 10 * len(FAMILIES)
    np.testing.assert_array_equal(procedural(seed, 96), procedural(seed, 96))
    assert not np.array_equal(procedural(seed, 96), procedural(seed + len(FAMILIES), 96))


@every_family
def test_textures_fill_0_to_1(family: int) -> None:
    for seed in range(family, family + 8 * len(FAMILIES), len(FAMILIES)):
        image = procedural(seed, 160)
        assert image.shape == (160, 160)
        assert image.dtype == np.float32
        assert image.min() == 0
        assert image.max() == pytest.approx(1)


@every_family
def test_most_textures_are_sharp_to_the_pixel(family: int) -> None:
    seeds = range(family, family + 12 * len(FAMILIES), len(FAMILIES))
    sharp = [fine_share(procedural(seed, 192)) >= SHARPNESS_FLOOR for seed in seeds]
    assert np.mean(sharp) >= 0.75


def test_a_seed_belongs_to_the_family_of_its_turn() -> None:
    for seed in (0, 3, 25):
        family = FAMILIES[seed % len(FAMILIES)]
        np.testing.assert_array_equal(procedural(seed, 64), family(np.random.default_rng(seed), 64))
