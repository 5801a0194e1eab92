"""The network's promises: shapes, bounds, independence of the batch, static operators, and its cost."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from focusd.scoring.network import (
    MAX_LOG_SIGMA,
    MIN_LOG_SIGMA,
    SIGMA_KNOTS,
    FocusNet,
    Score,
    knot_weights,
)
from focusd.scoring.views import BINNINGS, RINGS, TILE_PX

MOST_FLOP = 40e6
"""For one location, two a multiply-add."""

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def network() -> FocusNet:
    """Untrained, in evaluation mode."""
    torch.manual_seed(4)
    return FocusNet().eval()


def inputs(batch: int, seed: int = 0) -> Inputs:
    """Random views."""
    generator = torch.Generator().manual_seed(seed)
    channels = len(BINNINGS)
    return (
        torch.randn((batch, channels, TILE_PX, TILE_PX), generator=generator),
        torch.randn((batch, channels, RINGS), generator=generator),
        torch.randn((batch, channels), generator=generator),
    )


@torch.inference_mode()
def score(network: FocusNet, views: Inputs) -> Score:
    return Score(*network(*views))


def bias_head(network: FocusNet, output: int, value: float) -> None:
    """Make one output extreme."""
    with torch.no_grad():
        network.head[-1].get_parameter("bias")[output] = value


@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_each_location_has_three_single_precision_answers(network: FocusNet, batch: int) -> None:
    for part in score(network, inputs(batch)):
        assert part.shape == (batch,)
        assert part.dtype == torch.float32
        assert torch.isfinite(part).all()


@pytest.mark.parametrize("bias", [-1000.0, -3.0, 0.0, 3.0])
def test_blurriness_is_never_negative(network: FocusNet, bias: float) -> None:
    bias_head(network, 0, bias)
    b = score(network, inputs(8)).b
    assert bool((b >= 0).all())
    assert torch.isfinite(b).all()


@pytest.mark.parametrize(("bias", "limit"), [(-1000.0, MIN_LOG_SIGMA), (1000.0, MAX_LOG_SIGMA)])
def test_sigma_is_bounded(network: FocusNet, bias: float, limit: float) -> None:
    bias_head(network, 1, bias)
    assert score(network, inputs(8)).log_sigma.tolist() == pytest.approx([limit] * 8)


def test_sigmas_correction_is_added_at_the_knot_of_b(network: FocusNet) -> None:
    bias_head(network, 0, 50.0)  # b far beyond 1: the last knot
    before = score(network, inputs(4)).log_sigma
    network.sigma_correction[-1] = 0.7
    network.sigma_correction[0] = -5.0
    torch.testing.assert_close(score(network, inputs(4)).log_sigma, before + 0.7)


def test_the_same_views_give_the_same_score(network: FocusNet) -> None:
    first, again = score(network, inputs(6)), score(network, inputs(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_seed_makes_the_same_network_twice() -> None:
    torch.manual_seed(9)
    first = FocusNet().state_dict()
    torch.manual_seed(9)
    again = FocusNet().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_location_does_not_see_the_others_of_its_batch(network: FocusNet) -> None:
    views = inputs(9)
    together = score(network, views)
    for i in range(9):
        first, second, third = (part[i : i + 1] for part in views)
        alone = score(network, (first, second, third))
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], atol=1e-5, rtol=0)


def test_each_view_matters(network: FocusNet) -> None:
    """None of the nine inputs is left out of the answer."""
    plain = score(network, inputs(2))
    for part in range(3):
        for channel in range(len(BINNINGS)):
            changed = [t.clone() for t in inputs(2)]
            changed[part][:, channel] += torch.rand_like(changed[part][:, channel])
            first, second, third = changed
            assert not torch.allclose(score(network, (first, second, third)).b, plain.b, atol=1e-7)


def test_knot_weights_sum_to_one_also_outside_of_the_range() -> None:
    weights = knot_weights(torch.linspace(-0.5, 2.0, 101))
    assert weights.shape == (101, SIGMA_KNOTS)
    torch.testing.assert_close(weights.sum(1), torch.ones(101))


def test_knot_weights_interpolate_a_line_and_are_constant_beyond() -> None:
    b = torch.tensor([-0.2, 0.0, 0.07, 1 / 6, 0.5, 0.93, 1.0, 1.4])
    values = knot_weights(b) @ torch.linspace(0, 1, SIGMA_KNOTS)
    torch.testing.assert_close(values, b.clamp(0, 1))


def test_a_knot_has_no_weight_beyond_its_neighbours() -> None:
    weights = knot_weights(torch.tensor([0.25]))[0]  # between the second and the third of seven
    assert weights.tolist() == pytest.approx([0, 0.5, 0.5, 0, 0, 0, 0])


def test_the_network_exports_with_a_free_batch_and_gives_the_same_answer(network: FocusNet) -> None:
    batch = torch.export.Dim("batch", min=1, max=256)
    free = ({0: batch}, {0: batch}, {0: batch})
    program = torch.export.export(network, inputs(4), dynamic_shapes=free).module()
    for size in (1, 4, 7):
        exported = program(*inputs(size, seed=size))
        for mine, theirs in zip(score(network, inputs(size, seed=size)), exported, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_location_costs_no_more_than_the_budget(network: FocusNet) -> None:
    with FlopCounterMode(display=False) as counter:
        network(*inputs(1))
    assert 1e6 < counter.get_total_flops() <= MOST_FLOP
