"""The backend that serves, and the ones that fail in its place."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from structlog.testing import capture_logs

from focusd.errors import ScoringError
from focusd.scoring.backends import Backends, CpuBackend, check, fused
from focusd.scoring.network import FocusNet, Score
from focusd.scoring.scorer import Scorer
from focusd.scoring.views import Views
from focusd.scoring.weights import Model
from tests.scoring.scenes import INSTRUMENT, parts

Harm = Callable[[Score], Score]


class Faulty(CpuBackend):
    """Stands for a GPU: what the CPU says, until it is harmed after some batches."""

    def __init__(self, network: FocusNet, name: str, harm: Harm, after: int = 0) -> None:
        super().__init__(network)
        self.name = name
        self.calls = 0
        self._harm, self._after = harm, after

    def __call__(self, views: Views) -> Score:
        self.calls += 1
        score = super().__call__(views)
        return self._harm(score) if self.calls > self._after else score


def lost(_score: Score) -> Score:
    raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")


def out_of_memory(_score: Score) -> Score:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def nan_in_one_tile(score: Score) -> Score:
    score.b[3] = torch.nan
    return score


def infinite(score: Score) -> Score:
    return score._replace(log_sigma=score.log_sigma + torch.inf)


PATIENCE_S = 30.0
PROBE_BATCHES = 4
"""Of the 49 tiles that are scored before a backend may serve."""


@pytest.fixture
def backends(model: Model) -> Backends:
    return Backends(CpuBackend(model.network))


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as captured:
        yield captured  # type: ignore[misc]


def test_folding_batch_norms_changes_no_score(model: Model, defocused: NDArray[np.uint16]) -> None:
    plain = CpuBackend(model.network)
    plain._network = model.network
    measures = [
        Scorer(model, None, Backends(each)).score(defocused) for each in (plain, CpuBackend(model.network))
    ]
    for one, two in zip(*map(parts, measures), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_folding_leaves_the_network_as_it_was_and_no_norm_of_an_image_in_the_copy() -> None:
    network = FocusNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = fused(network)
    assert network.training
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copied.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_score_and_no_order(
    model: Model, defocused: NDArray[np.uint16], threads: int
) -> None:
    several = Scorer(model, None, Backends(CpuBackend(model.network, 3, threads))).score(defocused)
    one = Scorer(model, None, Backends(CpuBackend(model.network, 3))).score(defocused)
    for first, second in zip(parts(several), parts(one), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("harm", [lost, out_of_memory, nan_in_one_tile, infinite])
def test_a_backend_that_fails_in_mid_frame_is_replaced_within_it(
    model: Model,
    backends: Backends,
    defocused: NDArray[np.uint16],
    logs: list[dict[str, object]],
    harm: Harm,
) -> None:
    field = np.tile(defocused, (2, 2))
    expected = Scorer(model, INSTRUMENT.sampling).score(field)
    gpu = Faulty(model.network, "cuda", harm, PROBE_BATCHES + 6)
    backends.add("cuda", lambda: gpu)
    scorer = Scorer(model, INSTRUMENT.sampling, backends)
    assert scorer.backend == "cuda"
    scorer.score(defocused)
    measures = [scorer.score(field) for _ in range(3)]
    assert scorer.backend == "cpu"
    assert gpu.calls > PROBE_BATCHES + 6
    for one, two in zip(*map(parts, (measures[0], expected)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    failures = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["backend"], entry["serving"]) for entry in failures] == [("cuda", "cpu")]
    assert "\n" not in str(failures[0]["reason"])


def test_backends_are_left_one_after_the_other(
    model: Model, backends: Backends, defocused: NDArray[np.uint16]
) -> None:
    for name in ("cuda", "tensorrt"):
        faulty = Faulty(model.network, name, lost, PROBE_BATCHES)
        backends.add(name, lambda faulty=faulty: faulty)  # type: ignore[misc]
    scorer = Scorer(model, None, backends)
    assert scorer.backend == "tensorrt"
    assert np.isfinite(scorer.score(defocused).b).all()
    assert scorer.backend == "cpu"


def test_a_backend_that_hangs_is_replaced_within_the_frame_and_never_asked_again(
    model: Model, defocused: NDArray[np.uint16], logs: list[dict[str, object]]
) -> None:
    released = threading.Event()

    def hang(score: Score) -> Score:
        assert released.wait(PATIENCE_S)
        return score

    backends = Backends(CpuBackend(model.network), deadline_s=2.0)
    gpu = Faulty(model.network, "cuda", hang, PROBE_BATCHES)
    backends.add("cuda", lambda: gpu)
    scorer = Scorer(model, None, backends)
    assert scorer.backend == "cuda"
    for _ in range(2):
        assert np.isfinite(scorer.score(defocused).b).all()
        assert scorer.backend == "cpu"
    assert gpu.calls == PROBE_BATCHES + 1
    failures = [entry for entry in logs if entry["log_level"] == "warning"]
    assert ["not answered within 2 s" in str(entry["reason"]) for entry in failures] == [True]
    released.set()


def test_a_cpu_that_hangs_is_an_error_at_once_until_it_returns(
    model: Model, defocused: NDArray[np.uint16], logs: list[dict[str, object]]
) -> None:
    released = threading.Event()

    def once(score: Score) -> Score:
        assert cpu.calls > 1 or released.wait(PATIENCE_S)
        return score

    cpu = Faulty(model.network, "cpu", once)
    backends = Backends(cpu, deadline_s=2.0)
    scorer = Scorer(model, None, backends)
    for reason in ("not answered within 2 s", "still hangs"):
        with pytest.raises(ScoringError, match=reason):
            scorer.score(defocused)
    assert cpu.calls == 1
    assert [entry["event"] for entry in logs] == ["a frame cannot be scored"] * 2
    released.set()
    while backends._deadline.hangs:
        time.sleep(0.001)
    assert np.isfinite(scorer.score(defocused).b).all()


def test_a_backend_that_opens_while_a_better_one_has_failed_still_serves(
    model: Model, backends: Backends, defocused: NDArray[np.uint16]
) -> None:
    backends.add("cuda", lambda: Faulty(model.network, "cuda", lost, PROBE_BATCHES))
    Scorer(model, None, backends).score(defocused)
    backends.add("tensorrt", lambda: Faulty(model.network, "tensorrt", lost, 10**6))
    assert backends.serving.name == "tensorrt"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_backend_whose_numbers_are_off_never_serves(
    model: Model, backends: Backends, logs: list[dict[str, object]], part: int
) -> None:
    def off(score: Score) -> Score:
        return Score(*(value + (0.06 if index == part else 0) for index, value in enumerate(score)))

    backends.add("tensorrt", lambda: Faulty(model.network, "tensorrt", off))
    assert backends.serving.name == "cpu"
    assert ["off the CPU's" in str(entry["reason"]) for entry in logs] == [True]


def test_half_precision_is_near_enough(model: Model) -> None:
    class Half(CpuBackend):
        def __call__(self, views: Views) -> Score:
            half = self._network(views.pixels.half(), views.spectra.half(), views.contrast.half())
            return Score(*(part.float() for part in half))

    half, reference = Half(model.network), CpuBackend(model.network)
    half._network.half()
    check(half, reference)


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nsuch GPU"), AssertionError(), MemoryError(), Exception("?")]
)
def test_a_backend_that_does_not_open_never_serves(
    backends: Backends, logs: list[dict[str, object]], error: Exception
) -> None:
    def raising() -> CpuBackend:
        raise error

    backends.add("cuda", raising)
    assert backends.serving.name == "cpu"
    assert [(entry["log_level"], entry["serving"]) for entry in logs] == [("warning", "cpu")]
    assert str(logs[0]["reason"])


def test_scores_that_are_no_numbers_are_an_error_of_the_cpu(
    model: Model, defocused: NDArray[np.uint16]
) -> None:
    scorer = Scorer(model, None, Backends(Faulty(model.network, "cpu", nan_in_one_tile)))
    with pytest.raises(ScoringError, match="NaN"):
        scorer.score(defocused)


def test_an_error_of_the_cpu_says_what_it_was_and_the_next_frame_is_scored(
    model: Model, defocused: NDArray[np.uint16]
) -> None:
    def once(score: Score) -> Score:
        if cpu.calls == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return score

    cpu = Faulty(model.network, "cpu", once)
    scorer = Scorer(model, None, Backends(cpu))
    with pytest.raises(ScoringError, match="allocate memory"):
        scorer.score(defocused)
    assert np.isfinite(scorer.score(defocused).b).all()
