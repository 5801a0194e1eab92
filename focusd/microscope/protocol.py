"""What focusd needs of a microscope, and nothing more."""

from __future__ import annotations

from typing import Protocol

from focusd.focus.frame import Frame


class Microscope(Protocol):
    """A camera and a z stage. Calls block; `snap` and the stage's calls may run in different threads.

    Nothing but `GuardedStage` may call `move_to`.
    """

    camera_name: str

    def snap(self) -> Frame:
        """Expose one image where the stage stands.

        Raises:
            HardwareError: the camera failed.
        """
        ...

    def end_sequence(self) -> None:
        """Let a camera rest that streams (`camera.acquisition`); the next `snap` makes it stream again.

        One that is borrowed from another program is given back as it was.

        Raises:
            HardwareError: the camera failed.
        """
        ...

    def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed.
        """
        ...

    def move_to(self, z_um: float) -> None:
        """Move to an absolute z and return when the stage has settled.

        Raises:
            HardwareError: the stage failed.
        """
        ...

    def stop(self) -> None:
        """Stop a movement under way, where the hardware can."""
        ...

    def close(self) -> None:
        """Release the hardware. May be called twice."""
        ...
