"""Wait for the engine room without freezing a graphical program."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

BINDINGS = ("PySide6", "PyQt6", "PySide2", "PyQt5")
EVENTS_MS = 10
"""How long Qt may process events at once."""
NAP_S = 0.005
"""Between two looks at the events: a click is answered within it and what the click itself takes."""


def wait_for(future: Future[T]) -> T:
    """Return the future's result; in the main thread of a Qt program, events are processed meanwhile.

    An exception of the waiting itself, such as Ctrl-C, cancels what is waited for.
    """
    process_events = _qt()
    try:
        while process_events is not None and not future.done():
            process_events()
            _nap(future)
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _nap(future: Future[Any]) -> None:
    ended = threading.Event()
    future.add_done_callback(lambda _future: ended.set())
    ended.wait(NAP_S)


def _qt() -> Callable[[], object] | None:
    """Return how to process events, if this is the main thread of a program with a Qt application."""
    if threading.current_thread() is not threading.main_thread():
        return None
    for binding in BINDINGS:
        core: Any = sys.modules.get(f"{binding}.QtCore")
        if core is not None and core.QCoreApplication.instance() is not None:
            every = getattr(core.QEventLoop, "ProcessEventsFlag", core.QEventLoop).AllEvents
            return lambda: core.QCoreApplication.processEvents(every, EVENTS_MS)
    return None
