"""Every failure that focusd reports, each with the code a client sees (docs/reference/protocol.md).

An error says what happened and what to do about it; `data` holds what was measured. `protocol.failure.Failure` is the
only way of an error onto the wire and off it.
"""

from __future__ import annotations

from typing import Any


class FocusdError(Exception):
    """Base of all errors that focusd raises on purpose."""

    code: int = -32000
    retryable: bool = False
    outcome: str = "error"
    """One word for a table: how an operation that raised this has ended."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ConfigError(FocusdError):
    """The configuration file is missing, unreadable or wrong; the message names file, key and reason."""


class ModelError(FocusdError):
    """The network's weights are missing or are not the ones their hash promises."""


class ScoringError(FocusdError):
    """A frame cannot be scored: the CPU failed too, or its scores are no numbers."""


class StackError(FocusdError):
    """A recorded stack cannot be used: no z positions, too few planes, unreadable."""


class MapError(FocusdError):
    """The focus map on disk cannot be read or written."""


class RequestError(FocusdError):
    """The request's parameters are wrong."""

    code = -32602


class BusyError(FocusdError):
    """Another operation owns the microscope."""

    code = -32050
    outcome = "busy"
    retryable = True


class NoConvergenceError(FocusdError):
    """The search ended without a trustworthy focus."""

    code = -32010
    outcome = "no_convergence"
    retryable = True


class OutOfRangeError(NoConvergenceError):
    """The focus lies beyond what is calibrated or can be reached."""

    code = -32019
    outcome = "out_of_range"


class AmbiguousError(NoConvergenceError):
    """The exposures fit no single focus well enough."""

    code = -32018
    outcome = "ambiguous"


class TravelLimitError(FocusdError):
    """A move would leave the stage's limits or the travel allowed to one operation."""

    code = -32011
    outcome = "travel_limit"


class HardwareError(FocusdError):
    """The camera or the stage failed, hung, or did something other than it was told."""

    code = -32012
    outcome = "hardware_error"


class NoSampleError(FocusdError):
    """The field holds nothing to focus on."""

    code = -32013
    outcome = "no_sample"


class CancelledJobError(FocusdError):
    """The job was cancelled before it ended."""

    code = -32014
    outcome = "cancelled"
    retryable = True


class SaturatedError(FocusdError):
    """Too many pixels are at the camera's maximum to judge the focus."""

    code = -32015
    outcome = "saturated"


class CalibrationError(FocusdError):
    """There is no calibration, or it belongs to another objective, camera, model or preprocessing."""

    code = -32016
    outcome = "calibration_mismatch"


class BudgetError(FocusdError):
    """The exposures allowed to the operation are spent."""

    code = -32017
    outcome = "budget_spent"
    retryable = True


class InternalError(FocusdError):
    """A fault in focusd itself; its log has the traceback."""

    code = -32603

    @classmethod
    def of(cls, error: Exception) -> InternalError:
        """What a client is told of an exception that nobody expected."""
        what = f"{type(error).__name__}: {error}"[:500]
        return cls(f"a fault in focusd itself ({what}); its log has the traceback, please report it")


class UnreachableError(FocusdError):
    """The client hears nothing from the daemon, or not in time."""

    retryable = True
    outcome = "unreachable"
