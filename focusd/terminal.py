"""What the commands print."""

from __future__ import annotations

import io
import sys


def print_utf8() -> None:
    """Whatever the system's own encoding: Windows' would refuse the σ of a result that goes into a pipe or a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
