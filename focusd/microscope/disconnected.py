"""In place of a microscope that the daemon must not touch, or does not have."""

from __future__ import annotations

from typing import NoReturn

from focusd.errors import FocusdError, HardwareError, RequestError


class DisconnectedMicroscope:
    """Has no hardware behind it: each call fails, but `stop` and `close`, which have nothing to do."""

    def __init__(self, camera_name: str) -> None:
        self.camera_name = camera_name

    def snap(self) -> NoReturn:
        """Raises the error."""
        raise self._error()

    def position_um(self) -> NoReturn:
        """Raises the error."""
        raise self._error()

    def move_to(self, z_um: float) -> NoReturn:
        """Raises the error."""
        raise self._error()

    def end_sequence(self) -> NoReturn:
        """Raises the error."""
        raise self._error()

    def stop(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is open."""

    def _error(self) -> FocusdError:
        return HardwareError("the hardware is not connected")


class ClientsMicroscope(DisconnectedMicroscope):
    """Camera and stage belong to the clients (`microscope.kind = "client"`)."""

    def _error(self) -> FocusdError:
        return self.refusal()

    @staticmethod
    def refusal() -> RequestError:
        """What everybody is told who asks the daemon to move or expose."""
        return RequestError(
            'this daemon has no camera and no stage (microscope.kind = "client"): send it your frames with focus.ask '
            "and focus.tell, which say where to expose next"
        )
