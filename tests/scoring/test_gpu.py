"""What of the GPU's path runs without one: fixed batches, padding, and that there is none here."""

import pytest
import torch

from focusd.scoring.backends import CpuBackend
from focusd.scoring.gpu import BATCHES, FixedBatch, input_shapes, missing, open_cuda, padded
from focusd.scoring.views import Views
from focusd.scoring.weights import Model
from tests.scoring.scenes import noise

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def views(count: int, seed: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    return Views(*(torch.randn(shape, generator=generator) for shape in input_shapes(count)))


@pytest.mark.parametrize(("count", "batch"), [(1, 64), (63, 64), (64, 64), (65, 256), (256, 256)])
def test_a_batch_is_padded_to_the_next_fixed_one(count: int, batch: int) -> None:
    assert padded(count) == batch
    assert batch in BATCHES


@torch.inference_mode()
def test_a_fixed_batch_scores_what_it_is_given_and_nothing_that_was_there_before(model: Model) -> None:
    cpu = CpuBackend(model.network)
    fixed = FixedBatch(model.network, 8, torch.device("cpu"), torch.float32)
    for count, seed in [(8, 0), (3, 1), (1, 2), (8, 3)]:
        batch = views(count, seed)
        for padded_part, part in zip(fixed(batch), cpu(batch), strict=True):
            assert padded_part.shape == (count,)
            torch.testing.assert_close(padded_part, part, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_scores_stay_as_they_are_when_the_next_batch_is_scored(model: Model) -> None:
    kept = torch.zeros(3, 4)

    def replayed(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept.copy_(inputs[2].T)  # as a graph does: always the same memory
        return tuple(kept)

    network = torch.nn.Module()
    network.forward = replayed
    fixed = FixedBatch(network, 4, torch.device("cpu"), torch.float32)
    first = fixed(views(4, 0))
    before = [part.clone() for part in first]
    fixed(views(4, 1))
    assert all(torch.equal(part, earlier) for part, earlier in zip(first, before, strict=True))


@needs_no_gpu
def test_without_a_gpu_the_reason_is_told() -> None:
    assert missing() in (
        "this PyTorch was built without CUDA",
        "no usable NVIDIA GPU or driver was found",
    )


@needs_gpu
def test_on_a_gpu_scores_are_the_cpus(model: Model) -> None:
    from focusd.scoring.backends import check

    gpu = open_cuda(model.network)
    check(gpu, CpuBackend(model.network))
    assert gpu.load(noise((300, 200))).cpu().equal(CpuBackend(model.network).load(noise((300, 200))).float())
