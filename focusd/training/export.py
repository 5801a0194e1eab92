"""From a finished run to what is shipped: weights, their hash, the model card and its picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib
import torch

from focusd import __version__
from focusd.scoring.network import FocusNet
from focusd.scoring.views import PREPROCESSING_VERSION, Views
from focusd.scoring.weights import save_model
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples
from focusd.training.train import LOG, predict, validate

matplotlib.use("Agg")

THIRDS = {"all": (0.0, math.inf), "b < ⅓": (0.0, 1 / 3), "⅓ … ⅔": (1 / 3, 2 / 3), "⅔ … 1": (2 / 3, 1.0)}
"""Ranges of b for which the card gives figures."""


def export(network: FocusNet, recipe: Recipe, report: Samples, run: Path, folder: Path) -> Path:
    """Write `<name>.safetensors`, its hash, `<name>.md` and `<name>.png` into a folder; returns the weights' path.

    Args:
        report: samples for the card's figures, of textures that served nothing before.
        run: the training's folder, for its log.
    """
    metadata: dict[str, object] = {
        "recipe": recipe.model_dump(),
        "preprocessing": PREPROCESSING_VERSION,
        "focusd": __version__,
        "torch": torch.__version__,
    }
    path = folder / f"{recipe.name}.safetensors"
    sha256 = save_model(network, path, metadata)
    _plot(network, report, run / LOG, path.with_suffix(".png"))
    path.with_suffix(".md").write_text(_card(network, recipe, report, sha256), encoding="utf-8")
    return path


def _card(network: FocusNet, recipe: Recipe, report: Samples, sha256: str) -> str:
    """The model card: what it is, how it was made, how good it is."""
    parameters = sum(p.numel() for p in network.parameters())
    columns = [validate(network, _between(report, *limits)) for limits in THIRDS.values()]
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | " + " | ".join(f"{column[name]:.4f}" for column in columns) + " |"
        for name in columns[0]
    )
    heads = " | ".join(THIRDS)
    return f"""# {recipe.name}

Regresses the blurriness b of a 128×128 px location (the magnitude of the Zernike focus coefficient over three
waves RMS), its standard deviation, and whether the location holds anything to focus on.

- **Network**: `focusd/scoring/network.py`, {parameters:,} parameters; input: the location at 1×, 2× and 4×
  binning, and the radial power spectra of these (`focusd/scoring/views.py`, preprocessing {PREPROCESSING_VERSION}).
- **Weights**: `{recipe.name}.safetensors`, SHA-256 `{sha256}`.
- **Data**: frames synthesised by `focusd/training/synthesis.py` from real textures (see below) and from
  {recipe.procedural} procedural ones; {recipe.steps * recipe.batch:,} locations, each seen once.
- **Command**: `focusd train --recipe models/recipes/{recipe.name}.toml --textures DIR --out RUN`.
- **Textures**: dsb2018 (CC0), bccd (MIT), cellprofiler_examples (BSD-3), neubias_xy (CC-BY 4.0), those that are
  sharp after shrinking. Kept for tuning (σ's correction): dsb2018's `fluo_360x360`. Kept for figures: all of
  scikit-image's images, cellprofiler's `AS_*`, half of neubias_xy but what resembles trained images
  (`focusd/training/textures.py`).

On {len(report.b):,} locations of textures kept for figures (real and procedural; half of the instruments
mainstream, the others anything, 20–50,000 electrons at the brightest point, all defocus), errors in units of b:

| figure | {heads} |
|---|{"---|" * len(THIRDS)}
{rows}

`empty found`: share of the empty locations that are called empty; `empty false`: share of those with structure
that are called empty.

![training]({recipe.name}.png)

**Limits.** A texture that is soft in itself looks defocused; σ says so only in part. Samples thicker than
two axial units were not trained on. The score does not tell the sign of the defocus.
"""


def _between(samples: Samples, low: float, high: float) -> Samples:
    """The samples whose true b lies in [low, high)."""
    kept = (samples.b >= low) & (samples.b < high)
    views = Views(*(getattr(samples.views, name)[kept] for name in Views.__annotations__))
    return Samples(views, samples.b[kept], samples.structure[kept])


def _plot(network: FocusNet, report: Samples, log: Path, path: Path) -> None:
    """The run's curve, and predicted against true blurriness."""
    from matplotlib import pyplot as plt

    records = (
        [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.semilogy([r["step"] for r in records], [r["mean_error"] for r in records], label="mean")
    left.semilogy([r["step"] for r in records], [r["median_error"] for r in records], label="median")
    left.set(xlabel="step", ylabel="error of b, held-out textures")
    left.legend()
    score, seen = predict(network, report), report.structure == 1
    dots = right.scatter(
        report.b[seen], score.b[seen], c=score.log_sigma[seen].exp(), s=5, vmax=0.2, cmap="viridis_r"
    )
    right.plot([0, 1.5], [0, 1.5], color="black", linewidth=0.8)
    right.set(xlabel="true b", ylabel="predicted b")
    figure.colorbar(dots, ax=right, label="predicted σ")
    figure.savefig(path, dpi=110)
    plt.close(figure)
