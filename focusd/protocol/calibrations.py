"""What the methods about kept calibrations answer."""

from focusd.protocol.model import Result
from focusd.protocol.results import CalibrationCurve, CalibrationFigures


class KeptCalibration(CalibrationFigures):
    """A calibration that is kept."""

    id: str
    written: str
    """When it was taken, ISO 8601 in UTC."""
    in_force: bool
    """Whether searches use it."""
    planes: int
    """Planes of its stack."""
    remark: str
    """Why searches cannot use it, or in what the one in force is better; empty: nothing."""


class KeptCalibrations(Result):
    """All calibrations that are kept of the objective, the latest first."""

    objective: str
    calibrations: list[KeptCalibration]


class ShownCalibration(KeptCalibration, CalibrationCurve):
    """A calibration that is kept, with its curve."""


class CalibrationRemoved(Result):
    """A calibration was removed for good."""

    removed: str
    """Its id."""
