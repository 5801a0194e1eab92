"""The network: three views of a location → blurriness, its uncertainty, and whether there is anything there.

Only convolutions, batch norm, ReLU, means and matrix products, static shapes but the batch: it compiles to
TensorRT as it is. The spectra are computed before it (`views.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from focusd.scoring.views import BINNINGS, RINGS

MIN_LOG_SIGMA = -6.0
MAX_LOG_SIGMA = 1.0
SIGMA_KNOTS = 7


class Score(NamedTuple):
    """What the network says of a batch of locations.

    Attributes:
        b: (batch,) blurriness: the Zernike focus coefficient's magnitude over `optics.MAX_FOCUS_WAVES`.
        log_sigma: (batch,) natural logarithm of b's standard deviation.
        structure: (batch,) logit of "there is something to focus on".
    """

    b: Tensor
    log_sigma: Tensor
    structure: Tensor


class FocusNet(nn.Module):
    """A small convolutional branch on the pixels and a dense branch on the radial spectra."""

    def __init__(self) -> None:
        super().__init__()
        channels = len(BINNINGS)
        self.pixels = nn.Sequential(
            _conv(channels, 24, kernel=6, stride=4),
            _conv(24, 48, stride=2),
            Residual(48),
            _conv(48, 80, stride=2),
            Residual(80),
            _conv(80, 128, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.spectrum_norm = nn.BatchNorm1d(channels * (RINGS + 1))
        self.rings = nn.Sequential(
            nn.Conv1d(channels, 32, 7, padding=3),
            nn.ReLU(),
            nn.Conv1d(32, 32, 5, padding=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.spectrum = nn.Sequential(
            nn.Linear(RINGS * 32 + channels * (RINGS + 1), 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Linear(128 + 256, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 3)
        )
        self.sigma_correction = nn.Buffer(torch.zeros(SIGMA_KNOTS))
        """Added to log σ, by b from 0 to 1; fitted after training, on textures that were not trained on."""

    def forward(self, pixels: Tensor, spectra: Tensor, contrast: Tensor) -> Score:
        """Score views; shapes as in `Views`."""
        features = self.spectrum_norm(torch.cat([spectra.flatten(1), contrast], dim=1))
        rings = features[:, : spectra.shape[1] * spectra.shape[2]].unflatten(1, spectra.shape[1:])
        spectral = self.spectrum(torch.cat([self.rings(rings), features], dim=1))
        both = torch.cat([self.pixels(pixels), spectral], dim=1)
        b, log_sigma, structure = self.head(both).unbind(1)
        b = nn.functional.softplus(b)
        log_sigma = log_sigma.clamp(MIN_LOG_SIGMA, MAX_LOG_SIGMA)
        return Score(b, log_sigma + knot_weights(b) @ self.sigma_correction, structure)


def knot_weights(b: Tensor) -> Tensor:
    """(batch, knots): how much each knot counts at b in a linear interpolation; constant beyond 0 … 1."""
    place = b.clamp(0, 1)[:, None] * (SIGMA_KNOTS - 1)
    return (1 - (place - torch.arange(SIGMA_KNOTS, device=b.device)).abs()).clamp(min=0)


class Residual(nn.Module):
    """One 3×3 convolution around which the signal may pass."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x plus its convolution."""
        out: Tensor = x + self.body(x)
        return out


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride + 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
