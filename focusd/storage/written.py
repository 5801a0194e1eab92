"""A calibration as JSON: curve, transfer, noise, and what is known of the camera."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.moffat import Moffat
from focusd.focus.noise import Noise
from focusd.focus.transfer import Transfer
from focusd.storage.sensors import sensor_from_json, sensor_to_json

FORMAT = 3
EARLIER_SIGMA_UNITS = 0.02
"""Uncertainty of an origin, in λ·n/NA², of which an earlier focusd wrote nothing."""


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """What `calibration_from_json` reads."""
    return {
        "format": FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "fingerprint": dict(calibration.fingerprint),
        "fwhm_um": calibration.fwhm_um,
        "r2": calibration.r2,
        "origin": calibration.origin,
        "origin_sigma_um": calibration.origin_sigma_um,
        "noise": _noise_to_json(calibration.noise),
        "sensor": sensor_to_json(calibration.sensor),
        "exposed": calibration.exposed,
        "rise_um": calibration.rise_um,
        "profile": asdict(calibration.profile),
        "z_um": calibration.z_um.tolist(),
        "b": calibration.b.tolist(),
        "sigma": calibration.sigma.tolist(),
        "transfer": {
            "z_um": calibration.transfer.z_um.tolist(),
            "log_power": calibration.transfer.log_power.tolist(),
            "error": calibration.transfer.error.tolist(),
            "log_object": calibration.transfer.log_object.tolist(),
            "axial_unit_um": calibration.transfer.axial_unit_um,
            "shaken": None if calibration.transfer.shaken is None else calibration.transfer.shaken.tolist(),
        },
    }


def calibration_from_json(values: dict[str, Any]) -> Calibration:
    """A calibration as it was written.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, ArithmeticError: it is none, or of another format.
    """
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']!r}, this focusd reads {FORMAT}")
    z_um = _planes(values["z_um"])
    b, sigma = (np.array(values[key], dtype=np.float64) for key in ("b", "sigma"))
    if not all(np.isfinite(curve).all() and curve.shape == z_um.shape for curve in (b, sigma)):
        raise ValueError("the curve holds gaps")
    profile = Moffat(**{name: float(value) for name, value in values["profile"].items()})
    if not 0 < profile.fwhm_um < np.inf:
        raise ValueError("the profile has no width")
    transfer = _transfer_from_json({"z_um": values["z_um"]} | values["transfer"])
    return Calibration(
        z_um,
        b,
        sigma,
        transfer,
        profile,
        float(values["r2"]),
        str(values["origin"]),
        dict(values["fingerprint"]),
        float(values.get("origin_sigma_um", EARLIER_SIGMA_UNITS * transfer.axial_unit_um)),
        _noise_from_json(values.get("noise"), transfer.log_power.shape[1]),
        sensor_from_json(values.get("sensor")),
        None if values.get("exposed") is None else int(values["exposed"]),
        float(values.get("rise_um", 0.0)),
    )


def _noise_to_json(noise: Noise | None) -> dict[str, Any] | None:
    return (
        None
        if noise is None
        else {"shape": noise.shape.tolist(), "error": noise.error.tolist(), "per_count": noise.per_count}
    )


def _noise_from_json(values: dict[str, Any] | None, bands: int) -> Noise | None:
    """The noise; calibrations of focusd 0.1 know of none, which counts as white."""
    if values is None:
        return None
    shape, error = (np.array(values[key], dtype=np.float64) for key in ("shape", "error"))
    if not all(each.shape == (bands,) and (np.isfinite(each) & (each > 0)).all() for each in (shape, error)):
        raise ValueError("the spectrum of the noise holds gaps")
    per_count = values["per_count"]
    return Noise(shape, error, None if per_count is None else float(per_count))


def _planes(values: list[float]) -> NDArray[np.float64]:
    z_um = np.array(values, dtype=np.float64)
    if z_um.ndim != 1 or len(z_um) < 2 or not np.isfinite(z_um).all() or not (np.diff(z_um) > 0).all():
        raise ValueError("the planes do not ascend")
    return z_um


def _transfer_from_json(values: dict[str, Any]) -> Transfer:
    z_um = _planes(values["z_um"])
    log_power, error, log_object = (np.array(values[key]) for key in ("log_power", "error", "log_object"))
    axial_unit_um = float(values["axial_unit_um"])
    is_whole = log_power.shape == error.shape == (len(z_um), len(log_object))
    if not is_whole or not all(np.isfinite(p).all() for p in (log_power, error, log_object, axial_unit_um)):
        raise ValueError("the transfer holds gaps")
    shaken = None if values.get("shaken") is None else np.array(values["shaken"])
    if shaken is not None and not (shaken.shape[1:] == log_object.shape and np.isfinite(shaken).all()):
        raise ValueError("what shaking takes holds gaps")
    return Transfer(z_um, log_power, error, log_object, axial_unit_um, shaken)
