"""What a finished run leaves: weights that load, their hash, a card and a picture; and σ made honest before."""

import hashlib
import json
import math
from pathlib import Path
from typing import cast

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from focusd.errors import ConfigError
from focusd.scoring.network import SIGMA_KNOTS, FocusNet, Score, knot_weights
from focusd.scoring.views import PREPROCESSING_VERSION, RINGS, Views
from focusd.scoring.weights import load_model
from focusd.training import command
from focusd.training.export import export
from focusd.training.recipe import Recipe
from focusd.training.synthesis import Samples
from focusd.training.train import LOG, validate
from focusd.training.uncertainty import correct_sigma


@pytest.fixture
def network() -> FocusNet:
    torch.manual_seed(8)
    return FocusNet().eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with its log."""
    lines = [{"step": step, "median_error": 1 / step, "mean_error": 2 / step} for step in (250, 500)]
    (tmp_path / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def test_an_export_is_weights_hash_card_and_picture(
    network: FocusNet, recipe: Recipe, samples: Samples, run: Path
) -> None:
    path = export(network, recipe, samples, run, run / "models")
    names = ["tiny.md", "tiny.png", "tiny.safetensors", "tiny.safetensors.sha256"]
    assert path == run / "models" / "tiny.safetensors"
    assert sorted(p.name for p in path.parent.iterdir()) == names


def test_exported_weights_load_and_say_how_they_were_made(
    network: FocusNet, recipe: Recipe, samples: Samples, run: Path
) -> None:
    model = load_model(export(network, recipe, samples, run, run))
    mine, theirs = network.state_dict(), model.network.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert json.loads(model.metadata["recipe"]) == recipe.model_dump()
    assert json.loads(model.metadata["preprocessing"]) == PREPROCESSING_VERSION


def test_the_card_names_the_weights_by_their_hash(
    network: FocusNet, recipe: Recipe, samples: Samples, run: Path
) -> None:
    path = export(network, recipe, samples, run, run)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert card.startswith("# tiny\n")
    assert f"{validate(network, samples)['median_error']:.4f}" in card
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in card


@pytest.mark.parametrize("with_log", [True, False])
def test_the_picture_is_one_with_or_without_a_log(
    network: FocusNet, recipe: Recipe, samples: Samples, run: Path, with_log: bool
) -> None:
    folder = run if with_log else run / "elsewhere"
    with PIL.Image.open(export(network, recipe, samples, folder, run).with_suffix(".png")) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200


class Overconfident(nn.Module):
    """Says b as the contrast of its views does, and always the same σ, corrected."""

    SIGMA = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.sigma_correction = nn.Buffer(torch.zeros(SIGMA_KNOTS))

    def forward(self, pixels: Tensor, spectra: Tensor, contrast: Tensor) -> Score:
        b = contrast[:, 0]
        log_sigma = math.log(self.SIGMA) + knot_weights(b) @ self.sigma_correction
        return Score(b, log_sigma, torch.full_like(b, 5.0))


def overconfident() -> FocusNet:
    return cast(FocusNet, Overconfident())


def noisy(count: int = 3000) -> Samples:
    """Locations whose answers are wrong by a Gaussian error that grows from 0.01 to 0.11 with b."""
    generator = torch.Generator().manual_seed(0)
    b = torch.rand(count, generator=generator)
    contrast = b + (0.01 + 0.1 * b) * torch.randn(count, generator=generator)
    views = Views(torch.zeros(count, 0), torch.zeros(count, 3, RINGS), contrast[:, None])
    return Samples(views, b, torch.ones(count))


def between(samples: Samples, low: float, high: float) -> Samples:
    """Those of some true b."""
    index = (samples.b >= low) & (samples.b < high)
    views = Views(*(getattr(samples.views, name)[index] for name in Views.__annotations__))
    return Samples(views, samples.b[index], samples.structure[index])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.05, 0.35), (0.35, 0.65), (0.65, 0.95)])
def test_corrected_sigmas_hold_their_share_of_the_errors_near_and_far(low: float, high: float) -> None:
    network = overconfident()
    correct_sigma(network, noisy())
    figures = validate(network, between(noisy(), low, high))
    assert figures["within_1_sigma"] == pytest.approx(0.683, abs=0.05)
    assert figures["within_2_sigma"] == pytest.approx(0.954, abs=0.03)


def test_correcting_twice_is_correcting_once() -> None:
    network = overconfident()
    correct_sigma(network, noisy())
    once = network.sigma_correction.clone()
    correct_sigma(network, noisy())
    assert torch.equal(network.sigma_correction, once)
    assert not once.requires_grad


def test_locations_of_nothing_do_not_count_for_sigma() -> None:
    plain, mixed = overconfident(), overconfident()
    correct_sigma(plain, noisy())
    half = noisy()
    wrong = Samples(half.views, half.b + 5, torch.zeros_like(half.structure))
    views = Views(*(torch.cat([getattr(s.views, n) for s in (half, wrong)]) for n in Views.__annotations__))
    both = Samples(views, torch.cat([half.b, wrong.b]), torch.cat([half.structure, wrong.structure]))
    correct_sigma(mixed, both)
    torch.testing.assert_close(mixed.sigma_correction, plain.sigma_correction)


def test_the_command_goes_from_a_recipe_to_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {"HELD_OUT_PROCEDURAL": 2, "VALIDATION_CHUNKS": 2, "FINAL_CHUNKS": 12}
    for name, value in sizes.items():
        monkeypatch.setattr(command, name, value)
    recipe = tmp_path / "mini.toml"
    recipe.write_text('name = "mini"\nsteps = 1\nscenes = 2\ntiles = 4\nchunks = 2\nprocedural = 2\n')
    path = command.train_and_export(recipe, tmp_path / "run", None, tmp_path / "models", 1, 1)
    assert path == tmp_path / "models" / "mini.safetensors"
    assert load_model(path).network.sigma_correction.abs().sum() > 0


def test_a_missing_folder_of_textures_is_refused_by_name(tmp_path: Path) -> None:
    recipe = tmp_path / "mini.toml"
    recipe.write_text('name = "mini"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="nowhere"):
        command.train_and_export(recipe, tmp_path / "run", tmp_path / "nowhere", tmp_path, 1, 1)
