"""Training of the network: resumable, deterministic from the recipe's seed, with a progress bar."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from focusd.errors import ModelError
from focusd.scoring.network import FocusNet, Score
from focusd.scoring.weights import load_model, shipped_weights
from focusd.training.loader import batches, make_chunk
from focusd.training.pool import Pool
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples, join

CHECKPOINT = "checkpoint.pt"
EARLIER_WEIGHTS = "weights-1-to-3"
"""The git tag at which the repository still had the weights that the shipped ones were trained from."""
LOG = "log.jsonl"
EVERY = 250
"""Steps between checkpoints and validations."""
EMPTY_WEIGHT = 0.25


@dataclass
class _State:
    """All that a resumed run continues from."""

    network: FocusNet
    average: FocusNet
    optimizer: torch.optim.Optimizer
    step: int = 0


def train(
    recipe: Recipe, pool: Pool, validation: Samples, out: Path, workers: int = 1, threads: int = 1
) -> FocusNet:
    """Train, or go on from the checkpoint in `out`, and return the averaged network.

    Raises:
        ModelError: the checkpoint in `out` belongs to another recipe, or the weights to start from are missing.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    state = _resume(recipe, out)
    source = batches(pool, recipe, state.step, workers)
    with _progress(recipe, state.step) as advance:
        while state.step < recipe.steps:
            loss = _step(state, recipe, next(source))
            advance(loss)
            if state.step % EVERY == 0 or state.step == recipe.steps:
                _log(out, {"step": state.step, "loss": loss, **validate(state.average, validation)})
                _save(state, recipe, out)
    return state.average.eval()


def loss_of(score: Score, samples: Samples, progress: float) -> Tensor:
    """β-NLL of b under a Gaussian, plus cross-entropy of the structure where it is not arguable.

    Source: Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", ICLR 2022, eq. 4:
    weighting by σ^(2β) keeps hard samples from being written off as noise early on. β falls from ½ to 0, so that
    the end of the training maximises the likelihood itself. Of empty tiles only σ has something to learn.

    Args:
        progress: of the training, 0…1.
    """
    sigma = score.log_sigma.exp()
    weight = sigma.detach() ** (1 - progress) * torch.where(samples.structure == 0, EMPTY_WEIGHT, 1.0)
    nll = 0.5 * ((score.b - samples.b) / sigma).square() + score.log_sigma
    entropy = functional.binary_cross_entropy_with_logits(
        score.structure, samples.structure, reduction="none"
    )
    clear = (samples.structure != 0.5).float()
    return (nll * weight).mean() + 0.05 * (entropy * clear).mean()


def validate(network: FocusNet, samples: Samples) -> dict[str, float]:
    """Errors of b on samples with structure, coverage of σ, and how empty ones are told."""
    score = predict(network, samples)
    empty, seen = samples.structure == 0, samples.structure == 1
    error = (score.b - samples.b).abs()[seen]
    ratio = error / score.log_sigma.exp()[seen]
    called_empty = (score.structure < 0).float()
    return {
        "median_error": float(error.median()),
        "mean_error": float(error.mean()),
        "within_1_sigma": float((ratio < 1).float().mean()),
        "within_2_sigma": float((ratio < 2).float().mean()),
        "empty_found": float(called_empty[empty].mean()),
        "empty_false": float(called_empty[seen].mean()),
    }


def predict(network: FocusNet, samples: Samples) -> Score:
    """Scores of samples, in evaluation mode."""
    training = network.training
    network.eval()
    parts = []
    with torch.inference_mode():
        for i in range(0, len(samples.b), 64):
            part = slice(i, i + 64)
            views = samples.views
            parts.append(network(views.pixels[part], views.spectra[part], views.contrast[part]))
    network.train(training)
    return Score(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def held_out_samples(pool: Pool, recipe: Recipe, chunks: int) -> Samples:
    """A fixed set of samples from a pool."""
    return join([make_chunk(pool, recipe, index) for index in range(chunks)])


def _step(state: _State, recipe: Recipe, samples: Samples) -> float:
    """One update of the weights and of their average."""
    for group in state.optimizer.param_groups:
        group["lr"] = _learning_rate(recipe, state.step)
    views = samples.views
    pixels = views.pixels.contiguous(memory_format=torch.channels_last)
    score = state.network(pixels, views.spectra, views.contrast)
    loss = loss_of(score, samples, state.step / recipe.steps)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    _average(state.average, state.network, min(recipe.ema, state.step / (state.step + 20)))
    return float(loss.detach())


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


@torch.no_grad()
def _average(average: FocusNet, network: FocusNet, keep: float) -> None:
    """Exponential moving average of weights and of batch-norm statistics."""
    mine, theirs = average.state_dict(), network.state_dict()
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


def _resume(recipe: Recipe, out: Path) -> _State:
    """A fresh state, or that of the checkpoint."""
    torch.manual_seed(recipe.seed)
    network = _initial(recipe).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    state = _State(network, copy.deepcopy(network), optimizer)
    path = out / CHECKPOINT
    if not path.exists():
        return state
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    if saved["recipe"] != recipe.model_dump():
        raise ModelError(f"{path} belongs to another recipe; give another --out, or remove it")
    state.network.load_state_dict(saved["network"])
    state.average.load_state_dict(saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = saved["step"]
    return state


def _initial(recipe: Recipe) -> FocusNet:
    """Random weights, or those that the recipe starts from, with σ's correction undone.

    Raises:
        ModelError: the weights to start from are missing or corrupt.
    """
    if recipe.start is None:
        return FocusNet()
    path = shipped_weights().with_name(f"{recipe.start}.safetensors")
    if not path.exists():
        raise ModelError(
            f"{path}: the recipe starts from these weights, and they are not there. Only the current weights are kept; "
            f"the git tag {EARLIER_WEIGHTS} of focusd's repository has focusnet-1 to 3: run `git checkout "
            f"{EARLIER_WEIGHTS} -- models/{path.name} models/{path.name}.sha256` in a clone"
        )
    network = load_model(path).network
    network.sigma_correction.zero_()
    return network


def _save(state: _State, recipe: Recipe, out: Path) -> None:
    """Write the checkpoint whole or not at all."""
    saved = {
        "recipe": recipe.model_dump(),
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
    }
    temporary = out / (CHECKPOINT + ".new")
    torch.save(saved, temporary)
    os.replace(temporary, out / CHECKPOINT)


def _log(out: Path, values: dict[str, float]) -> None:
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


@contextmanager
def _progress(recipe: Recipe, done: int) -> Iterator[Callable[[float], None]]:
    """A progress bar with the running loss; yields what to call with each step's loss."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("training", total=recipe.steps, completed=done)
        running: float | None = None

        def advance(loss: float) -> None:
            nonlocal running
            running = loss if running is None else 0.98 * running + 0.02 * loss
            bar.update(task, advance=1, description=f"training, loss {running:.4f}")

        yield advance
