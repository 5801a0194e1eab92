"""Batches are a function of the recipe's seed and the step alone."""

from itertools import islice

import pytest
import torch

from focusd.training.loader import batches, make_chunk
from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import join
from tests.training.equal import same


def test_a_batch_is_made_of_its_steps_chunks(pool: Pool, recipe: Recipe) -> None:
    for step, batch in enumerate(islice(batches(pool, recipe, 0, workers=0), 3)):
        first = step * recipe.chunks
        assert len(batch.b) == recipe.batch
        assert same(batch, join([make_chunk(pool, recipe, first + k) for k in range(recipe.chunks)]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_the_batches(pool: Pool, recipe: Recipe, workers: int) -> None:
    alone = islice(batches(pool, recipe, 0, workers=0), 3)
    shared = islice(batches(pool, recipe, 0, workers=workers), 3)
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_batches_go_on_at_a_step(pool: Pool, recipe: Recipe) -> None:
    third = list(islice(batches(pool, recipe, 0, workers=0), 3))[2]
    assert same(next(batches(pool, recipe, 2, workers=0)), third)


def test_chunks_and_seeds_differ(pool: Pool, recipe: Recipe) -> None:
    chunk = make_chunk(pool, recipe, 7)
    assert same(chunk, make_chunk(pool, recipe, 7))
    assert not same(chunk, make_chunk(pool, recipe, 8))
    assert not same(chunk, make_chunk(pool, recipe.model_copy(update={"seed": 6}), 7))


def test_synthesis_in_the_trainings_own_process_leaves_its_threads_alone(pool: Pool, recipe: Recipe) -> None:
    torch.set_num_threads(2)
    next(batches(pool, recipe.model_copy(update={"scenes": 1, "chunks": 1}), 0, workers=0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == 2
