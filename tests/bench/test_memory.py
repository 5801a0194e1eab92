"""The bench of memory: the daemon does not grow, and a daemon that does would be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.memory import MARKS, Mark, growth_mb, slope_mb

REFOCUSES, FRAME_PX = 100, 512
FRAME_MB = 2 * FRAME_PX**2 / 1e6


def test_growth_is_that_of_the_second_half_over_the_first() -> None:
    flat = [Mark(0, 300.0), *(Mark(n, 500.0) for n in range(1, 11))]
    leaking = [Mark(0, 300.0), *(Mark(n, 500.0 + 4 * n) for n in range(1, 11))]
    assert growth_mb(flat) == 0
    assert growth_mb(leaking) == pytest.approx(20.0)


def test_the_slope_is_that_of_the_second_half_and_knows_its_scatter() -> None:
    def marks(scatter_mb: float, slope_mb: float) -> list[Mark]:
        rest_mb = [
            500.0 + scatter_mb * (-1) ** n + max(0.0, slope_mb * (n - 20)) for n in range(1, MARKS + 1)
        ]
        return [Mark(0, 300.0), *(Mark(1000 * n, mb) for n, mb in enumerate(rest_mb, 1))]

    slope, sigma = slope_mb(marks(0.0, 2.0))
    assert (slope, sigma) == pytest.approx((2.0, 0.0), abs=0.05)
    slope, sigma = slope_mb(marks(5.0, 0.0))
    assert abs(slope) < 2 * sigma
    assert sigma == pytest.approx(5.0 / np.sqrt(np.sum((np.arange(21) - 10.0) ** 2)), rel=0.1)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A process of its own: memory that other tests have freed would hide a growth."""
    figures = tmp_path / "figures.json"
    asked = ["--refocuses", str(REFOCUSES), "--frame-px", str(FRAME_PX), "--json", str(figures)]
    few_arenas = os.environ | {"MALLOC_ARENA_MAX": "2"}  # those of threads fill one after the other
    subprocess.run(
        [sys.executable, "-m", "bench", "memory", *asked], check=True, capture_output=True, env=few_arenas
    )
    told = json.loads(figures.read_text(encoding="utf-8"))
    assert [refocuses for refocuses, _ in told["marks"]] == [REFOCUSES * n // MARKS for n in range(MARKS + 1)]
    assert told["growth_mb"] < REFOCUSES / 2 * FRAME_MB, "one frame of each refocus is kept"
