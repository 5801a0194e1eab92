"""An engine for acquisitions that never saves a position out of focus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import structlog
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.core import SequencedEvent
from pymmcore_plus.mda import SkipEvent
from useq import HardwareAutofocus, MDAEvent

from focusd.embedded.core import FocusdCore
from focusd.embedded.corrections import CorrectedEngine
from focusd.errors import ConfigError, FocusdError
from focusd.protocol.results import RefocusResult

log = structlog.get_logger(__name__)

OnFailure = Literal["skip", "go_on", "stop"]
Place = int | None
"""A position's index in the plan."""


class FocusdEngine(CorrectedEngine):
    """The engine of pymmcore-plus with policies of its own for the autofocus of a plan.

    The focus that is found is the plan's reference plane: each channel is exposed at its own `z_offset` from it,
    whichever channel comes first.

    Args:
        core: with focusd attached.
        on_failure: where the focus is not found. `skip`: nothing is exposed at this position until it is found;
            `go_on`: expose where the focus was last; `stop`: end the acquisition.
        every_n: refocus at each n-th time point only.
        every_min: refocus a position only so many minutes after it was last in focus.
        channel: the preset to focus in; None: that of the event that follows.
        channel_group: the preset's; None: the core's channel group.
        options: of `pymmcore_plus.mda.MDAEngine`.

    Attributes:
        lost: positions whose focus is not known.
        results: what each refocus gave, with the index of its event; for a failure its error.
        skipped: frames that were not exposed for want of focus.

    Raises:
        ConfigError: focusd is not attached to the core.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        *,
        on_failure: OnFailure = "skip",
        every_n: int = 1,
        every_min: float = 0.0,
        channel: str | None = None,
        channel_group: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(core, FocusdCore) or core._focusd is None:
            raise ConfigError("focusd is not attached to this core: call focusd.attach(core, config) first")
        super().__init__(core, **options)
        self._focusd = core._focusd
        self._on_failure = on_failure
        self._every_n, self._every_s = every_n, 60 * every_min
        self._preset = (channel_group or core.getChannelGroup(), channel) if channel else None
        self._focused_s: dict[Place, float] = {}
        self.lost: set[Place] = set()
        self.results: list[tuple[dict[str, int], RefocusResult | FocusdError]] = []
        self.skipped = 0

    def setup_sequence(self, sequence: Any) -> Any:
        """Begin a plan: no position is known to be in focus."""
        self._focused_s.clear()
        self.lost.clear()
        self.results.clear()
        self.skipped = 0
        return super().setup_sequence(sequence)

    def setup_event(self, event: MDAEvent) -> None:
        """Set the hardware up for an event.

        Raises:
            SkipEvent: a refocus is not due, or the position's focus is not known.
        """
        if isinstance(event.action, HardwareAutofocus):
            if not self._is_due(event):
                raise SkipEvent(0, "a refocus is not due")
            super().setup_event(self._at_reference(event))
            return
        events = event.events if isinstance(event, SequencedEvent) else (event,)
        if not self.lost.isdisjoint(_place(each) for each in events):
            self.skipped += len(events)
            raise SkipEvent(len(events), "the focus of this position is not known")
        super().setup_event(event)

    def exec_event(self, event: MDAEvent) -> Iterator[Any]:
        """Expose an event's frames, or refocus."""
        if isinstance(event.action, HardwareAutofocus):
            self._refocus(event, event.action)
        else:
            yield from super().exec_event(event)

    def _is_due(self, event: MDAEvent) -> bool:
        place = _place(event)
        if place in self.lost or place not in self._focused_s:
            return True
        if event.index.get("t", 0) % self._every_n:
            return False
        return time.monotonic() - self._focused_s[place] >= self._every_s

    def _at_reference(self, event: MDAEvent) -> MDAEvent:
        """Return the refocus without the offset of the channel that follows it, and in the channel to focus in."""
        changed: dict[str, Any] = {}
        if event.z_pos is not None:
            changed["z_pos"] = _reference_um(event)
        if self._preset is not None:
            group, config = self._preset
            changed["channel"] = MDAEvent(channel={"group": group, "config": config}).channel  # type: ignore[arg-type]
        return event.model_copy(update=changed)

    def _refocus(self, event: MDAEvent, action: HardwareAutofocus) -> None:
        place, index = _place(event), {str(axis): number for axis, number in event.index.items()}
        try:
            offset_um = action.autofocus_motor_offset or 0.0
            found = self._focusd.refocus(offset_um=offset_um)
        except FocusdError as error:
            self.results.append((index, error))
            log.warning("the focus was not found", place=place, outcome=error.outcome, reason=error.message)
            self._failed(place)
            return
        self.results.append((index, found))
        self.lost.discard(place)
        self._focused_s[place] = time.monotonic()
        if event.z_pos is not None:
            self._z_correction[place] = found.z_found_um + offset_um - _reference_um(event)

    def _failed(self, place: Place) -> None:
        if self._on_failure != "go_on":
            self.lost.add(place)
        if self._on_failure == "stop":
            self.mmcore.mda.cancel()


def _place(event: MDAEvent) -> Place:
    return event.index.get("p")


def _reference_um(event: MDAEvent) -> float:
    """Where the plan has the position's reference plane: its z without the offset of the event's channel."""
    assert event.z_pos is not None
    channels = event.sequence.channels if event.sequence else ()
    number = event.index.get("c")
    offset_um = channels[number].z_offset if number is not None and number < len(channels) else None
    return float(event.z_pos) - (offset_um or 0.0)
