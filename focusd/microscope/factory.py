"""From a configuration to a microscope."""

from __future__ import annotations

from focusd.config import (
    ClientConfig,
    EmbeddedConfig,
    MicroManagerConfig,
    RecordedConfig,
    RehearsalConfig,
    RigConfig,
)
from focusd.errors import ConfigError
from focusd.microscope.protocol import Microscope


def open_microscope(config: RigConfig) -> Microscope:
    """Open the microscope that a configuration describes. The caller closes it.

    Raises:
        ConfigError: the configuration does not fit the hardware.
        HardwareError: a device failed.
        StackError: the recorded stack cannot be used.
    """
    # Imported late: a recorded stack needs no Micro-Manager core, and real hardware no image formation.
    match config.microscope:
        case MicroManagerConfig():
            from focusd.microscope.micromanager import open_micromanager

            return open_micromanager(config)
        case RehearsalConfig():
            from focusd.microscope.rehearsal import open_rehearsal

            return open_rehearsal(config)
        case RecordedConfig():
            from focusd.microscope.recorded import open_recorded

            return open_recorded(config)
        case ClientConfig():
            from focusd.microscope.disconnected import ClientsMicroscope

            return ClientsMicroscope(config.camera.name)
        case EmbeddedConfig():
            raise borrowed_only()
        case _:
            from focusd.microscope.simulated import open_simulated

            return open_simulated(config)


def borrowed_only() -> ConfigError:
    """The error of whoever is to open a microscope that belongs to another program."""
    return ConfigError(
        'microscope.kind = "embedded" means a microscope that another program has opened: call '
        'focusd.attach(core, "rig.toml") in that program; or, for focusd to open it itself, set microscope.kind = '
        '"micromanager"'
    )
