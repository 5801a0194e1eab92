"""`python -m bench memory`: does the daemon grow over thousands of refocuses?

The whole daemon runs in this process, over real sockets, on a simulated microscope of small frames, short exposures and
a fast stage (bench/rehearsed.py): what could grow is the same as with large ones.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
import numpy as np
from anyio import to_thread
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from bench.latency import running
from focusd.client import Client
from focusd.config import RigConfig

SAMPLE = "gravel"
STARTS_UM = (22.0, -41.0, 9.0)
MARKS = 40
PER_REFOCUSES = 1000
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Mark:
    """Memory after so many refocuses."""

    refocuses: int
    rss_mb: float


def run_memory(refocuses: int, frame_px: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    with tempfile.TemporaryDirectory() as state:
        marks = anyio.run(measure, config_of(Path(state), frame_px), refocuses)
    table = Table(title="resident memory of the daemon")
    for column in ("refocuses", "MB"):
        table.add_column(column, justify="right")
    for mark in marks:
        table.add_row(str(mark.refocuses), f"{mark.rss_mb:.1f}")
    Console().print(table)
    slope, sigma = slope_mb(marks)
    Console().print(f"growth from the first half to the second: {growth_mb(marks):.1f} MB", highlight=False)
    Console().print(
        f"slope of the second half: {slope:.2f} ± {sigma:.2f} MB in {PER_REFOCUSES} refocuses",
        highlight=False,
    )
    if json_file:
        figures = {
            "marks": [[m.refocuses, m.rss_mb] for m in marks],
            "growth_mb": growth_mb(marks),
            "slope_mb": slope,
            "slope_sigma_mb": sigma,
        }
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def growth_mb(marks: list[Mark]) -> float:
    """How far the median of the marks' second half exceeds that of the first; the start does not count."""
    first, last = np.array_split([m.rss_mb for m in marks[1:]], 2)
    return float(np.median(last) - np.median(first))


def slope_mb(marks: list[Mark]) -> tuple[float, float]:
    """Of the line through the marks' second half, when all is remembered that ever is: per `PER_REFOCUSES`, and its
    standard uncertainty by their scatter about it."""
    late = marks[len(marks) // 2 :]
    done = np.array([m.refocuses for m in late]) / PER_REFOCUSES
    found = stats.linregress(done, [m.rss_mb for m in late])
    return float(found.slope), float(found.stderr)


async def measure(config: RigConfig, refocuses: int) -> list[Mark]:
    """Memory at so many moments, evenly spread, the first before any refocus."""
    async with running(config, 0) as (bench, _, _):
        await to_thread.run_sync(bench.client.calibrate)
        found = [Mark(0, rss_mb())]
        for number in track(range(1, MARKS + 1), description=f"{refocuses} refocuses"):
            done, due = found[-1].refocuses, refocuses * number // MARKS
            await to_thread.run_sync(_refocus, bench.client, due - done)
            found.append(Mark(due, rss_mb()))
    return found


def _refocus(client: Client, times: int) -> None:
    """From the same places again and again, so that the camera has nothing to render."""
    for number in range(times):
        client.move(STARTS_UM[number % len(STARTS_UM)])
        client.refocus()


def rss_mb() -> float:
    """Of this process, now, without what is free already."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE / 1e6


def config_of(state: Path, frame_px: int) -> RigConfig:
    """A 10×/0.3 of small frames that hardly waits for anything."""
    return RigConfig.model_validate(
        {
            "name": "memory",
            "state_dir": state,
            "objective": {"name": "10x-0.3", "magnification": 10.0, "na": 0.3},
            "camera": {"pixel_um": 6.5, "exposure_ms": 1.0},
            "stage": {"min_um": -300.0, "max_um": 300.0, "towards_sample": "increasing"},
            "microscope": {
                "kind": "simulated",
                "sample": SAMPLE,
                "width": frame_px,
                "height": frame_px,
                "velocity_um_per_s": 1e6,
                "settling_ms": 0.0,
            },
            "calibration": {"range_um": 100.0, "step_um": 4.0},
            "server": {"control": "tcp://127.0.0.1:*", "events": "tcp://127.0.0.1:*"},
        }
    )
