"""Recorded stacks for the benches: what cannot be read is told, and left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from focusd.errors import FocusdError
from focusd.microscope.recorded import Stack, read_stack, stack_files


def readable_stacks(folder: Path, but: Path | None = None) -> Iterator[tuple[Path, Stack]]:
    """The stacks of a folder, by name.

    Args:
        but: one that serves something else.
    """
    for path in stack_files(folder):
        if but and path.samefile(but):
            continue
        try:
            stack = read_stack(path)
        except FocusdError as error:
            tell(error.message)
        else:
            yield path, stack


def tell(message: str) -> None:
    """Print a sentence as it is."""
    Console().print(message, highlight=False, markup=False)
