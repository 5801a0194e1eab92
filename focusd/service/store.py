"""Calibrations on disk: one readable JSON file per objective, written whole or not at all."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusd.autofocus.calibration import Calibration
from focusd.autofocus.moffat import Moffat
from focusd.autofocus.transfer import Transfer
from focusd.errors import CalibrationError
from focusd.service.files import read_small_text, sealed, set_aside, unsealed, write_atomically

FORMAT = 3
ROOM_BYTES = 256 << 10
"""More than a calibration takes on disk."""


def file_name(objective: str) -> str:
    """What is kept for an objective is called this."""
    slug = "".join(c if c.isalnum() or c in "-." else "_" for c in objective)
    return f"{slug}.json"


_Stamp = tuple[int, int, int]


class CalibrationStore:
    """The calibrations of one rig.

    Args:
        folder: created when the first calibration is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[_Stamp, Calibration]] = {}
        """The last of each file, good as long as its stamp is: every status and every refocus asks for it."""

    def path(self, objective: str) -> Path:
        """Where an objective's calibration lies."""
        return self._folder / file_name(objective)

    def save(self, objective: str, calibration: Calibration) -> Path:
        """Write a calibration in place of the objective's last one.

        Raises:
            CalibrationError: the disk refuses.
        """
        path = self.path(objective)
        try:
            write_atomically(path, sealed(_to_json(calibration)))
        except OSError as error:
            raise CalibrationError(
                f"{path}: the calibration cannot be written ({error.strerror}); check state_dir in the configuration"
            ) from error
        return path

    def require_room(self) -> None:
        """Find out, before light is spent, whether a calibration could be written.

        Raises:
            CalibrationError: the disk refuses.
        """
        trial = self._folder / "room"
        try:
            write_atomically(trial, " " * ROOM_BYTES)
            trial.unlink()
        except OSError as error:
            raise CalibrationError(
                f"{self._folder}: a calibration cannot be written here ({error.strerror}), so that none was taken; "
                "make room, or check state_dir in the configuration"
            ) from error

    def load(self, objective: str) -> Calibration:
        """Read the objective's calibration.

        Raises:
            CalibrationError: there is none, or it cannot be read.
        """
        path = self.path(objective)
        try:
            stamp = _stamp(path)
            if self._read.get(path, (None,))[0] != stamp:
                self._read[path] = stamp, _from_json(unsealed(read_small_text(path)))
            return self._read[path][1]
        except FileNotFoundError as error:
            raise CalibrationError(
                f"the objective {objective!r} has no calibration; focus by eye, then run `focusctl calibrate`"
            ) from error
        except OSError as error:
            raise CalibrationError(
                f"{path}: cannot be read: {error.strerror}; check state_dir, or calibrate anew"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise CalibrationError(
                f"{path}: cannot be read as a calibration ({error}) and was set aside as "
                f"{set_aside(path, error).name}; calibrate anew"
            ) from error


def _stamp(path: Path) -> _Stamp:
    """What another content of a file changes."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _to_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": dict(calibration.fingerprint),
        "fwhm_um": calibration.fwhm_um,
        "r2": calibration.r2,
        "origin": calibration.origin,
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
        },
    }


def _from_json(values: dict[str, Any]) -> Calibration:
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
    )


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
    return Transfer(z_um, log_power, error, log_object, axial_unit_um)
