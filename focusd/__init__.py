"""focusd keeps a microscope in focus from its ordinary camera images.

The names of `__all__` are what other programs use. Each is imported when it is first used, so that `import focusd`
takes a few milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focusd.autofocus import Autofocus
    from focusd.client import AsyncClient, Client
    from focusd.embedded import attach
    from focusd.errors import (
        AmbiguousError,
        BudgetError,
        BusyError,
        CalibrationError,
        CancelledJobError,
        ConfigError,
        FocusdError,
        HardwareError,
        InternalError,
        MapError,
        ModelError,
        NoConvergenceError,
        NoSampleError,
        OutOfRangeError,
        RequestError,
        SaturatedError,
        ScoringError,
        StackError,
        TravelLimitError,
        UnreachableError,
    )
    from focusd.focus.frame import Frame
    from focusd.protocol.results import CalibrationResult, RefocusResult

__version__ = "0.2.0"

__all__ = [
    "AmbiguousError",
    "AsyncClient",
    "Autofocus",
    "BudgetError",
    "BusyError",
    "CalibrationError",
    "CalibrationResult",
    "CancelledJobError",
    "Client",
    "ConfigError",
    "FocusdError",
    "Frame",
    "HardwareError",
    "InternalError",
    "MapError",
    "ModelError",
    "NoConvergenceError",
    "NoSampleError",
    "OutOfRangeError",
    "RefocusResult",
    "RequestError",
    "SaturatedError",
    "ScoringError",
    "StackError",
    "TravelLimitError",
    "UnreachableError",
    "__version__",
    "attach",
]

_HOMES = {
    "AsyncClient": "focusd.client",
    "Autofocus": "focusd.autofocus",
    "CalibrationResult": "focusd.protocol.results",
    "Client": "focusd.client",
    "Frame": "focusd.focus.frame",
    "RefocusResult": "focusd.protocol.results",
    "attach": "focusd.embedded",
}
"""The module of each name in `__all__` that is not an error; errors live in `focusd.errors`."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, "focusd.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
