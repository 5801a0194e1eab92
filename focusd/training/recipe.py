"""A recipe: everything that a training run depends on but its textures, as a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from focusd.errors import ConfigError


class Recipe(BaseModel):
    """How a network is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = 1
    steps: Annotated[int, Field(ge=1)] = 6000
    scenes: Annotated[int, Field(ge=1)] = 8
    """Frames that one synthesis chunk images."""
    tiles: Annotated[int, Field(ge=1)] = 6
    """Locations cut from each frame."""
    chunks: Annotated[int, Field(ge=1)] = 4
    """Chunks in a batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Annotated[int, Field(ge=0)] = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    procedural: Annotated[int, Field(ge=1)] = 560
    """Procedural textures in the pool."""
    mainstream: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the chunks imaged by well-kept instruments of known optics."""
    start: str | None = None
    """Weights to start from, beside the shipped ones; None starts from random ones."""

    @property
    def batch(self) -> int:
        """Locations in a batch."""
        return self.scenes * self.tiles * self.chunks


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: names the file and what is wrong.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
