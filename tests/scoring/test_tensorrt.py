"""TensorRT as far as it goes without a GPU: export, cache, a child that fails, a plan for absent GPUs."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile

import pytest
import torch

from focusd.errors import ScoringError
from focusd.scoring import tensorrt
from focusd.scoring.backends import fused
from focusd.scoring.gpu import BATCHES, input_shapes
from focusd.scoring.network import FocusNet
from focusd.scoring.tensorrt import Plain, build_in_child, cached, engine_path, exported, open_tensorrt
from focusd.scoring.weights import Model, shipped_weights

CPU = torch.device("cpu")
PARTS = ["2.13.0", "tensorrt-rtx 1.5.0", "580.1", "NVIDIA RTX 4000", "8.9"]


def inputs(batch: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in input_shapes(batch)]


@pytest.fixture(scope="module")
def network(model: Model) -> FocusNet:
    return fused(model.network)


@pytest.mark.parametrize("batch", [1, 3, max(BATCHES)])
def test_the_network_exports_for_any_batch(network: FocusNet, batch: int) -> None:
    program = exported(network, CPU, torch.float32).module()
    with torch.inference_mode():
        for one, two in zip(program(*inputs(batch)), network(*inputs(batch)), strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_the_network_exports_in_half_precision_and_stays_in_it(model: Model, tmp_path: Path) -> None:
    program = exported(fused(model.network).half(), CPU, torch.half)
    floats = {
        node.meta["val"].dtype for node in program.graph.nodes if hasattr(node.meta.get("val"), "dtype")
    }
    assert torch.float32 not in floats
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    assert all(part.dtype == torch.half for part in loaded(*inputs(5, torch.half)))


def test_an_engine_is_another_one_for_other_weights_versions_drivers_and_gpus() -> None:
    others = [[*PARTS[:i], part + "1", *PARTS[i + 1 :]] for i, part in enumerate(PARTS)]
    paths = {
        engine_path("a" * 64, PARTS),
        engine_path("b" * 64, PARTS),
        *(engine_path("a" * 64, o) for o in others),
    }
    assert len(paths) == 2 + len(PARTS)
    assert engine_path("a" * 64, PARTS) == engine_path("a" * 64, list(PARTS))


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    engine, builds = tmp_path / "cache" / "x.pt2", []

    def build(weights: Path, out: Path) -> None:
        builds.append(weights)
        assert not engine.exists()
        out.write_bytes(b"engine")

    for _ in range(2):
        assert cached(engine, Path("weights"), build).read_bytes() == b"engine"
    assert builds == [Path("weights")]
    assert [path.name for path in engine.parent.iterdir()] == ["x.pt2"]
    assert engine.parent.stat().st_mode & 0o077 == 0


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(_weights: Path, out: Path) -> None:
        out.write_bytes(b"half an eng")
        raise ScoringError("no memory")

    engine = tmp_path / "x.pt2"
    with pytest.raises(ScoringError, match="no memory"):
        cached(engine, Path("weights"), build)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_child_that_cannot_build_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="could not be built: ") as error:
        build_in_child(shipped_weights(), tmp_path / "x.pt2")
    assert "\n" not in error.value.message
    assert len(error.value.message) > len("the engine could not be built: ")


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "BUILD_TIMEOUT_S", 0.05)  # less than Python takes to start
    with pytest.raises(ScoringError, match="within"):
        build_in_child(shipped_weights(), tmp_path / "x.pt2")


@pytest.mark.skipif(tensorrt.is_installed(), reason="TensorRT is installed")
def test_without_the_library_the_error_says_how_to_install_it(model: Model) -> None:
    with pytest.raises(ScoringError, match="pip install"):
        open_tensorrt(model)


@pytest.mark.parametrize("name", ["torch_tensorrt_rtx", "torch-tensorrt", "Torch_TensorRT"])
def test_either_package_counts_however_it_is_spelt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [SimpleNamespace(name=name, version="2.13.0"), SimpleNamespace(name="torch", version="2.13.0")]
    monkeypatch.setattr(tensorrt, "distributions", lambda: packages)
    assert tensorrt.is_installed()
    assert tensorrt.installed_libraries() == [f"{name.lower().replace('_', '-')} 2.13.0"]


def test_an_engine_that_does_not_load_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", SimpleNamespace(load=torch.export.load))
    engine = tmp_path / "x.pt2"
    engine.write_bytes(b"garbage")
    with pytest.raises(BadZipFile):
        tensorrt._loaded(engine)
    assert not engine.exists()


@pytest.mark.tensorrt
@pytest.mark.filterwarnings("default")
def test_the_network_compiles_to_a_tensorrt_rtx_plan(model: Model, tmp_path: Path) -> None:
    """For Ada and Blackwell, half precision, any batch to 256; needs tensorrt-rtx, onnx and onnxscript, but no GPU."""
    trt: Any = pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnxscript")
    names, file = ["pixels", "spectra", "contrast"], tmp_path / "net.onnx"
    half, example = Plain(fused(model.network).half()).eval(), tuple(inputs(2, torch.half))
    batch = tensorrt._dynamic_batch()
    torch.onnx.export(half, example, file, dynamo=True, dynamic_shapes=batch, input_names=names)

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(0)
    assert trt.OnnxParser(definition, logger).parse_from_file(str(file))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, least, usual, most in zip(names, *map(input_shapes, (1, 64, 256)), strict=True):
        profile.set_shape(name, least, usual, most)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 2
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.set_compute_capability(trt.ComputeCapability.SM120, 1)
    plan = builder.build_serialized_network(definition, config)
    assert plan is not None
    assert plan.nbytes > 1_000_000


def test_scoring_on_the_cpu_imports_no_tensorrt() -> None:
    code = "import sys, focusd.standalone; print([m for m in sys.modules if 'tensorrt' in m or m == 'torch.export'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tensorrt" not in child.stdout
