"""Where views are scored: the protocol of a backend, the CPU's, and the one that serves.

All backends do the same arithmetic on other hardware. The best that works serves. One that fails is left for good,
and the next takes over in the middle of a frame, so that no failure of a GPU ever stops a refocus.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from focusd.errors import ScoringError
from focusd.scoring.deadline import Deadline
from focusd.scoring.network import FocusNet, Score
from focusd.scoring.threads import compute_alone
from focusd.scoring.views import Views, blank, levels, views_in

log = structlog.get_logger(__name__)

CPU_BATCH = 16
"""Its views still fit into a core's cache."""
LEAST_SHARE = 4
"""Views that are not worth waking one more thread for."""
SURELY_EMPTY = -20.0
"""Logit of structure."""
DEADLINE_S = 20.0
"""Of a frame: a hundred times what a busy CPU takes, and less than after which the service manager steps in."""
TOLERANCES = {"b": 2e-3, "log σ": 2e-2, "structure": 5e-2}
"""How far a backend may be from the CPU's single precision; half precision is within a quarter of it."""

T = TypeVar("T")


class Backend(Protocol):
    """Scores on one kind of hardware; called by one thread at a time."""

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        ...

    @property
    def batch(self) -> int:
        """Locations that it takes at once."""
        ...

    @property
    def threads(self) -> int:
        """Batches that it scores side by side."""
        ...

    def load(self, pixels: NDArray[np.generic]) -> Tensor:
        """A frame (y, x) where this backend computes; in single precision where that takes no time of its own."""
        ...

    def map(self, score: Callable[[T], Tensor], batches: Iterable[T]) -> Iterable[Tensor]:
        """Like the builtin: the scores of all batches, in their order."""
        ...

    def __call__(self, views: Views) -> Score:
        """Score at most `batch` locations; single precision, on the views' device."""
        ...


class CpuBackend:
    """torch on the CPU, in single precision.

    Args:
        batch: locations scored at once by a thread.
        threads: that score batches side by side, each with one core. torch's own threads share each small step
            instead, and on a busy machine wait for one another ten times as long as one takes for everything.
    """

    name = "cpu"

    def __init__(self, network: FocusNet, batch: int = CPU_BATCH, threads: int = 1) -> None:
        self.batch = batch
        self._network: Any = cast(Any, fused(network)).to(memory_format=torch.channels_last)
        self._pool = ThreadPoolExecutor(threads, "focusd-cpu", compute_alone)
        self.threads = threads

    def close(self) -> None:
        """End the threads, once they have done what they are at."""
        self._pool.shutdown(wait=False)

    def load(self, pixels: NDArray[np.generic]) -> Tensor:
        """The frame itself, where torch can have it: what is cut from it is converted, in cache and by all threads."""
        return torch.from_numpy(np.require(pixels, pixels.dtype.newbyteorder("="), ["C", "A", "W"]))

    def map(self, score: Callable[[T], Tensor], batches: Iterable[T]) -> Iterable[Tensor]:
        """Score batches side by side; a single one in the caller's thread: to wake another takes time."""
        batches = list(batches)
        return self._pool.map(score, batches) if self.threads > 1 < len(batches) else map(score, batches)

    def __call__(self, views: Views) -> Score:
        """Score a batch."""
        pixels = views.pixels.contiguous(memory_format=torch.channels_last)
        score: Score = self._network(pixels, views.spectra, views.contrast)
        return score


