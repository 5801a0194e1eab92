"""The last step of training: σ made honest on textures that the network was not trained on."""

from __future__ import annotations

import math

import torch

from focusd.scoring.network import FocusNet, knot_weights
from focusd.training.synthesis import Samples
from focusd.training.train import predict

_STEPS = 600
_TARGETS = ((0.6827, 0.0), (0.9545, math.log(2.0)))
"""Share of the errors, and the logarithm of the number of σ that should hold them."""


def correct_sigma(network: FocusNet, samples: Samples) -> None:
    """Set the network's `sigma_correction` so that 68 % of the errors lie within σ and 95 % within 2σ, near and far.

    Quantile regression (Koenker and Bassett, Econometrica 46 (1978) 33) of log |error|/σ on the knots of b, for both
    shares at once.

    Args:
        samples: of textures that were not trained on; some thousands.
    """
    network.sigma_correction.zero_()
    score = predict(network, samples)
    seen = samples.structure == 1
    ratio = ((score.b - samples.b).abs()[seen] + 1e-9).log() - score.log_sigma[seen]
    weights = knot_weights(score.b[seen])
    correction = torch.zeros(weights.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([correction], lr=0.02)
    for _ in range(_STEPS):
        excess = ratio - weights @ correction
        loss = torch.stack([_pinball(excess - level, share) for share, level in _TARGETS]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.sigma_correction.copy_(correction.detach())


def _pinball(excess: torch.Tensor, share: float) -> torch.Tensor:
    """Least where `share` of the values lie below zero."""
    return torch.maximum(share * excess, (share - 1) * excess).mean()
