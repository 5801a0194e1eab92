"""A tiny recipe, a small pool, and samples from it."""

from collections.abc import Iterator

import pytest
import torch

from focusd.training.loader import make_chunk
from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples, join


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Training sets the number of torch's threads; the other tests keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