class Backends:
    """The backends that work, the best last; the last one serves.

    Thread-safe: a better one may be added while another scores.

    Args:
        sure: the CPU's, which is never left.
        deadline_s: of a task; a backend that takes longer has failed.
    """

    def __init__(self, sure: Backend, deadline_s: float = DEADLINE_S) -> None:
        self._working: list[Backend] = [sure]
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        self._deadline = Deadline(deadline_s)

    def close(self) -> None:
        """End the threads; nothing can be scored afterwards."""
        self._deadline.close()
        if isinstance(sure := self._working[0], CpuBackend):
            sure.close()

    @property
    def serving(self) -> Backend:
        """The one that scores the next frame."""
        return self._working[-1]

    @property
    def threads(self) -> int:
        """The CPU's."""
        return self._working[0].threads

    def map(self, work: Callable[[T], Tensor], parts: Iterable[T]) -> Iterable[Tensor]:
        """Like the builtin, on the CPU's threads whatever serves."""
        return self._working[0].map(work, parts)

    def run(self, task: Callable[[Backend], T]) -> T:
        """Do a task with the serving backend, and again with the next one if that fails or hangs.

        Called by one thread at a time.

        Raises:
            ScoringError: the CPU's failed too.
        """
        while True:
            backend = self.serving
            try:
                return self._deadline.call(partial(task, backend))
            except Exception as error:
                self._leave(backend, error)

    def add(self, name: str, open_backend: Callable[[], Backend]) -> None:
        """Let another backend serve, once it has opened and scores a probe as the CPU's does; else say why not."""
        try:
            backend = open_backend()
            check(backend, self._working[0])
        except Exception as error:
            log.warning(
                "scoring backend not used", backend=name, reason=_line(error), serving=self.serving.name
            )
            return
        with self._lock:
            self._working.append(backend)
        log.info("scoring backend ready", backend=name)

    def _leave(self, backend: Backend, error: Exception) -> None:
        with self._lock:
            if backend is self._working[0]:
                log.warning("a frame cannot be scored", backend=backend.name, reason=_line(error))
                raise ScoringError(f"the network cannot score this frame: {_line(error)}") from error
            if backend in self._working:  # else another thread has left it
                self._working.remove(backend)
                if self._deadline.hangs:  # perhaps for ever
                    self._deadline = Deadline(self._deadline_s)
                reason, serving = _line(error), self.serving.name
                log.warning("scoring backend failed", backend=backend.name, reason=reason, serving=serving)


def score_tiles(
    backend: Backend, views_of: Callable[[Tensor, Tensor], Views], y: Tensor, x: Tensor
) -> NDArray[np.float64]:
    """b, log σ and the logit of structure, (3, tiles), of the tiles whose first pixels are (y, x).

    Args:
        views_of: of tiles (y, x) of a frame from `backend.load`.

    Raises:
        ScoringError: some are NaN or infinite.
    """

    @torch.inference_mode()
    def score(places: Tensor) -> Tensor:
        views = views_of(*places)
        b, log_sigma, structure = backend(views)
        return torch.stack([b, log_sigma, structure.masked_fill(blank(views), SURELY_EMPTY)])

    share = min(backend.batch, max(LEAST_SHARE, math.ceil(y.numel() / backend.threads)))
    batches = torch.split(torch.stack([y, x]), share, dim=1)
    parts = list(backend.map(score, batches))
    scores: NDArray[np.float64] = torch.cat(parts, dim=1).double().cpu().numpy()
    if not np.isfinite(scores).all():
        raise ScoringError("it gives scores that are NaN or infinite; if that stays so, reinstall focusd")
    return scores


@torch.inference_mode()
def check(backend: Backend, reference: Backend) -> None:
    """Score a frame made for the purpose with both.

    Raises:
        ScoringError: the scores differ by more than `TOLERANCES`.
    """
    pixels = _probe()
    y, x = (starts.flatten() for starts in torch.meshgrid(*[torch.arange(0, 385, 64)] * 2, indexing="ij"))
    one, two = (
        score_tiles(each, partial(views_in, levels(each.load(pixels))), y, x) for each in (backend, reference)
    )
    for difference, (part, allowed) in zip(np.abs(one - two).max(1), TOLERANCES.items(), strict=True):
        if difference > allowed:
            raise ScoringError(f"its {part} is {difference:.2g} off the CPU's, where {allowed:g} is allowed")


def _probe() -> NDArray[np.uint16]:
    """Random squares of four sizes, 512×512."""
    rng = np.random.default_rng(0)
    fields = [np.kron(rng.integers(500, 4000, (512 // s, 128 // s)), np.ones((s, s))) for s in (1, 4, 16, 64)]
    return rng.poisson(np.hstack(fields)).astype(np.uint16)


def fused(network: FocusNet) -> FocusNet:
    """A copy for scoring alone: each batch norm of an image is folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(block) - 1):
            convolution, norm = block[index], block[index + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                block[index], block[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network


def _line(error: Exception) -> str:
    """The first line of what an error says: CUDA's go on over many."""
    return (str(error).splitlines() or [repr(error)])[0]
