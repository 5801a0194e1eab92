"""What a calibration knows of the camera, as JSON: planes of pixels are compressed, and written as text."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import numpy as np

from focusd.focus.sensor import MOST_BYTES, PLAIN, Plane, Sensor

LONGEST_SIDE = 65_536


def sensor_to_json(sensor: Sensor) -> dict[str, Any] | None:
    """What `sensor_from_json` reads; None: nothing is known."""
    if sensor == PLAIN:
        return None
    planes = {"dark": sensor.dark, "pattern": sensor.pattern}
    return {"is_mosaic": sensor.is_mosaic} | {name: _plane_to_json(plane) for name, plane in planes.items()}


def sensor_from_json(values: dict[str, Any] | None) -> Sensor:
    """What is known of the camera. Calibrations of earlier versions know nothing.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    if values is None:
        return PLAIN
    planes = {name: _plane_from_json(values[name]) for name in ("dark", "pattern")}
    return Sensor(bool(values["is_mosaic"]), **planes)


def _plane_to_json(plane: Plane | None) -> dict[str, Any] | None:
    if plane is None:
        return None
    packed = b64encode(plane.packed).decode("ascii")
    return {"shape": list(plane.shape), "quantum": plane.quantum, "packed": packed}


def _plane_from_json(values: dict[str, Any] | None) -> Plane | None:
    if values is None:
        return None
    (y, x), quantum = map(int, values["shape"]), float(values["quantum"])
    packed = b64decode(values["packed"], validate=True)
    is_sound = 0 < y <= LONGEST_SIDE and 0 < x <= LONGEST_SIDE and 0 < quantum < np.inf
    if not is_sound or len(packed) > MOST_BYTES:
        raise ValueError("what is known of the camera is damaged")
    return Plane((y, x), quantum, packed)
