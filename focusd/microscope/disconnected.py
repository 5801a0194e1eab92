"""In place of a microscope that must not be touched."""

from __future__ import annotations

from typing import NoReturn

from focusd.errors import HardwareError


class DisconnectedMicroscope:
    """Has no hardware behind it: each call fails, but `stop` and `close`, which have nothing to do."""

    def __init__(self, camera_name: str) -> None:
        self.camera_name = camera_name

    def snap(self) -> NoReturn:
        """Raises HardwareError."""
        raise HardwareError("the hardware is not connected")

    def position_um(self) -> NoReturn:
        """Raises HardwareError."""
        raise HardwareError("the hardware is not connected")

    def move_to(self, z_um: float) -> NoReturn:
        """Raises HardwareError."""
        raise HardwareError("the hardware is not connected")

    def end_sequence(self) -> NoReturn:
        """Raises HardwareError."""
        raise HardwareError("the hardware is not connected")

    def stop(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is open."""
