"""The objects that training draws from: real textures, procedural ones, and mixtures of the two."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from focusd.training.procedural import procedural
from focusd.training.synthesis import SCENE_PX
from focusd.training.textures import Role, Texture, periodic

Image = NDArray[np.float32]

FIRST_SEED: dict[Role, int] = {"train": 0, "tune": 1_000_000_000, "report": 2_000_000_000}
"""Procedural textures are kept apart by their seeds."""


class Pool:
    """The objects that serve one role."""

    def __init__(self, textures: list[Texture], procedural_count: int, role: Role) -> None:
        chosen = [t for t in textures if t.role == role]
        self._images = [t.image.astype(np.float16) for t in chosen]
        self._weights = _source_weights([t.name for t in chosen])
        first = FIRST_SEED[role]
        self._drawn = [procedural(first + k, SCENE_PX).astype(np.float16) for k in range(procedural_count)]

    def __len__(self) -> int:
        return len(self._images) + len(self._drawn)

    def draw(self, rng: np.random.Generator) -> Image:
        """One periodic object, (512, 512), values 0…1."""
        kind = rng.random()
        if kind < 0.1:
            return self._mixture(rng)
        return self._real(rng) if kind < 0.55 and self._images else self._procedural(rng)

    def _real(self, rng: np.random.Generator) -> Image:
        image = self._images[int(rng.choice(len(self._images), p=self._weights))].astype(np.float32)
        return periodic(self._resized(image, rng), SCENE_PX, rng)

    def _resized(self, image: Image, rng: np.random.Generator) -> Image:
        """Half of the larger images shrunk by a random factor: other scales of the same scene."""
        most = min(image.shape) / 128
        if most <= 1 or rng.random() < 0.5:
            return image
        factor = rng.uniform(1, min(most, 3))
        size = [round(n / factor) for n in image.shape]
        tensor = torch.from_numpy(image)[None, None]
        shrunk = functional.interpolate(tensor, size=size, mode="bilinear", antialias=True)
        return shrunk[0, 0].numpy()

    def _procedural(self, rng: np.random.Generator) -> Image:
        image = self._drawn[int(rng.integers(len(self._drawn)))]
        return np.roll(image, tuple(rng.integers(0, SCENE_PX, 2)), (0, 1)).astype(np.float32)

    def _mixture(self, rng: np.random.Generator) -> Image:
        first = self._real(rng) if self._images else self._procedural(rng)
        second = self._procedural(rng)
        return np.asarray((first + second) / 2 if rng.random() < 0.5 else first * second)


def _source_weights(names: list[str]) -> NDArray[np.float64]:
    """A source with many close relatives counts as the square root of their number."""
    sources = [name.split("/")[0] + name.split("/")[-1][:9] * name.startswith("dsb2018") for name in names]
    weights = np.array([1 / np.sqrt(sources.count(s)) for s in sources])
    return weights / weights.sum() if len(weights) else weights
