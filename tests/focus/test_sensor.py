"""What is known of a camera, and how its frames are freed of it."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.errors import HardwareError, RequestError, SaturatedError
from focusd.focus.frame import Frame, FrameChecks, RecentFrames, require_frame
from focusd.focus.given import Given
from focusd.focus.sensor import PLAIN, Plane, Sensor

RNG = np.random.default_rng(1)
SHAPE = (64, 80)


def test_a_camera_without_a_pattern_keeps_its_pixels() -> None:
    pixels = RNG.integers(0, 4000, SHAPE).astype(np.uint16)
    assert PLAIN.seen(pixels) is pixels
    assert PLAIN.in_words() == ""


def test_a_plane_is_kept_to_half_a_quantum() -> None:
    values = 0.1 * RNG.standard_normal(SHAPE)
    plane = Plane.of(values, 1 / 256)
    assert np.abs(plane.values - values).max() <= 0.5 / 256 + 1e-6
    with pytest.raises(ValueError, match="damaged"):
        _ = Plane(SHAPE, 1.0, b"no zlib").values
    with pytest.raises(ValueError, match="size"):
        _ = Plane((1, 2), 1.0, plane.packed).values


def test_a_large_plane_is_kept_more_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusd.focus.sensor.MOST_BYTES", 2000)
    plane = Plane.of(RNG.standard_normal(SHAPE), 1 / 256)
    assert len(plane.packed) <= 2000
    assert plane.quantum > 1 / 256


def test_pattern_and_bad_pixels_are_taken_off() -> None:
    response = 1 + 0.02 * RNG.standard_normal(SHAPE)
    response[10, 10], response[30:33, 40:43] = 9.0, 0.02
    sensor = Sensor(pattern=Plane.of(response - 1, 1 / 1024))
    seen = sensor.seen(np.rint(1000 * response).astype(np.uint16))
    assert np.allclose(seen, 1000, rtol=3e-3)
    assert "at every z" in sensor.in_words()


def test_frames_of_another_size_are_left_alone() -> None:
    sensor = Sensor(pattern=Plane.of(np.full(SHAPE, 0.1), 1 / 256), dark=Plane.of(np.ones(SHAPE), 1.0))
    other = np.ones((32, 32), np.uint16)
    assert sensor.seen(other) is other


def test_flat_and_dark_frames_even_the_light() -> None:
    gain, offset = 1 + 0.05 * RNG.standard_normal(SHAPE), RNG.integers(90, 110, SHAPE)
    frames = [np.rint(light * gain + offset).astype(np.uint16)[None] for light in (20_000, 0)]
    sensor = Given.of(*frames).sensor(is_mosaic=False)
    seen = sensor.seen(np.rint(5000 * gain + offset).astype(np.uint16))
    assert seen[8:-8, 8:-8].std() / seen.mean() < 0.005
    with pytest.raises(RequestError, match="no light"):
        Given.of(frames[1], frames[1])
    with pytest.raises(RequestError, match="same region"):
        Given.of(frames[0], frames[1][:, :32])


def colour(value: int = 100, z_um: float = 0.0) -> Frame:
    """A colour frame with noise, its fourth component at full scale."""
    pixels = RNG.integers(value - 5, value + 5, (*SHAPE, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    return Frame(pixels, z_um)


def test_colour_frames_are_frames() -> None:
    require_frame(colour())
    assert colour().pixels.shape == (*SHAPE, 3)
    assert colour().saturated_fraction == 0.0
    with pytest.raises(RequestError, match="in colour"):
        require_frame(Frame(np.zeros((8, 8, 2), np.uint8), 0.0))


def test_saturation_of_one_colour_counts() -> None:
    frame = colour()
    frame.pixels[:32, :, 0] = 255
    assert frame.saturated_fraction == 0.5
    with pytest.raises(SaturatedError):
        FrameChecks(0.01, RecentFrames()).check(frame)


def test_colour_frames_are_checked_as_they_came() -> None:
    checks, frame = FrameChecks(0.01, RecentFrames()), colour()
    checks.check(frame)
    with pytest.raises(HardwareError, match="frozen"):
        checks.check(Frame(frame.pixels, 5.0))
    with pytest.raises(HardwareError, match=r"64 × 80 pixels .* in colour"):
        checks.check(Frame(frame.pixels[..., 0], 5.0))
    with pytest.raises(HardwareError, match="8 × 80"):
        FrameChecks(0.01, RecentFrames()).check(Frame(frame.pixels[:8], 0.0))
