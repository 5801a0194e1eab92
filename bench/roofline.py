"""What a machine could do at most: its measured peak and bandwidth, against what a network needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Work:
    """What one patch needs, at the least.

    Attributes:
        flops: of convolutions and matrix products; multiply-adds count twice.
        bytes: input, output and, shared by a batch, weights, each moved once.
    """

    flops: float
    bytes: float


class Machine:
    """Peak and bandwidth, timed in turns with what is compared with them: a busy machine is slower for both."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        large = 1 if device.type == "cpu" else 16
        square = torch.ones(512 * large, 512 * large, device=device, dtype=dtype)
        image = torch.ones(4 * large, 128, 28, 28, device=device, dtype=dtype)
        weight = torch.ones(128, 128, 3, 3, device=device, dtype=dtype)
        source = torch.ones(COPIED_BYTES // 4, device=device)
        target = torch.empty_like(source)
        self._flops = {"product": 2 * len(square) ** 3, "convolution": 2 * image.numel() * weight[0].numel()}
        self._device = device
        self._runs: dict[str, Callable[[], object]] = {
            "product": lambda: square @ square,
            # By another library: on AMD's cores, matrix products reach half of what convolutions do.
            "convolution": lambda: nn.functional.conv2d(image, weight, padding=1),
            "copy": lambda: target.copy_(source),
        }
        self._seconds: dict[str, list[float]] = {name: [] for name in self._runs}

    def time(self) -> None:
        """Run each once."""
        for name, run in self._runs.items():
            start_s = time.perf_counter()
            run()
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            self._seconds[name].append(time.perf_counter() - start_s)

    @property
    def flops_per_s(self) -> float:
        """Of the faster of the two, at the median."""
        return max(flops / float(np.median(self._seconds[name])) for name, flops in self._flops.items())

    @property
    def bytes_per_s(self) -> float:
        """From memory to memory, read and written bytes both counted, at the median."""
        return float(2 * COPIED_BYTES / np.median(self._seconds["copy"]))

    def at_most(self, work: Work) -> float:
        """Patches a second, were either the arithmetic or the memory the only limit."""
        return min(self.flops_per_s / work.flops, self.bytes_per_s / work.bytes)


def work_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> Work:
    """The work of a patch in this batch."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        output = network(*inputs)
    outputs = output if isinstance(output, tuple) else (output,)
    moved = sum(t.nbytes for t in (*inputs, *outputs, *network.parameters()))
    return Work(counter.get_total_flops() / len(inputs[0]), moved / len(inputs[0]))
