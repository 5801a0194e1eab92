"""`focusd train`: from a recipe to weights."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from focusd.errors import ConfigError
from focusd.training.export import export
from focusd.training.pool import Pool
from focusd.training.recipe import load_recipe
from focusd.training.textures import read_textures
from focusd.training.train import held_out_samples, train
from focusd.training.uncertainty import correct_sigma

HELD_OUT_PROCEDURAL = 70
VALIDATION_CHUNKS = 24
FINAL_CHUNKS = 400
"""For σ's correction and for the card."""
FINAL_MAINSTREAM = 0.5
"""Share of mainstream instruments among them, whatever the recipe trains on: so cards can be compared."""


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
        pool = Pool(images, recipe.procedural, "train")
        tune = Pool(images, HELD_OUT_PROCEDURAL, "tune")
        validation = held_out_samples(tune, recipe, VALIDATION_CHUNKS)
    console.print(f"{len(pool)} textures to train on, {len(validation.b)} validation samples of others")
    network = train(recipe, pool, validation, out, workers, threads)
    with console.status("correcting σ, and measuring on textures kept for that"):
        final = recipe.model_copy(update={"mainstream": FINAL_MAINSTREAM})
        correct_sigma(network, held_out_samples(tune, final, FINAL_CHUNKS))
        report = Pool(images, HELD_OUT_PROCEDURAL, "report")
        return export(network, recipe, held_out_samples(report, final, FINAL_CHUNKS), out, models)
