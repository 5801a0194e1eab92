"""A calibration's frames are kept until it is known what in them is the camera's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.errors import CalibrationError
from focusd.focus.frame import Frame, RecentFrames
from focusd.focus.given import Given
from focusd.focus.sensor import Plane
from focusd.scoring import stack
from focusd.scoring.measuring import Measuring
from focusd.scoring.scorer import Scorer
from focusd.scoring.stack import KeptFrames, StackMeasuring
from focusd.scoring.weights import load_model
from tests.colour import NEUTRAL_GAINS, mosaic

SHAPE = (160, 192)
PATTERN = Plane.of(0.1 * np.random.default_rng(5).standard_normal(SHAPE), 1 / 256)


def frame(z_um: float, seed: int = 0, response: NDArray[np.floating] | None = None) -> Frame:
    rng = np.random.default_rng(seed + round(100 * z_um))
    light = rng.poisson(1000, SHAPE) * (1 if response is None else response)
    return Frame(light.astype(np.uint16), z_um)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(load_model(), None)


def measuring(scorer: Scorer, given: Given | None = None) -> StackMeasuring:
    return StackMeasuring(Measuring(scorer, 0.01, RecentFrames()), None, given)


@pytest.mark.parametrize("in_memory", [1, 64 << 20])
def test_frames_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(stack, "IN_MEMORY_BYTES", in_memory)
    kept, frames = KeptFrames(), [frame(z_um) for z_um in (0.0, 1.0, 2.0)]
    for one in frames:
        kept.add(one)
    for number in (2, 0, 1):
        assert (kept[number].pixels == frames[number].pixels).all()
        assert replace(kept[number], pixels=frames[number].pixels) == replace(frames[number])
    kept.close()


def test_a_clean_stack_is_measured_once(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "learn_pattern", lambda *_: None)
    measure = measuring(scorer)
    measured = [measure.measure(frame(z_um)) for z_um in (0.0, 1.0)]
    sensor, cleaned = measure.cleaned(measured)
    assert sensor.pattern is None
    assert all(one is other for one, other in zip(cleaned, measured, strict=True))


def test_a_pattern_is_taken_off_the_stack_itself(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "learn_pattern", lambda *_: PATTERN)
    measure, response = measuring(scorer), 1 + PATTERN.values
    measure.measure(frame(0.0))  # a probe, which is no part of the stack
    measured = [measure.measure(frame(z_um, 1, response)) for z_um in (0.0, 1.0, 2.0)]
    sensor, cleaned = measure.cleaned(measured)
    assert sensor.pattern is PATTERN
    clean = Measuring(scorer, 0.01, RecentFrames())
    for before, after in zip(measured, cleaned, strict=True):
        expected = clean.measure(frame(before.z_um, 1))
        assert after.z_um == before.z_um
        assert np.allclose(after.blocks.power, expected.blocks.power, rtol=0.15)
        assert (before.blocks.power > 3 * after.blocks.power).any()


def test_without_room_nothing_is_learnt(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(KeptFrames, "add", full)
    measure = measuring(scorer)
    measured = [measure.measure(frame(z_um)) for z_um in (0.0, 1.0)]
    assert measure.cleaned(measured)[1] == measured


def test_a_mosaic_is_recognised_with_the_first_frame(scorer: Scorer) -> None:
    light = np.random.default_rng(1).uniform(900, 1100, (*SHAPE, 1)) * NEUTRAL_GAINS
    measure = measuring(scorer)
    measured = measure.measure(Frame(mosaic(light).astype(np.uint16), 0.0))
    assert measure.cleaned([measured])[0].is_mosaic
    assert not measuring(scorer).cleaned([])[0].is_mosaic


def test_flat_frames_of_another_size_are_refused(scorer: Scorer) -> None:
    measure = measuring(scorer, Given(flat=np.ones((100, 100), np.float32)))
    with pytest.raises(CalibrationError, match="same region"):
        measure.measure(frame(0.0))
