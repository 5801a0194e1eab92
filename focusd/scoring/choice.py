"""From a configuration to the backends that work on this machine."""

from __future__ import annotations

import os
import threading

import structlog

from focusd.config import RigConfig, ScorerConfig
from focusd.optics.instrument import Instrument
from focusd.scoring.backends import Backends, CpuBackend
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import Model, load_model

log = structlog.get_logger(__name__)


def open_backends(model: Model, config: ScorerConfig) -> Backends:
    """The CPU's and, where asked for and there, torch's on the GPU; TensorRT's joins them when its engine is built."""
    threads = config.threads or os.cpu_count() or 1
    backends = Backends(CpuBackend(model.network, config.batch, threads))
    if config.backend != "cpu":
        _add_gpu(backends, model, config.backend)
    return backends


def _add_gpu(backends: Backends, model: Model, choice: str) -> None:
    from focusd.scoring import gpu, tensorrt  # imported late: the CPU needs neither

    if reason := gpu.missing():
        tell = log.debug if choice == "auto" else log.warning
        tell("scoring on the CPU", reason=reason)
        return
    backends.add("cuda", lambda: gpu.open_cuda(model.network))
    if choice == "tensorrt" or (choice == "auto" and tensorrt.is_installed()):
        arguments = ("tensorrt", lambda: tensorrt.open_tensorrt(model))
        threading.Thread(target=backends.add, args=arguments, name="focusd-tensorrt", daemon=True).start()


def open_scorer(config: RigConfig) -> Scorer:
    """Return the scorer that a configuration asks for. Changes nothing of the process.

    Raises:
        ModelError: no weights, or not the ones that their hash promises.
    """
    model = load_model(config.scorer.weights)
    instrument = Instrument.from_config(config.objective, config.camera)
    backends = open_backends(model, config.scorer)
    sampling = instrument.sampling if instrument else None
    return Scorer(model, sampling, backends, config.scorer.max_tiles, config.scorer.budget_ms / 1000)
