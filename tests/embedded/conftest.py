"""Fixtures of embedded rigs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.owned import Bench, attached


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A calibrated rig that is attached to a simulated microscope."""
    with attached(tmp_path) as bench:
        yield bench
