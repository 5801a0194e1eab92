"""The network as a TensorRT engine, through torch-tensorrt or torch-tensorrt-rtx (both are `import torch_tensorrt`).

An engine is built once for each set of weights, libraries, driver and GPU, in a child process, because the libraries
print, raise anything and may abort (docs/explanation/field-notes.md). It is kept in the user's cache folder.

`python -m focusd.scoring.tensorrt WEIGHTS ENGINE` is that child.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from focusd.errors import ScoringError
from focusd.scoring.backends import fused
from focusd.scoring.gpu import BATCHES, GpuBackend, input_shapes
from focusd.scoring.weights import Model, load_model

ENGINE_VERSION = 1
"""Of the way engines are built: a change makes the cached ones useless."""
BUILD_TIMEOUT_S = 900.0

Build = Callable[[Path, Path], None]


class Plain(nn.Module):
    """The network with a tuple for its answer: an exported program cannot be saved with a named one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, spectra: Tensor, contrast: Tensor) -> tuple[Tensor, ...]:
        """b, log σ and the logit of structure, (batch,) each."""
        return tuple(self.network(pixels, spectra, contrast))


def open_tensorrt(model: Model) -> GpuBackend:
    """Load the engine of these weights, building it first where there is none yet: that takes minutes.

    Raises:
        ScoringError: no library, or no engine came out; and whatever TensorRT raises.
    """
    if model.path is None:
        raise ScoringError("the weights are not a file")
    if not is_installed():
        raise ScoringError('TensorRT is not installed; `pip install "focusd[tensorrt]"` brings it')
    engine = engine_path(model.sha256, [torch.__version__, *installed_libraries(), *_hardware()])
    return GpuBackend("tensorrt", _loaded(cached(engine, model.path, build_in_child)))


def cached(engine: Path, weights: Path, build: Build) -> Path:
    """The engine's file, built if it is not there. It appears whole or not at all."""
    if not engine.exists():
        engine.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = engine.with_suffix(f".{os.getpid()}.partial")
        try:
            build(weights, partial)
            partial.replace(engine)
        finally:
            partial.unlink(missing_ok=True)
    return engine


def engine_path(weights_sha256: str, parts: list[str]) -> Path:
    """Where the engine is kept that depends on these weights, versions and hardware."""
    key = json.dumps([ENGINE_VERSION, BATCHES, weights_sha256, *parts])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt2"
    return user_cache_path("focusd", appauthor=False) / "engines" / name


def installed_libraries() -> list[str]:
    """Name and version of each TensorRT package, without importing one: without a GPU that raises anything."""
    found = ((d.name.lower().replace("_", "-"), d.version) for d in distributions() if d.name)
    prefixes = ("torch-tensorrt", "tensorrt")
    return sorted({f"{name} {version}" for name, version in found if name.startswith(prefixes)})


def is_installed() -> bool:
    """Whether there is one of the two packages that are `import torch_tensorrt`."""
    return any(name.startswith("torch-tensorrt") for name in installed_libraries())


def _hardware() -> list[str]:
    """The driver and the GPU."""
    driver = Path("/proc/driver/nvidia/version")
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    release = driver.read_text(encoding="utf-8").splitlines()[0] if driver.exists() else ""
    return [str(torch.version.cuda), release, gpu.name, f"{gpu.major}.{gpu.minor}"]


def build_in_child(weights: Path, engine: Path) -> None:
    """Build an engine in a process of its own.

    Raises:
        ScoringError: with the last line that the child printed.
    """
    command = [sys.executable, "-m", "focusd.scoring.tensorrt", str(weights), str(engine)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ScoringError(f"the engine was not built within {BUILD_TIMEOUT_S:g} s") from None
    if child.returncode or not engine.exists():
        lines = (child.stderr or child.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit code {child.returncode}"
        raise ScoringError(f"the engine could not be built: {reason}")


def exported(network: nn.Module, device: torch.device, dtype: torch.dtype) -> ExportedProgram:
    """The network as a graph, for any batch up to the largest."""
    inputs = tuple(torch.zeros(shape, device=device, dtype=dtype) for shape in input_shapes(2))
    with torch.no_grad():
        return torch.export.export(Plain(network), inputs, dynamic_shapes=_dynamic_batch())


def _dynamic_batch() -> tuple[dict[int, Dim], ...]:
    batch = Dim("batch", min=1, max=max(BATCHES))
    return ({0: batch},) * 3


def _loaded(engine: Path) -> nn.Module:
    """The engine as a module. One that does not load is thrown away, so that the next start builds it anew."""
    torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
    try:
        module: nn.Module = torch_tensorrt.load(str(engine)).module()
    except Exception:
        engine.unlink(missing_ok=True)
        raise
    return module


def _build(weights: Path, engine: Path) -> None:
    """Compile and save: half precision throughout, one dynamic batch."""
    torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
    device = torch.device("cuda")
    # Cast before the export: asking the compiler for half precision is refused or ignored.
    network = fused(load_model(weights).network).to(device, torch.half)
    shapes = zip(*(input_shapes(batch) for batch in (1, BATCHES[0], BATCHES[-1])), strict=True)
    inputs = [
        torch_tensorrt.Input(min_shape=least, opt_shape=usual, max_shape=most, dtype=torch.half)
        for least, usual, most in shapes
    ]
    compiled = torch_tensorrt.dynamo.compile(exported(network, device, torch.half), arg_inputs=inputs)
    example = [torch.zeros(shape, device=device, dtype=torch.half) for shape in input_shapes(2)]
    torch_tensorrt.save(compiled, str(engine), arg_inputs=example, dynamic_shapes=_dynamic_batch())


if __name__ == "__main__":
    _build(Path(sys.argv[1]), Path(sys.argv[2]))
