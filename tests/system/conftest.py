"""One daemon that most tests share: its calibration was made by a daemon before it, on another sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from focusd.protocol.results import CalibrationResult
from focusd.storage.files import write_atomically
from tests.system.daemon import Daemon, rig, running

FOCUS_UM = 31.7


@dataclass
class Bench:
    """A calibrated daemon with a sample out of focus.

    Attributes:
        calibration: what the daemon before it answered to `focus.calibrate`.
        home_um: where the stage stands when a test begins.
    """

    daemon: Daemon
    calibration: CalibrationResult
    true_focus_um: float = FOCUS_UM
    home_um: float = 0.0

    @property
    def calibration_file(self) -> Path:
        return Path(self.calibration.path)


@pytest.fixture(scope="session")
def started_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    with running(folder / "slide", rig(folder / "state")) as slide:
        calibration = slide.client.calibrate()
    sample: dict[str, Any] = {"sample": "beads", "focus_z_um": FOCUS_UM}
    with running(folder / "sample", rig(folder / "state", microscope=sample)) as daemon:
        yield Bench(daemon, calibration)


@pytest.fixture
def bench(started_bench: Bench) -> Iterator[Bench]:
    """The shared daemon, its stage at home, its calibration left as it was found."""
    started_bench.daemon.client.move(started_bench.home_um)
    calibration = started_bench.calibration_file.read_text(encoding="utf-8")
    yield started_bench
    write_atomically(started_bench.calibration_file, calibration)  # the daemon reads it at any moment
