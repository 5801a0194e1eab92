"""A run in one go, and the same run interrupted and gone on with."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focusd.errors import ModelError
from focusd.scoring.network import FocusNet
from focusd.training import train as train_module
from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples
from focusd.training.train import CHECKPOINT, LOG, train

EVERY = 2


class InterruptedRunError(Exception):
    """Someone pressed Ctrl-C, or the machine went down."""


class Breaking(Pool):
    """A pool that ends the run at a draw."""

    def __init__(self, pool: Pool, draws: int) -> None:
        self._pool, self._left = pool, draws

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        if self._left == 0:
            raise InterruptedRunError
        self._left -= 1
        return self._pool.draw(rng)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints every second step."""
    monkeypatch.setattr(train_module, "EVERY", EVERY)


@pytest.fixture(scope="module")
def in_one_go(
    recipe: Recipe, pool: Pool, samples: Samples, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FocusNet, Path]:
    """The network of an undisturbed run, and the run's folder."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "EVERY", EVERY)
        return train(recipe, pool, samples, out, workers=0), out


def equal(one: FocusNet, two: FocusNet) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def interrupt(recipe: Recipe, pool: Pool, samples: Samples, out: Path, steps: int) -> None:
    """Run some steps and break off in the middle of the next."""
    draws = steps * recipe.chunks * recipe.scenes + 1
    with pytest.raises(InterruptedRunError):
        train(recipe, Breaking(pool, draws), samples, out, workers=0)


def steps_of(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / LOG).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    in_one_go: tuple[FocusNet, Path],
    recipe: Recipe,
    pool: Pool,
    samples: Samples,
    tmp_path: Path,
    steps: int,
) -> None:
    interrupt(recipe, pool, samples, tmp_path, steps)
    assert (tmp_path / CHECKPOINT).exists() == (steps >= EVERY)
    assert equal(train(recipe, pool, samples, tmp_path, workers=0), in_one_go[0])
    assert steps_of(tmp_path) == [2, 4, 5]


def test_a_resumed_run_does_not_repeat_the_steps_of_its_checkpoint(
    recipe: Recipe, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    interrupt(recipe, pool, samples, tmp_path, 4)
    last_step = Breaking(pool, recipe.chunks * recipe.scenes)
    train(recipe, last_step, samples, tmp_path, workers=0)


def test_the_number_of_workers_does_not_change_the_weights(
    in_one_go: tuple[FocusNet, Path], recipe: Recipe, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    assert equal(train(recipe, pool, samples, tmp_path, workers=1), in_one_go[0])


def test_a_finished_run_has_nothing_left_to_do(
    in_one_go: tuple[FocusNet, Path], recipe: Recipe, pool: Pool, samples: Samples
) -> None:
    network, out = in_one_go
    assert equal(train(recipe, Breaking(pool, 0), samples, out, workers=0), network)
    assert not network.training


def test_another_seed_gives_another_network(
    in_one_go: tuple[FocusNet, Path], recipe: Recipe, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    other = recipe.model_copy(update={"seed": 6, "steps": 1})
    assert not equal(train(other, pool, samples, tmp_path, workers=0), in_one_go[0])


@pytest.mark.parametrize("change", [{"seed": 6}, {"learning_rate": 1e-3}, {"steps": 9}, {"name": "other"}])
def test_a_checkpoint_of_another_recipe_is_refused_and_kept(
    in_one_go: tuple[FocusNet, Path], recipe: Recipe, pool: Pool, samples: Samples, change: dict[str, object]
) -> None:
    checkpoint = in_one_go[1] / CHECKPOINT
    before = checkpoint.read_bytes()
    with pytest.raises(ModelError) as error:
        train(recipe.model_copy(update=change), pool, samples, in_one_go[1], workers=0)
    assert str(checkpoint) in error.value.message
    assert checkpoint.read_bytes() == before


def test_who_lacks_the_weights_to_start_from_is_told_where_they_are(
    recipe: Recipe, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    from_earlier = recipe.model_copy(update={"start": "focusnet-3"})
    with pytest.raises(ModelError, match=r"git checkout weights-1-to-3 -- models/focusnet-3\.safetensors "):
        train(from_earlier, pool, samples, tmp_path, workers=0)


def test_what_a_killed_save_left_behind_does_not_matter(
    in_one_go: tuple[FocusNet, Path], recipe: Recipe, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    interrupt(recipe, pool, samples, tmp_path, 3)
    (tmp_path / (CHECKPOINT + ".new")).write_bytes(b"half a checkpoi")
    assert equal(train(recipe, pool, samples, tmp_path, workers=0), in_one_go[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CHECKPOINT, LOG])


def test_the_log_tells_each_validation(in_one_go: tuple[FocusNet, Path]) -> None:
    lines = (in_one_go[1] / LOG).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert {"loss", "median_error", "within_1_sigma", "empty_found"} <= json.loads(line).keys()


def test_the_network_is_the_runs_average(in_one_go: tuple[FocusNet, Path]) -> None:
    network, out = in_one_go
    saved = torch.load(out / CHECKPOINT, weights_only=True)
    weight = network.state_dict()["head.0.weight"]
    assert torch.equal(weight, saved["average"]["head.0.weight"])
    assert not torch.equal(weight, saved["network"]["head.0.weight"])


def test_training_learns_what_it_is_shown_again_and_again(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, samples: Samples, tmp_path: Path
) -> None:
    monkeypatch.setattr(train_module, "batches", lambda *_: itertools.repeat(samples))
    train(Recipe(name="short", steps=24, warmup=4), pool, samples, tmp_path)
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    errors = [json.loads(line)["mean_error"] for line in lines]
    assert errors[-1] < 0.5 * errors[0]
