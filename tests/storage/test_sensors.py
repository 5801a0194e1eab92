"""What a calibration knows of the camera, written and read again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from focusd.focus.sensor import PLAIN, Plane, Sensor
from focusd.storage.sensors import sensor_from_json, sensor_to_json

PATTERN = Plane.of(np.linspace(-0.1, 0.1, 64).reshape(8, 8), 1 / 256)


def test_what_is_written_is_read_again() -> None:
    sensor = Sensor(is_mosaic=True, pattern=PATTERN)
    read = sensor_from_json(json.loads(json.dumps(sensor_to_json(sensor))))
    assert read == sensor
    assert read.pattern is not None
    assert (read.pattern.values == PATTERN.values).all()


def test_nothing_known_takes_no_room() -> None:
    assert sensor_to_json(PLAIN) is None
    assert sensor_from_json(None) == PLAIN


@pytest.mark.parametrize("wrong", [{"shape": [0, 8]}, {"quantum": 0.0}, {"packed": "§"}])
def test_damage_is_noticed(wrong: dict[str, object]) -> None:
    values = sensor_to_json(Sensor(pattern=PATTERN))
    assert values is not None
    with pytest.raises(ValueError, match=r".+"):
        sensor_from_json(values | {"pattern": values["pattern"] | wrong})
