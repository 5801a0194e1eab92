"""The benches as a person calls them: what is wrong with a path is said in a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "arguments", [("score", "--textures"), ("accuracy", "--stacks"), ("accuracy", "--calibrate")]
)
def test_a_path_that_is_not_there_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = bench(*arguments, str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in "".join(done.stderr.split()).replace("│", "")
    assert "Traceback" not in done.stderr
