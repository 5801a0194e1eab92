"""The example that pymmcore-plus users are told to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "useq_mda.py"


def test_the_example_runs_and_each_position_is_in_focus(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, timeout=170, check=True
    )
    frames = [line.split(": z = ") for line in ran.stdout.splitlines() if ": z = " in line]
    assert len(frames) == 2 * 2 * 2 * 3
    focus_um = {"p=0": 10.0, "p=1": 3.5}
    for index, z in frames:
        if "z=1" in index:  # the middle of the stack
            assert abs(float(z.split()[0]) - focus_um[index.split()[1]]) < 0.83, index
