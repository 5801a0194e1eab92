"""What the commands print."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from focusd import __version__


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
]
"""An option that prints the version and ends the program."""


def print_utf8() -> None:
    """Whatever the system's own encoding: Windows' would refuse the σ of a result that goes into a pipe or a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


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
