"""What training draws from: one role's textures, periodic objects in range, the same for the same generator."""

from itertools import pairwise

import numpy as np
import pytest

from focusd.training.pool import FIRST_SEED, Pool
from focusd.training.synthesis import SCENE_PX
from focusd.training.textures import Role, Texture

ROLES: tuple[Role, ...] = ("train", "tune", "report")


def texture(level: float, role: Role, shape: tuple[int, int] = (200, 150)) -> Texture:
    """A constant texture, to be recognised by its level."""
    return Texture(np.full(shape, level, np.float32), f"source/{level}.png", role)


@pytest.mark.parametrize("role", ROLES)
def test_a_pool_holds_the_textures_of_its_role(role: Role) -> None:
    textures = [texture(0.1, "train"), texture(0.2, "tune"), texture(0.3, "tune"), texture(0.4, "report")]
    assert len(Pool(textures, 2, role)) == 2 + {"train": 1, "tune": 2, "report": 1}[role]


@pytest.mark.parametrize("role", ROLES)
def test_no_object_comes_from_another_role(role: Role) -> None:
    """Constant objects are the real ones that are not mixed with procedural ones."""
    levels = dict(zip(ROLES, (0.125, 0.25, 0.5), strict=True))
    pool = Pool([texture(level, other) for other, level in levels.items()], 1, role)
    rng = np.random.default_rng(2)
    drawn = [pool.draw(rng) for _ in range(24)]
    constant = {float(image[0, 0]) for image in drawn if np.ptp(image) == 0}
    assert constant == {levels[role]}


def test_procedural_textures_of_the_roles_cannot_meet() -> None:
    firsts = sorted(FIRST_SEED.values())
    assert min(b - a for a, b in pairwise(firsts)) > 1_000_000
    objects = [Pool([], 1, role).draw(np.random.default_rng(0)) for role in ROLES]
    assert not np.array_equal(objects[0], objects[1])
    assert not np.array_equal(objects[1], objects[2])


def test_objects_are_scenes_in_range() -> None:
    rng = np.random.default_rng(0)
    real = Texture(rng.random((400, 300)).astype(np.float32), "source/a.png", "train")
    pool = Pool([real], 3, "train")
    for _ in range(20):
        image = pool.draw(rng)
        assert image.shape == (SCENE_PX, SCENE_PX)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1 + 1e-3  # half precision


def test_draws_follow_from_the_generator(pool: Pool) -> None:
    first, again, other = (pool.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_source_of_many_relatives_is_not_drawn_as_often_as_they_are_many() -> None:
    """Sixteen of one source count as four, so that two lone textures make a third of the draws."""
    family = [Texture(np.full((150, 150), 0.25, np.float32), f"kin/{k}.png", "train") for k in range(16)]
    lone = [
        Texture(np.full((150, 150), 0.75, np.float32), f"{name}/1.png", "train") for name in ("one", "two")
    ]
    pool, rng = Pool([*family, *lone], 1, "train"), np.random.default_rng(5)
    levels = [float(image[0, 0]) for image in (pool.draw(rng) for _ in range(400)) if np.ptp(image) == 0]
    assert np.mean(np.array(levels) == 0.75) == pytest.approx(1 / 3, abs=0.12)
