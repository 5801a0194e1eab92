"""A rehearsal: Micro-Manager's real demo camera and stage do the work, the picture is the simulator's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mm_test_adapters import device_adapter_path

from focusd.config import CameraConfig, ObjectiveConfig, RehearsalConfig, RigConfig, StageConfig, load_config
from focusd.errors import ConfigError
from focusd.microscope.rehearsal import RehearsedMicroscope
from tests.microscope.opening import opening

CONFIGS = Path(__file__).parents[2] / "configs"
CAMERA = CameraConfig(pixel_um=6.5, exposure_ms=2)
FOCUS_UM = 12.5

Opener = Callable[..., RehearsedMicroscope]


@pytest.fixture
def rehearse() -> Iterator[Opener]:
    """Opens rehearsals on the demo devices, and closes them at the test's end."""
    with opening(RehearsedMicroscope) as open_one:

        def rehearsed(camera: CameraConfig = CAMERA, **scene: object) -> RehearsedMicroscope:
            devices = {"config_file": "MMConfig_demo.cfg", "adapter_path": device_adapter_path()}
            given = {"kind": "rehearsal", "sample": "brick", "focus_z_um": FOCUS_UM, **devices, **scene}
            config = RigConfig(
                objective=ObjectiveConfig(name="10x", magnification=10, na=0.3),
                camera=camera,
                stage=StageConfig(min_um=-100, max_um=100, towards_sample="increasing"),
                microscope=RehearsalConfig.model_validate(given),
            )
            return open_one(config)

        yield rehearsed


def sharpness_at(microscope: RehearsedMicroscope, z_um: float) -> float:
    microscope.move_to(z_um)
    pixels = microscope.snap().pixels.astype(float)
    return float(np.mean((pixels[:, 2:] - pixels[:, :-2]) ** 2) / pixels.mean() ** 2)


def test_the_picture_is_sharpest_where_the_real_stage_stands_at_the_simulated_focus(rehearse: Opener) -> None:
    microscope = rehearse()
    planes = [FOCUS_UM + away for away in (-40, -20, 0, 20, 40)]
    scores = [sharpness_at(microscope, z_um) for z_um in planes]
    assert planes[int(np.argmax(scores))] == FOCUS_UM
    assert microscope.position_um() == planes[-1]


def test_each_frame_is_an_exposure_of_the_real_camera(rehearse: Opener) -> None:
    camera = CAMERA.model_copy(update={"exposure_ms": 40.0})
    microscope = rehearse(camera)
    first, second = microscope.snap(), microscope.snap()
    assert (first.sequence, second.sequence) == (1, 2)
    assert (first.exposure_ms, first.pixels.shape, first.full_scale) == (40.0, (512, 512), 65535)
    assert second.time_s - first.time_s >= 0.04
    assert (first.pixels != second.pixels).any(), "its noise is its own"


@pytest.mark.parametrize(("binning", "shape"), [(1, (512, 512)), (2, (256, 256))])
def test_it_has_the_camera_s_size_depth_and_brightness(
    rehearse: Opener, binning: int, shape: tuple[int, int]
) -> None:
    camera = CAMERA.model_copy(update={"binning": binning, "bit_depth": 12})
    frame = rehearse(camera, sample="empty").snap()
    assert (frame.pixels.shape, frame.pixels.dtype.name, frame.full_scale) == (shape, "uint16", 4095)
    assert frame.pixels.mean() == pytest.approx(4095 * (0.2 * 8000 + 200) / 30000, rel=0.1)


def test_a_camera_that_streams_rehearses_too(rehearse: Opener) -> None:
    microscope = rehearse(CAMERA.model_copy(update={"acquisition": "sequence"}))
    assert sharpness_at(microscope, FOCUS_UM) > 1.5 * sharpness_at(microscope, -FOCUS_UM)
    microscope.end_sequence()


def test_it_counts_what_it_has_shown_of_the_devices(rehearse: Opener) -> None:
    microscope = rehearse()
    sharpness_at(microscope, 5.0)
    sharpness_at(microscope, -5.0)
    showing = microscope.showing
    assert (showing.exposures, showing.moves) == (2, 2)
    assert showing.slowest_exposure_ms >= 2
    assert showing.furthest_off_um == pytest.approx(0, abs=1e-6)


def test_an_unknown_sample_is_refused(rehearse: Opener) -> None:
    with pytest.raises(ConfigError, match="'cheese'"):
        rehearse(sample="cheese")


def test_what_is_calibrated_on_it_is_kept_apart_and_everybody_is_told() -> None:
    """A simulated sample's calibration must never serve a real one, whose configuration differs in one word."""
    config = load_config(CONFIGS / "micromanager-demo.toml")
    assert config.objective.name == "10x/0.3 (rehearsal)"
    assert config.note.startswith("rehearsal: camera and stage are Micro-Manager's, the picture is simulated")
    assert load_config(CONFIGS / "simulated-10x.toml").note == ""
