"""The throughput bench: its arithmetic, and that it runs to the end without the optional network."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench.roofline import Machine, Work, work_of
from bench.throughput import EAGER, PUBLISHED, PUBLISHED_BATCH, Case, _row, run_throughput

WORK = Work(flops=1e6, bytes=1e3)


class Known(Machine):
    """A machine of 10 GFLOP/s and 0.1 GB/s."""

    flops_per_s = 1e10
    bytes_per_s = 1e8


MACHINE = Known(torch.device("cpu"), torch.float32)


def case(name: str, batch: int, seconds: list[float]) -> Case:
    return Case(name, batch, lambda: None, WORK, MACHINE, seconds=seconds)


def test_a_roofline_is_the_lower_of_two_limits() -> None:
    assert MACHINE.at_most(WORK) == pytest.approx(1e4)
    assert MACHINE.at_most(Work(flops=1e6, bytes=1e5)) == pytest.approx(1e3)


def test_a_measured_machine_is_a_possible_one() -> None:
    machine = Machine(torch.device("cpu"), torch.float32)
    machine.time()
    assert 1e8 < machine.flops_per_s < 1e14
    assert 1e7 < machine.bytes_per_s < 1e13


def test_the_work_of_a_convolution_is_what_one_counts_by_hand() -> None:
    network = torch.nn.Conv2d(3, 8, 5, bias=False)
    work = work_of(network, (torch.zeros(4, 3, 20, 20),))
    assert work.flops == 2 * 16 * 16 * 8 * 5 * 5 * 3
    assert work.bytes == 4 * (3 * 20 * 20 + 8 * 16 * 16 + 8 * 3 * 5 * 5 / 4)


def test_a_row_compares_with_the_same_batch_and_with_the_published_network() -> None:
    ours = case("cpu", 16, [0.004, 0.002, 0.1])
    cases = [
        ours,
        case(EAGER, 16, [0.008]),
        case(EAGER, 64, [0.001]),
        case(PUBLISHED, PUBLISHED_BATCH, [4.0]),
    ]
    row = _row(ours, cases)
    assert row["patches_per_s"] == pytest.approx(4000)
    assert row["p50_ms"] == pytest.approx(4)
    assert 4 < row["p99_ms"] <= 100
    assert row["vs_eager"] == pytest.approx(2)
    assert row["vs_published_net"] == pytest.approx(4000)
    assert row["roofline_fraction"] == pytest.approx(0.4)


def test_it_runs_without_the_published_network_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    run_throughput(1, 1, tmp_path / "figures.json")
    rows = json.loads((tmp_path / "figures.json").read_text())["backends"]
    assert {"eager", "cpu", "cpu frame"} <= {row["name"] for row in rows}
    assert all(row["patches_per_s"] > 0 and row["roofline_fraction"] > 0 for row in rows)
    assert all(row["vs_published_net"] is None for row in rows)
    assert "pip install monai" in capsys.readouterr().out
