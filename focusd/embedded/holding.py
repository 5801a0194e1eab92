"""Continuous focus as a core has it: asked for and asked after at any time, and carried out outside acquisitions."""

from __future__ import annotations

import structlog
from anyio import to_thread

from focusd.embedded.room import PROGRAM, EngineRoom
from focusd.errors import FocusdError, RequestError
from focusd.protocol.requests import HoldParams
from focusd.protocol.states import Disengaged, HoldReport

log = structlog.get_logger(__name__)


class Holding:
    """The hold of an embedded rig.

    An acquisition switches continuous focus off before each refocus of its plan and on again after it. The hold rests
    during an acquisition anyway, so that these wishes are kept until its end.

    Attributes:
        is_wanted: the focus is to be held.
    """

    def __init__(self, room: EngineRoom) -> None:
        self._room = room
        self._postpones = False
        self.is_wanted = False
        self._is_engaged = False

    def ask(self, wanted: bool) -> None:
        """Hold the focus, or hold it no longer.

        Raises:
            CalibrationError: there is no usable calibration.
            BusyError: another client holds it.
        """
        if self._postpones:
            self.is_wanted = wanted
        elif wanted:
            self.engage()
        else:
            self.release()

    def engage(self, roi: tuple[int, int, int, int] | None = None, position: str | None = None) -> HoldReport:
        """Hold the focus from now on; the arguments are those of the daemon's `focus.hold`."""
        hold, calibrations = self._room.assembly.hold, self._room.assembly.operations.calibrations

        async def engage() -> HoldReport:
            await to_thread.run_sync(calibrations.in_force)
            return await hold.engage(HoldParams(client=PROGRAM, roi=roi, position=position))

        state = self._room.call(engage)
        self.is_wanted = self._is_engaged = True
        return state

    def release(self) -> HoldReport | Disengaged:
        """Hold it no longer; the stage rests where it is."""
        state = self._room.call(self._room.assembly.hold.release)
        self.is_wanted = self._is_engaged = False
        return state

    @property
    def is_locked(self) -> bool:
        """Whether the focus is held and known to be within the tolerance; during an acquisition, whether it was."""
        return self.is_wanted and self._room.assembly.hold.state().state == "locked"

    def postpone(self) -> None:
        """An acquisition begins: keep wishes until its end."""
        self._postpones = True

    def catch_up(self) -> None:
        """It has ended: do what was wished last."""
        self._postpones = False
        if self.is_wanted != self._is_engaged:
            try:
                self.ask(self.is_wanted)
            except FocusdError as error:
                self.is_wanted = self._is_engaged
                log.warning("the focus is not held after the acquisition", reason=error.message)


def require_no_offset(offset_um: float) -> None:
    """Refuse to hold at an offset.

    Raises:
        RequestError: an offset is set.
    """
    if offset_um:
        raise RequestError(
            f"focusd holds the focus itself, not {offset_um:+g} µm from it: set the autofocus offset to 0"
        )
