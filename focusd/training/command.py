"""`focusd train`: from a recipe to weights."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from focusd.errors import ConfigError
from focusd.training.export import export
from focusd.training.pool import Pool
from focusd.training.recipe import load_recipe
from focusd.training.textures import read_textures
from focusd.training.train import train, validation_samples

VALIDATION_PROCEDURAL = 70


def train_and_export(
    recipe_file: Path, out: Path, textures: Path | None, models: Path, workers: int, threads: int
) -> Path:
    """Train as the recipe says and write the weights; returns their path.

    Raises:
        ConfigError: the recipe or the folder of textures cannot be read.
    """
    recipe = load_recipe(recipe_file)
    if textures is not None and not textures.is_dir():
        raise ConfigError(f"{textures}: no such folder of textures")
    console = Console()
    with console.status("reading and drawing textures"):
        images = read_textures(textures) if textures else []
        pool = Pool(images, recipe.procedural, held_out=False)
        validation = validation_samples(Pool(images, VALIDATION_PROCEDURAL, held_out=True), recipe)
    console.print(f"{len(pool)} textures to train on, {len(validation.b)} validation samples of others")
    network = train(recipe, pool, validation, out, workers, threads)
    return export(network, recipe, validation, out, models)
