"""From an object to camera counts: blur, illumination, noise, quantisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def blur(scene: Tensor, kernel: Tensor) -> Tensor:
    """Circular convolution of scenes (batch, y, x) with kernels (batch, k, k) whose origin is [0, 0]."""
    shape = scene.shape[-2:]
    image: Tensor = torch.fft.irfft2(torch.fft.rfft2(scene) * kernel_transfer(kernel, shape), s=shape)
    return image


def kernel_transfer(kernel: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Transfer function, for an rfft2 of the given (y, x) shape, of kernels whose origin is [0, 0]."""
    size = kernel.shape[-1]
    placed = kernel.new_zeros((*kernel.shape[:-2], *shape))
    for rows, to_rows in _halves(size, shape[-2]):
        for columns, to_columns in _halves(size, shape[-1]):
            placed[..., to_rows, to_columns] = kernel[..., rows, columns]
    transfer: Tensor = torch.fft.rfft2(placed)
    return transfer


def _halves(size: int, extent: int) -> list[tuple[slice, slice]]:
    """Where the samples at and after the origin, and those before it, go when a kernel's axis is lengthened."""
    after = size - size // 2
    return [(slice(0, after), slice(0, after)), (slice(after, size), slice(extent - size + after, extent))]


def vignette(shape: tuple[int, int], loss: float, like: Tensor) -> Tensor:
    """Relative illumination, 1 in the centre and 1 − loss in the corners, (y, x)."""
    y = torch.linspace(-1, 1, shape[0], dtype=like.dtype, device=like.device)
    x = torch.linspace(-1, 1, shape[1], dtype=like.dtype, device=like.device)
    return 1 - loss * (y[:, None] ** 2 + x[None, :] ** 2) / 2


@dataclass(frozen=True)
class Camera:
    """How a camera turns expected photoelectrons into counts.

    Attributes:
        bit_depth: of the counts.
        full_well: electrons at full scale.
        read_noise: electrons RMS.
        offset: counts of a dark pixel.
    """

    bit_depth: int = 16
    full_well: float = 30000.0
    read_noise: float = 1.6
    offset: float = 100.0

    @property
    def full_scale(self) -> int:
        """The largest count."""
        return int(2**self.bit_depth) - 1

    def expose(self, electrons: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts, as whole float numbers in 0…full_scale, for expected electrons of the same shape."""
        signal = self._detect(electrons.clamp(min=0), generator)
        counts = signal * ((self.full_scale - self.offset) / self.full_well) + self.offset
        return counts.round().clamp(0, self.full_scale)

    def _detect(self, electrons: Tensor, generator: torch.Generator | None) -> Tensor:
        """Electrons with shot and read noise. A bright frame's shot noise is drawn as Gaussian: ten times faster."""
        noise = torch.empty_like(electrons).normal_(generator=generator)
        if float(electrons.min()) > _GAUSSIAN_ABOVE:
            return electrons + noise * torch.sqrt(electrons + self.read_noise**2)
        return torch.poisson(electrons, generator=generator) + self.read_noise * noise


_GAUSSIAN_ABOVE = 100.0
"""Electrons above which a Poisson variate is Gaussian for every purpose here (skewness below 0.1)."""
