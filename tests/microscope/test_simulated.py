"""The simulated microscope: real Python devices in a real UniMMCore, and physics that can be checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from pymmcore_plus.core import _mmcore_plus

from focusd.config import CameraConfig, ObjectiveConfig, RigConfig, SimulatedConfig, StageConfig
from focusd.errors import ConfigError, HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.factory import open_microscope
from focusd.microscope.simulated import SimulatedMicroscope
from tests.microscope.opening import opening

Opener = Callable[..., SimulatedMicroscope]


def rig(camera: CameraConfig | None = None, **simulated: object) -> RigConfig:
    settings = {"sample": "brick", "width": 200, "height": 160, "settling_ms": 0.0, **simulated}
    return RigConfig(
        objective=ObjectiveConfig(name="10x", magnification=10, na=0.3),
        camera=camera or CameraConfig(pixel_um=6.5, exposure_ms=1),
        stage=StageConfig(min_um=-200, max_um=200, towards_sample="increasing"),
        microscope=SimulatedConfig.model_validate({"velocity_um_per_s": 1e5, **settings}),
    )


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens simulated microscopes, and closes them at the test's end."""
    with opening(SimulatedMicroscope) as open_one:
        yield lambda camera=None, **simulated: open_one(rig(camera, **simulated))


def frame_at(microscope: SimulatedMicroscope, z_um: float) -> Frame:
    microscope.move_to(z_um)
    return microscope.snap()


def sharpness(pixels: NDArray[np.generic]) -> float:
    """Energy of the differences between pixels two apart: noise matters little against these samples."""
    grey = pixels.astype(float)
    return float(np.mean((grey[:, 2:] - grey[:, :-2]) ** 2) / grey.mean() ** 2)


def test_a_frame_says_all_about_itself(opened: Opener) -> None:
    microscope = opened(CameraConfig(name="eye", pixel_um=6.5, exposure_ms=2))
    microscope.move_to(12.5)
    first, second = microscope.snap(), microscope.snap()
    assert microscope.camera_name == "eye"
    assert (first.pixels.shape, first.pixels.dtype.name, first.full_scale) == ((160, 200), "uint16", 65535)
    assert (first.z_um, first.exposure_ms) == (12.5, 2)
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.time_s - first.time_s >= 0.002, "an exposure takes its time"
    assert first.saturated_fraction == 0


def test_the_sample_is_sharpest_at_its_hidden_focus(opened: Opener) -> None:
    microscope = opened(focus_z_um=-14.0)
    planes = np.arange(-44.0, 17.0, 10.0)
    scores = [sharpness(frame_at(microscope, z_um).pixels) for z_um in planes]
    assert planes[int(np.argmax(scores))] == -14.0
    assert (np.diff(scores[:4]) > 0).all()
    assert (np.diff(scores[3:]) < 0).all()


def test_blur_moves_light_and_loses_none(opened: Opener) -> None:
    microscope = opened(sample="cloud", vignetting=0.0)
    sharp, blurred = frame_at(microscope, 0.0).pixels, frame_at(microscope, 60.0).pixels
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.02)
    assert blurred.std() < 0.8 * sharp.std()


def test_noise_is_that_of_photons_and_of_the_camera(opened: Opener) -> None:
    """An even field's variance in electrons is its mean, plus the read noise squared."""
    settings = {"sample": "empty", "vignetting": 0.0, "electrons": 4000.0, "background_electrons": 100.0}
    microscope = opened(**settings, read_noise_electrons=20.0)
    counts = microscope.snap().pixels.astype(float)
    electrons = 4000.0 * 0.2 + 100.0
    gain = (65535 - 65535 / 500) / 30000  # counts an electron; the camera's wells hold 30,000
    assert counts.mean() == pytest.approx(electrons * gain + 65535 / 500, rel=0.005)
    assert counts.var() / gain**2 == pytest.approx(electrons + 20.0**2, rel=0.05)


def test_corners_are_dimmer(opened: Opener) -> None:
    microscope = opened(sample="empty", vignetting=0.4, background_electrons=0.0)
    light = microscope.snap().pixels.astype(float) - 65535 / 500  # less the counts of a dark pixel
    assert light[:6, :6].mean() / light[76:84, 96:104].mean() == pytest.approx(0.61, abs=0.03)


def test_tilt_puts_one_side_in_focus_before_the_other(opened: Opener) -> None:
    microscope = opened(sample="gravel", tilt_x_um=80.0)
    low, high = frame_at(microscope, -30.0).pixels, frame_at(microscope, 30.0).pixels
    assert sharpness(low[:, :50]) > 1.5 * sharpness(high[:, :50])
    assert sharpness(high[:, -50:]) > 1.5 * sharpness(low[:, -50:])


