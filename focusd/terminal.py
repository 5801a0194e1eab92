"""What the commands print: in UTF-8, and nothing that a terminal would obey."""

from __future__ import annotations

import _thread
import io
import json
import os
import signal
import sys
import threading
from typing import Any

SOON_S = 0.02
"""By then the destructor has ended."""


def print_utf8() -> None:
    """Whatever the system's own encoding: Windows' would refuse the σ of a result that goes into a pipe or a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


def keep_interrupts() -> None:
    """Interrupt again where Ctrl-C falls into a destructor, which Python would only report as ignored."""
    report = sys.unraisablehook

    def hook(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            threading.Timer(SOON_S, _interrupt).start()
        else:
            report(ignored)

    sys.unraisablehook = hook


def _interrupt() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # which also wakes a main thread that waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def open_standard_streams() -> None:
    """Put what swallows everything in place of each standard stream that was closed when the process started.

    Else the next file that is opened, a record or a socket, would get the number of the stream, and what a library
    prints there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def printable(text: str) -> str:
    """The text with what a terminal would obey written out: control characters, line ends, overrides of direction."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def one_line_json(value: Any) -> str:
    """A value as JSON on one line, which may be shown on a terminal as it is."""
    return printable(json.dumps(value, ensure_ascii=False))


def _escaped(character: str) -> str:
    """As JSON writes it, so that JSON stays JSON."""
    return json.dumps(character)[1:-1]
