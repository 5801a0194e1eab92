"""A tiny recipe, a small pool, and samples from it."""

import pytest

from focusd.training.loader import make_chunk
from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples, join


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Five steps of eight locations."""
    return Recipe(name="tiny", seed=5, steps=5, scenes=2, tiles=2, chunks=2, warmup=2, procedural=3)


@pytest.fixture(scope="session")
def pool(recipe: Recipe) -> Pool:
    """Procedural textures alone."""
    return Pool([], recipe.procedural, "train")


@pytest.fixture(scope="module")
def samples(pool: Pool, recipe: Recipe) -> Samples:
    """A few dozens; they hold structure of all degrees."""
    chunks = recipe.model_copy(update={"seed": 99})
    return join([make_chunk(pool, chunks, index) for index in range(8)])
