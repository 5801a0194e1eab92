"""What a core becomes while focusd is attached to it: one with a further autofocus device, which is focusd."""

# ruff: noqa: N802, N815  (the names of the core's methods are Micro-Manager's)

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDARunner

from focusd.embedded.corrections import corrections_in_sequences
from focusd.embedded.room import INSIDE
from focusd.errors import BusyError, FocusdError

if TYPE_CHECKING:
    from focusd.embedded.attached import Attached

LABEL = "focusd"
"""The autofocus device's."""


class FocusLostError(RuntimeError):
    """The focus was not found; `__cause__` is the typed error. Acquisition programs catch RuntimeError alone."""

    def __init__(self, error: FocusdError) -> None:
        super().__init__(f"{error.outcome}: {error.message}")


@contextmanager
def as_runtime_error() -> Iterator[None]:
    """Raise what focusd raises as the error that programs expect of a core."""
    try:
        yield
    except FocusdError as error:
        raise FocusLostError(error) from error


def _in_turn(name: str, moves: str | None = None, *, exposes: bool = False) -> Callable[..., Any]:
    """Return a core's method in which focusd keeps its hands off camera and stage.

    Args:
        moves: what moves stage or sample; None: nothing does.
        exposes: the method takes images.
    """

    def method(self: FocusdCore, *args: Any, **named: Any) -> Any:
        own = getattr(super(FocusdCore, self), name)
        focusd = self._focusd
        if focusd is None or INSIDE.get() or focusd.acquires_here:
            if focusd is not None and not INSIDE.get():
                focusd.noticed(name, exposes)
            return own(*args, **named)
        with as_runtime_error(), focusd.turn(moves):
            focusd.noticed(name, exposes)
            return own(*args, **named)

    method.__name__ = name
    return method


class FocusdCore(CMMCorePlus):
    """Put before a core's own class. What is no concern of focusd's goes on to the core as ever.

    While another autofocus device is chosen, its methods are the core's own.
    """

    _focusd: Attached | None = None

    def getAutoFocusDevice(self) -> Any:
        """Return the chosen autofocus device's label."""
        return LABEL if self._chosen else super().getAutoFocusDevice()

    def setAutoFocusDevice(self, focusLabel: str) -> None:
        """Choose focusd, a hardware device, or none."""
        if self._focusd is None:
            super().setAutoFocusDevice(focusLabel)
            return
        if focusLabel != LABEL:
            super().setAutoFocusDevice(focusLabel)
        with as_runtime_error():
            self._focusd.choose(focusLabel == LABEL)
        self.events.propertyChanged.emit("Core", "AutoFocus", focusLabel)

    def fullFocus(self) -> None:
        """Bring the sample into focus, or to the offset from it.

        Raises:
            FocusLostError: it was not found; the stage stands where it stood.
        """
        if (focusd := self._chosen) is None:
            super().fullFocus()
            return
        with as_runtime_error():
            focusd.focus_here()

    def incrementalFocus(self) -> None:
        """As `fullFocus`, which looks no further than it has to."""
        if (focusd := self._chosen) is None:
            super().incrementalFocus()
            return
        with as_runtime_error():
            focusd.focus_here()

    def enableContinuousFocus(self, enable: bool) -> None:
        """Hold the focus, or hold it no longer.

        Raises:
            FocusLostError: there is no calibration, or an offset is set.
        """
        if (focusd := self._chosen) is None:
            super().enableContinuousFocus(enable)
            return
        with as_runtime_error():
            focusd.continue_focus(enable)

    def isContinuousFocusEnabled(self) -> bool:
        """Whether the focus is held, well or not."""
        if (focusd := self._chosen) is None:
            return bool(super().isContinuousFocusEnabled())
        return focusd.holding.is_wanted

    def isContinuousFocusLocked(self) -> bool:
        """Whether the focus is held, and known to be within the tolerance."""
        if (focusd := self._chosen) is None:
            return bool(super().isContinuousFocusLocked())
        return focusd.holding.is_locked

    def setAutoFocusOffset(self, offset: float) -> None:
        """Set where `fullFocus` leaves the stage, µm from the focus."""
        if (focusd := self._chosen) is None:
            super().setAutoFocusOffset(offset)
            return
        with as_runtime_error():
            focusd.set_offset(offset)

    def getAutoFocusOffset(self) -> float:
        """Return where `fullFocus` leaves the stage, µm from the focus."""
        return super().getAutoFocusOffset() if (focusd := self._chosen) is None else focusd.offset_um

    def getLastFocusScore(self) -> float:
        """Return how sharp the last exposure of focusd was: 1 at its sharpest, lower further away."""
        return float(super().getLastFocusScore()) if (focusd := self._chosen) is None else focusd.last_score

    def getCurrentFocusScore(self) -> float:
        """As `getLastFocusScore`: nothing is exposed for a score."""
        return (
            float(super().getCurrentFocusScore()) if (focusd := self._chosen) is None else focusd.last_score
        )

    def unloadAllDevices(self) -> None:
        """Detach focusd, which uses these devices, and unload them."""
        self._without_focusd().unloadAllDevices()

    def reset(self) -> None:
        """Detach focusd, which uses these devices, and unload them."""
        self._without_focusd().reset()

    def loadSystemConfiguration(self, fileName: Any = "MMConfig_demo.cfg") -> None:
        """Detach focusd, which uses the devices that there are, and load others."""
        self._without_focusd().loadSystemConfiguration(fileName)

    snapImage = _in_turn("snapImage", exposes=True)
    startSequenceAcquisition = _in_turn("startSequenceAcquisition", exposes=True)
    startContinuousSequenceAcquisition = _in_turn("startContinuousSequenceAcquisition", exposes=True)
    stopSequenceAcquisition = _in_turn("stopSequenceAcquisition")
    setPosition = _in_turn("setPosition", "the program, which moved the stage,")
    setRelativePosition = _in_turn("setRelativePosition", "the program, which moved the stage,")
    setXYPosition = _in_turn("setXYPosition", "the program, which moved the sample,")
    setRelativeXYPosition = _in_turn("setRelativeXYPosition", "the program, which moved the sample,")

    def _without_focusd(self) -> Any:
        """Return the core as it was before focusd was attached."""
        if self._focusd is not None:
            self._focusd.detach()
        return super() if isinstance(self, FocusdCore) else self

    @property
    def _chosen(self) -> Attached | None:
        """focusd, where it is the chosen autofocus device and the program is asking, not focusd itself."""
        focusd = self._focusd
        return focusd if focusd is not None and focusd.is_chosen and not INSIDE.get() else None


