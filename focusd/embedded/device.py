"""focusd as a device of a Micro-Manager configuration file, so that a program on pymmcore-plus needs no line of code.

    #py pyDevice,focusd,focusd.embedded.device,Autofocus
    #py Property,focusd,Config,/home/me/rig.toml
    Property,Core,Initialize,1
    …
    #py Property,Core,AutoFocus,focusd

The last line belongs behind those that choose camera and focus device; the others stand among the devices. Lines that
begin with `#py` are comments to Micro-Manager Studio.
"""

# ruff: noqa: N802  (the names of the core's methods are Micro-Manager's)

from __future__ import annotations

import sys
from typing import Any, ClassVar, Literal

from pymmcore_plus import DeviceType
from pymmcore_plus.experimental.unicore import Device, UniMMCore

from focusd.embedded.attached import Attached, attach
from focusd.embedded.core import LABEL, put_before, take_away
from focusd.errors import FocusdError


class AwaitingCore(UniMMCore):
    """Put before a core's class by the device: focusd is attached when it is first chosen as the autofocus device."""

    _focusd_device: Autofocus | None = None

    def setAutoFocusDevice(self, focusLabel: str) -> None:
        """Choose an autofocus device; pymmcore-plus 0.18 knows none in Python."""
        device = self._focusd_device
        if device is None or not focusLabel or focusLabel != device.get_label():
            super().setAutoFocusDevice(focusLabel)
        else:
            device.attach()


class Autofocus(Device):
    """The autofocus device `focusd`.

    Properties: `Config`, the rig's file, and `LastResult`.
    """

    _TYPE: ClassVar[Literal[DeviceType.AutoFocus]] = DeviceType.AutoFocus

    def __init__(self) -> None:
        super().__init__()
        self._core = _loading_core()
        self._config = ""
        self._attached: Attached | None = None
        self.register_property(
            "Config",
            default_value="",
            getter=lambda device: device._config,
            setter=Autofocus._set_config,
            is_pre_init=True,
        )
        self.register_property(
            "LastResult", default_value="", getter=Autofocus._last_result, is_read_only=True
        )
        put_before(self._core, AwaitingCore, self, "_focusd_device")

    def attach(self) -> None:
        """Attach focusd to the core, unless it is.

        Raises:
            RuntimeError: the configuration is wrong, or the rig does not open; the message says why.
        """
        if self.get_label() != LABEL:
            raise RuntimeError(f"the device has to be called {LABEL!r} in the configuration file")
        if not self._config:
            raise RuntimeError(f"name the rig's file: #py Property,{LABEL},Config,/path/to/rig.toml")
        try:
            self._attached = attach(self._core, self._config)
        except FocusdError as error:
            raise RuntimeError(f"focusd: {error.message}") from error

    def shutdown(self) -> None:
        """Leave the core as it was."""
        if self._attached is not None:
            self._attached.detach()
        take_away(self._core, AwaitingCore, "_focusd_device")

    def _set_config(self, path: str) -> None:
        self._config = path

    def _last_result(self) -> str:
        last = self._attached.last if self._attached else None
        return f"{last.shift_um:+.3f} ± {last.sigma_um:.3f} µm" if last else ""


def _loading_core() -> Any:
    """Return the core that is loading this device: pymmcore-plus does not tell a device."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(core := frame.f_locals.get("self"), UniMMCore):
            return core
    raise RuntimeError(
        "this device is loaded by a UniMMCore; to attach focusd in a program use focusd.attach"
    )
