"""What training minimises, and the figures by which it is judged."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from focusd.scoring.network import FocusNet, Score
from focusd.scoring.views import RINGS, TILE_PX, Views
from focusd.training.synthesis import Samples
from focusd.training.train import loss_of, predict, validate

END = 1.0
"""Progress at which the loss is the likelihood itself."""


def samples(b: list[float], structure: list[float], contrast: Tensor | None = None) -> Samples:
    """Labelled locations of which only the contrast is looked at."""
    count = len(b)
    contrast = torch.zeros(count, 3) if contrast is None else contrast
    views = Views(torch.zeros(count, 3, TILE_PX, TILE_PX), torch.zeros(count, 3, RINGS), contrast)
    return Samples(views, torch.tensor(b), torch.tensor(structure))


def loss(
    b: float,
    sigma: float,
    truth: float = 0.5,
    logit: float = 0.0,
    structure: float = 1.0,
    progress: float = END,
) -> float:
    """Of one location."""
    score = Score(*(torch.tensor([value]) for value in (b, math.log(sigma), logit)))
    return float(loss_of(score, samples([truth], [structure]), progress))


def gradients(
    error: float, sigma: float, structure: float = 1.0, progress: float = 0.0
) -> tuple[float, float]:
    """By b and by log σ, where b is too large by an error."""
    b = torch.tensor([0.5 + error], requires_grad=True)
    log_sigma = torch.tensor([math.log(sigma)], requires_grad=True)
    of_one = loss_of(Score(b, log_sigma, torch.zeros(1)), samples([0.5], [structure]), progress)
    torch.autograd.backward(of_one)
    assert b.grad is not None
    assert log_sigma.grad is not None
    return float(b.grad), float(log_sigma.grad)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_truth_costs_least(progress: float) -> None:
    right = loss(0.5, 0.05, progress=progress)
    assert all(right < loss(b, 0.05, progress=progress) for b in (0.3, 0.45, 0.55, 0.9))


def test_a_sigma_of_the_errors_size_costs_least() -> None:
    fitting = loss(0.6, 0.1)
    assert fitting < loss(0.6, 0.02)
    assert fitting < loss(0.6, 0.5)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_sigma_grows_where_too_small_and_shrinks_where_too_large(progress: float) -> None:
    assert gradients(0.1, sigma=0.03, progress=progress)[1] < 0
    assert gradients(0.1, sigma=0.1, progress=progress)[1] == pytest.approx(0, abs=1e-6)
    assert gradients(0.1, sigma=0.3, progress=progress)[1] > 0


def test_an_uncertain_location_teaches_b_more_early_than_late() -> None:
    """The pull on b is error/σ² in the end, and error/σ at first."""
    assert gradients(0.1, sigma=0.2, progress=0.0)[0] == pytest.approx(0.1 / 0.2)
    assert gradients(0.1, sigma=0.2, progress=1.0)[0] == pytest.approx(0.1 / 0.2**2)


def test_an_empty_location_counts_for_a_quarter() -> None:
    for full, empty in zip(gradients(0.1, 0.2), gradients(0.1, 0.2, structure=0.0), strict=True):
        assert empty == pytest.approx(full / 4)


def test_the_right_structure_costs_less_than_the_wrong_one() -> None:
    assert loss(0.5, 0.1, logit=3.0, structure=1.0) < loss(0.5, 0.1, logit=-3.0, structure=1.0)
    assert loss(0.5, 0.1, logit=-3.0, structure=0.0) < loss(0.5, 0.1, logit=3.0, structure=0.0)


def test_arguable_structure_does_not_count() -> None:
    told = [loss(0.5, 0.1, logit=logit, structure=0.5) for logit in (-5.0, 0.0, 1.0)]
    assert told == pytest.approx([told[0]] * 3)


class Oracle(nn.Module):
    """Says what the contrast of its views says: b, log σ and the logit of the structure."""

    def forward(self, pixels: Tensor, spectra: Tensor, contrast: Tensor) -> Score:
        return Score(*contrast.unbind(1))


def test_predictions_keep_their_order_over_many_batches_and_the_mode_its_state() -> None:
    said = torch.arange(150 * 3, dtype=torch.float32).reshape(150, 3)
    oracle = cast(FocusNet, Oracle().train())
    score = predict(oracle, samples([0.0] * 150, [1.0] * 150, said))
    assert torch.equal(torch.stack(score, dim=1), said)
    assert oracle.training


def test_the_figures_of_a_validation() -> None:
    """Errors of ½σ, 1½σ and 3σ where there is structure; two empty locations, and an arguable one."""
    said = torch.tensor(
        [
            *[[0.25, math.log(0.1), 2], [0.45, math.log(0.1), 1], [0.6, math.log(0.1), -1]],
            *[[0.9, 0.0, -3], [0.9, 0.0, 3], [0.1, 0.0, -5]],
        ]
    )
    truth = samples([0.2, 0.3, 0.3, 0.0, 0.0, 0.9], [1, 1, 1, 0, 0, 0.5], said)
    figures = validate(cast(FocusNet, Oracle()), truth)
    assert figures["median_error"] == pytest.approx(0.15)
    assert figures["mean_error"] == pytest.approx(0.5 / 3)
    assert figures["within_1_sigma"] == pytest.approx(1 / 3)
    assert figures["within_2_sigma"] == pytest.approx(2 / 3)
    assert figures["empty_found"] == pytest.approx(1 / 2)
    assert figures["empty_false"] == pytest.approx(1 / 3)
