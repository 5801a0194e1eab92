"""Recipes are read whole or refused by name."""

from pathlib import Path

import pytest

from focusd.errors import ConfigError
from focusd.training.recipe import Recipe, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "models" / "recipes").glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_what_its_file_says(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, 'name = "mine"\nseed = 7\nscenes = 3\ntiles = 4\nchunks = 5\n'))
    assert recipe == Recipe(name="mine", seed=7, scenes=3, tiles=4, chunks=5)
    assert recipe.batch == 60


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "mine"\nepochs = 3\n', "epochs"),
        ("seed = 3\n", "name"),
        ('name = "mine"\nsteps = 0\n', "steps"),
        ('name = "mine"\nlearning_rate = -1\n', "learning_rate"),
        ('name = "mine"\nema = 1.0\n', "ema"),
        ('name = "mine"\nprocedural = 0\n', "procedural"),
        ('name = "mine"\nsteps = "many"\n', "steps"),
        ("name = mine\n", "line 1"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_file_and_the_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert str(path) in error.value.message
    assert told in error.value.message


def test_a_missing_recipe_is_refused_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_load_and_bear_their_names(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_a_recipe_is_shipped() -> None:
    assert RECIPES