class FocusdRunner(MDARunner):
    """Put before the class of a core's runner: while an acquisition runs, focusd does what its plan asks, no more."""

    _focusd: Attached | None = None

    def run(self, *args: Any, **named: Any) -> None:
        """Run the acquisition with camera and stage its own."""
        if self._focusd is None:
            super().run(*args, **named)
            return
        with as_runtime_error(), self._focusd.acquisition(), corrections_in_sequences(self.engine):
            super().run(*args, **named)


def put_before(thing: Any, kind: type[Any], owner: Any, name: str = "_focusd") -> None:
    """Have an object become one of `kind`, too, without its owner having to make another.

    Args:
        owner: what it is told, as the attribute `name`.

    Raises:
        BusyError: it has one already.
    """
    if vars(thing).get(name) is not None:
        raise BusyError("focusd is attached to this core already: detach() that one first")
    if not isinstance(thing, kind):
        before = type(thing)
        thing.__class__ = type(before.__name__, (kind, before), {"__module__": before.__module__})
    setattr(thing, name, owner)


def take_away(thing: Any, kind: type[Any], name: str = "_focusd") -> None:
    """Undo `put_before`. Where somebody else has changed the class since, it stays, without effect."""
    vars(thing).pop(name, None)
    if type(thing).__bases__[0] is kind:
        thing.__class__ = type(thing).__bases__[1]


class Acquiring:
    """Which thread runs an acquisition.

    Attributes:
        thread: its identity; None: no acquisition runs.
    """

    thread: int | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """An acquisition runs in this thread inside the `with`."""
        self.thread = threading.get_ident()
        try:
            yield
        finally:
            self.thread = None

    @property
    def here(self) -> bool:
        """Whether the acquisition itself is calling."""
        return self.thread == threading.get_ident()
