"""Microscopes that are closed when their test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from focusd.config import RigConfig
from focusd.microscope.factory import open_microscope
from focusd.microscope.protocol import Microscope

M = TypeVar("M", bound=Microscope)


@contextmanager
def opening(kind: type[M]) -> Iterator[Callable[[RigConfig], M]]:
    """Open microscopes of one kind inside the `with`; they are closed at its end."""
    with ExitStack() as opened:

        def open_one(config: RigConfig) -> M:
            microscope = open_microscope(config)
            opened.callback(microscope.close)
            assert isinstance(microscope, kind)
            return microscope

        yield open_one
