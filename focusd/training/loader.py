"""Endless batches of synthesised samples, made in worker processes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples, join, synthesise


class _Chunks(IterableDataset[Samples]):
    """Chunk k is a function of (seed, k) alone, so that any number of workers gives the same sequence."""

    def __init__(self, pool: Pool, recipe: Recipe, first: int) -> None:
        self._pool, self._recipe, self._first = pool, recipe, first

    def __iter__(self) -> Iterator[Samples]:
        info = get_worker_info()
        index, stride = (self._first, 1) if info is None else (self._first + info.id, info.num_workers)
        if info is not None:  # in a process of its own
            torch.set_num_threads(1)
        while True:
            yield make_chunk(self._pool, self._recipe, index)
            index += stride


def make_chunk(pool: Pool, recipe: Recipe, index: int) -> Samples:
    """The samples of one chunk."""
    rng = np.random.default_rng((recipe.seed, index))
    objects = [pool.draw(rng) for _ in range(recipe.scenes)]
    seed = int(rng.integers(2**31))
    return synthesise(objects, seed, recipe.tiles, mainstream=rng.random() < recipe.mainstream)


def batches(pool: Pool, recipe: Recipe, first_step: int, workers: int) -> Iterator[Samples]:
    """Batches from a step on, without end."""
    dataset = _Chunks(pool, recipe, first_step * recipe.chunks)
    loader = iter(DataLoader(dataset, batch_size=None, num_workers=workers))
    while True:
        yield join([next(loader) for _ in range(recipe.chunks)])
