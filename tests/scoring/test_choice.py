"""Which backend a configuration gets on this machine, and on one whose GPU is not what it seems."""

import threading

import pytest
import torch
from structlog.testing import capture_logs

from focusd.config import ScorerConfig
from focusd.scoring import choice, gpu, tensorrt
from focusd.scoring.backends import Backends, CpuBackend
from focusd.scoring.weights import Model

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("backend", "lines"), [("auto", ["debug"]), ("cpu", []), ("cuda", ["warning"]), ("tensorrt", ["warning"])]
)
def test_without_a_gpu_the_cpu_serves_and_only_who_asked_for_one_is_warned(
    model: Model, backend: str, lines: list[str]
) -> None:
    config = ScorerConfig.model_validate({"backend": backend})
    with capture_logs() as logs:
        backends = choice.open_backends(model, config)
    assert backends.serving.name == "cpu"
    assert [entry["log_level"] for entry in logs] == lines
    assert all(entry["reason"] == gpu.missing() for entry in logs)


@pytest.mark.parametrize("backend", ["auto", "cuda", "tensorrt"])
def test_a_gpu_that_cannot_be_used_after_all_leaves_the_cpu_serving(
    model: Model, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """torch itself fails here, as it does with a driver that does not fit."""
    monkeypatch.setattr(gpu, "missing", lambda: None)
    with capture_logs() as logs:
        backends = choice.open_backends(model, ScorerConfig.model_validate({"backend": backend}))
        for thread in threading.enumerate():
            if thread.name == "focusd-tensorrt":
                thread.join()
    assert backends.serving.name == "cpu"
    assert all(entry["log_level"] == "warning" and entry["reason"] for entry in logs)
    tried = ["cuda", *(["tensorrt"] if backend == "tensorrt" or tensorrt.is_installed() else [])]
    assert [entry["backend"] for entry in logs] == tried[: None if backend != "cuda" else 1]


def test_batch_and_threads_are_the_configured_ones(model: Model) -> None:
    backends = choice.open_backends(model, ScorerConfig(backend="cpu", batch=5, threads=3))
    assert isinstance(backends, Backends)
    assert isinstance(backends.serving, CpuBackend)
    assert (backends.serving.batch, backends.serving.threads) == (5, 3)
