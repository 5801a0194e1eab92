"""Which hardware a configuration means, so that no two processes drive the same."""

from __future__ import annotations

import hashlib
from itertools import takewhile
from pathlib import Path

from focusd.config import CoreConfig, MicroscopeConfig

_INITIALIZE = "Property,Core,Initialize,1"
"""What comes before it in a Micro-Manager file says which devices are loaded, and how they are reached."""
_PORTS = "SerialManager"
"""Micro-Manager's adapter of serial ports; its device's name is the port."""


def hardware_of(microscope: MicroscopeConfig) -> list[str]:
    """What of the machine a rig drives, each part in words that are the same for every configuration of it.

    For Micro-Manager: the file, the devices that it loads, so that a copy of the file is recognised too, and each
    serial port. What is simulated or recorded lies inside the process and is shared with nobody.

    Raises:
        ConfigError: no device adapters are found.
    """
    if not isinstance(microscope, CoreConfig):
        return []
    from focusd.microscope.micromanager import system_file

    return hardware_in(system_file(microscope))


def hardware_in(file: Path) -> list[str]:
    """What of the machine a Micro-Manager file drives, in the words of `hardware_of`."""
    file = file.resolve()
    loading = _loading(file)
    devices = [line.split(",") for line in loading if line.startswith("Device,")]
    ports = [device[3] for device in devices if device[2:3] == [_PORTS] and len(device) == 4]
    labels = ", ".join(device[1] for device in devices)
    digest = hashlib.sha256("\n".join(sorted(loading)).encode()).hexdigest()[:16]
    same_devices = [f"the devices {labels} ({digest})"] if devices else []
    return [f"the file {file}", *same_devices, *(f"the port {port}" for port in sorted(set(ports)))]


def _loading(file: Path) -> list[str]:
    """The lines that load devices; none where the file cannot be read, which opening it will report."""
    if not file.is_file():
        return []
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = (",".join(part.strip() for part in line.split(",")) for line in text.splitlines())
    return [line for line in takewhile(lambda line: line != _INITIALIZE, lines) if line and line[0] != "#"]
