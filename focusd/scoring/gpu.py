"""Scoring on an NVIDIA GPU: half precision, CUDA graphs of fixed batches, frames through pinned memory.

The frame goes up as the camera's 8 or 16 bit; resampling, binning, normalisation and spectra are computed on the GPU in
single precision, the network in half.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from focusd.scoring.backends import fused
from focusd.scoring.network import FocusNet, Score
from focusd.scoring.views import BINNINGS, RINGS, TILE_PX, Views

BATCHES = (64, 256)
"""One CUDA graph each; smaller batches are padded."""
WARM_UP_RUNS = 3
"""Before a capture: libraries choose their kernels and allocate in the first runs."""

Parts = tuple[Tensor, Tensor, Tensor]
T = TypeVar("T")


def missing() -> str | None:
    """Why there is no GPU to score on; None if there is one."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old driver: what counts is the answer
        available = torch.cuda.is_available()
    return None if available else "no usable NVIDIA GPU or driver was found"


def input_shapes(batch: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the network's three inputs."""
    channels = len(BINNINGS)
    return (batch, channels, TILE_PX, TILE_PX), (batch, channels, RINGS), (batch, channels)


class FixedBatch:
    """A network at one batch size, its inputs and outputs always in the same memory: what a CUDA graph needs.

    On a CPU the same without a graph.
    """

    def __init__(self, network: nn.Module, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        shapes = input_shapes(batch)
        self._network = network  # a graph does not keep its weights alive
        self._inputs = tuple(torch.zeros(shape, device=device, dtype=dtype) for shape in shapes)
        self._run = (
            _captured(network, self._inputs) if device.type == "cuda" else _plain(network, self._inputs)
        )

    def __call__(self, views: Views) -> Score:
        """Score the views. The rows beyond them keep what an earlier batch left: no row sees another."""
        count = len(views.pixels)
        for buffer, values in zip(self._inputs, (views.pixels, views.spectra, views.contrast), strict=True):
            buffer[:count].copy_(values)
        # Copied out, because the next run writes into the same memory.
        return Score(*(part[:count].to(torch.float32, copy=True) for part in self._run()))


class GpuBackend:
    """A network on the GPU.

    Args:
        name: `cuda` or `tensorrt`.
        network: takes and gives half precision at each of the `BATCHES`, on the current device.
    """

    threads = 1

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name = name
        self.batch = max(BATCHES)
        self._device = torch.device("cuda", torch.cuda.current_device())
        with torch.inference_mode():
            self._fixed = {n: FixedBatch(network, n, self._device, torch.half) for n in BATCHES}
        self._pinned = torch.empty(0)

    def load(self, pixels: NDArray[np.generic]) -> Tensor:
        """Upload a frame; the one before must have been scored."""
        dtype = getattr(torch, pixels.dtype.name)
        if self._pinned.shape != pixels.shape or self._pinned.dtype != dtype:
            self._pinned = torch.empty(pixels.shape, dtype=dtype, pin_memory=True)
        np.copyto(self._pinned.numpy(), pixels)
        return self._pinned.to(self._device, non_blocking=True).to(torch.float32)

    def map(self, score: Callable[[T], Tensor], batches: Iterable[T]) -> Iterable[Tensor]:
        """One after the other: the GPU is busy with each."""
        return map(score, batches)

    def __call__(self, views: Views) -> Score:
        """Score a batch."""
        return self._fixed[padded(len(views.pixels))](views)


def padded(count: int) -> int:
    """The smallest of the fixed batches that holds so many locations."""
    return next(batch for batch in BATCHES if batch >= count)


def open_cuda(network: FocusNet) -> GpuBackend:
    """torch's own kernels."""
    half = cast(Any, fused(network)).to("cuda", torch.half, memory_format=torch.channels_last)
    return GpuBackend("cuda", half)


def _plain(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Parts]:
    return lambda: cast(Parts, tuple(network(*inputs)))


def _captured(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Parts]:
    """A CUDA graph of the network on fixed inputs; replaying it fills the same outputs again."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            network(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # thread_local: another backend may be scoring in another thread meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = cast(Parts, tuple(network(*inputs)))

    def replay() -> Parts:
        graph.replay()
        return outputs

    return replay