def test_the_sample_drifts(opened: Opener) -> None:
    world = opened(drift_um_per_min=3.0, focus_z_um=5.0).world
    now = world.focus_z_um(1000.0)
    assert world.focus_z_um(1060.0) - now == pytest.approx(3.0)


def test_backlash_is_lost_motion_that_the_encoder_does_not_see(opened: Opener) -> None:
    """From below the focal plane lags by half the play, from above it leads by as much."""
    microscope = opened(backlash_um=40.0)
    microscope.move_to(-100.0)
    from_below = frame_at(microscope, 20.0)
    microscope.move_to(100.0)
    from_above = frame_at(microscope, 20.0)
    assert from_below.z_um == from_above.z_um == 20.0
    assert sharpness(from_below.pixels) > 2 * sharpness(from_above.pixels)


def test_a_stage_stopped_on_its_way_stays_there(opened: Opener) -> None:
    microscope = opened(velocity_um_per_s=1.0)
    mover = threading.Thread(target=microscope.move_to, args=(150.0,))
    mover.start()
    microscope.snap()  # the camera does not wait for the stage
    while microscope.position_um() == 0:
        pass
    microscope.stop()
    mover.join(timeout=30)
    assert not mover.is_alive(), "a stopped stage is no longer busy"
    assert 0 < microscope.position_um() < 150
    assert microscope.position_um() == microscope.position_um()


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_bit_depth(opened: Opener, bit_depth: int, dtype: type) -> None:
    frame = opened(CameraConfig(pixel_um=6.5, bit_depth=bit_depth), electrons=1e6).snap()
    assert frame.pixels.dtype == dtype
    assert frame.full_scale == frame.pixels.max() == 2**bit_depth - 1
    assert frame.saturated_fraction > 0.1


def test_binning(opened: Opener) -> None:
    fine = opened(CameraConfig(pixel_um=6.5, exposure_ms=1)).snap().pixels
    coarse = opened(CameraConfig(pixel_um=6.5, exposure_ms=1, binning=2)).snap().pixels
    averaged = fine.reshape(80, 2, 100, 2).mean((1, 3))
    assert coarse.shape == (80, 100)
    assert np.corrcoef(averaged.ravel(), coarse.ravel())[0, 1] > 0.99


def test_the_seed_decides_sample_and_noise(opened: Opener) -> None:
    first, again, other = (opened(seed=seed).snap().pixels for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_scene_can_be_changed_between_exposures(opened: Opener) -> None:
    microscope = opened(sample="empty")
    empty = microscope.snap()
    microscope.set_scene("brick", seed=1, focus_z_um=33.0)
    assert microscope.world.focus_z_um() == 33.0
    sharp, blurred = frame_at(microscope, 33.0), frame_at(microscope, 0.0)
    assert sharpness(sharp.pixels) > 2 * sharpness(blurred.pixels)
    assert sharpness(sharp.pixels) > 4 * sharpness(empty.pixels)


def test_a_scene_that_is_put_on_again_has_the_same_noise(opened: Opener) -> None:
    microscope, frames = opened(), []
    for seed in (1, 1, 2):
        microscope.set_scene("empty", seed, focus_z_um=0.0)
        frames.append(microscope.snap().pixels)
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).any()


def test_an_unknown_sample_is_refused_with_the_known_ones(opened: Opener) -> None:
    with pytest.raises(ConfigError, match=r"microscope\.sample: .*'cheese'.*cells.*filaments"):
        opened(sample="cheese")
    microscope = opened()
    with pytest.raises(ConfigError, match="'cheese'"):
        microscope.set_scene("cheese", seed=0, focus_z_um=0.0)
    assert microscope.snap().sequence == 1


def test_frames_of_2048_pixels(opened: Opener) -> None:
    frame = opened(width=2048, height=2048, tilt_y_um=10.0).snap()
    assert frame.pixels.shape == (2048, 2048)


def test_a_stage_that_never_settles_is_not_waited_for_forever() -> None:
    config = rig(settling_ms=1e9)
    impatient = config.model_copy(update={"stage": config.stage.model_copy(update={"timeout_s": 0.05})})
    microscope = open_microscope(impatient)
    try:
        with pytest.raises(HardwareError, match=r"has not settled after 0\.051 s"):
            microscope.move_to(10.0)
    finally:
        microscope.close()


def test_closing_twice_does_no_harm(opened: Opener) -> None:
    microscope = opened()
    microscope.close()
    microscope.close()


def test_no_device_adapters_are_looked_for(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none are installed, pymmcore-plus would log an error that is none."""
    monkeypatch.setattr(_mmcore_plus, "find_micromanager", lambda *_: pytest.fail("adapters were looked for"))
    assert opened().snap().pixels.shape == (160, 200)
