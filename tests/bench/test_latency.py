"""The latency bench: its floor, and the microscope that shows rehearsed frames."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from bench.latency import Run, config_of, floor_s
from bench.rehearsed import RehearsedMicroscope
from focusd.config import RigConfig


@pytest.fixture
def config(tmp_path: Path) -> RigConfig:
    config = config_of(tmp_path, 10.0, quick=True)
    small = config.microscope.model_copy(update={"width": 200, "height": 160})
    return config.model_copy(update={"microscope": small})


def test_the_floor_is_exposures_and_moves_alone(config: RigConfig) -> None:
    path_um = [0.0, 0.0, 30.0, -20.0, -20.0]
    assert floor_s(path_um, 3, config) == pytest.approx(3 * 0.010 + (0.030 + 0.020) + (0.050 + 0.020))


def test_a_run_is_compared_with_its_floor() -> None:
    assert Run(10.0, "refocus", 0.3, 0.2, 4, 0.0).over_floor == pytest.approx(1.5)


def test_a_rehearsed_frame_is_shown_again_without_rendering(config: RigConfig) -> None:
    microscope = RehearsedMicroscope(config)
    try:
        first = microscope.snap()
        microscope.move_to(8.0)
        elsewhere = microscope.snap()
        microscope.move_to(0.0)
        began_s = time.thread_time()
        again = microscope.snap()
        spent_s = time.thread_time() - began_s
        assert microscope.camera.rendered == 2
        np.testing.assert_array_equal(first.pixels, again.pixels)
        assert (first.pixels != elsewhere.pixels).any()
        assert spent_s < 0.010, "an exposure costs less CPU time than it takes"
        microscope.set_scene("brick", 3, 5.0)
        assert (microscope.snap().pixels != first.pixels).any()
        assert microscope.camera.rendered == 3
    finally:
        microscope.close()
