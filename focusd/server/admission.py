"""How much may be under way at once, so that those who ask cannot fill the memory: a bounded share for each. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from focusd.errors import BusyError


@dataclass
class Load:
    """Requests that wait for their answers, and the bytes that they hold meanwhile."""

    requests: int = 0
    bytes: int = 0


SPARE_REQUESTS = 4
"""Of one client, that find room when others have taken all there is: asking for the state, or releasing."""
SPARE_SHARE = 1.5
"""So many times what all may have under way, in bytes, may be reached by clients that have nothing under way yet."""


class Admission:
    """Counts what is under way.

    Args:
        of_one: what one client may have under way.
        of_all: what all together may.
    """

    def __init__(self, of_one: Load, of_all: Load) -> None:
        self._of_one = of_one
        self._of_all = of_all
        self._all = Load()
        self._each: dict[Hashable, Load] = {}

    @contextmanager
    def admitted(self, client: Hashable, size: int) -> Iterator[None]:
        """Count a request of so many bytes inside the `with`.

        Raises:
            BusyError: there is no room for it.
        """
        own = self._each.get(client, Load())
        if not _fits(own, size, self._of_one):
            raise BusyError(
                "this client has too much under way already; wait for its answers before asking for more"
            )
        if not self._has_room(own, size):
            raise BusyError("clients have too much under way already; ask again in a second")
        self._each[client] = own
        _add((own, self._all), 1, size)
        try:
            yield
        finally:
            _add((own, self._all), -1, -size)
            if not own.requests:
                del self._each[client]

    def _has_room(self, own: Load, size: int) -> bool:
        """Whether all together leave room: a client that has hardly anything under way finds some left."""
        most = self._of_all
        requests = self._all.requests < most.requests or own.requests < SPARE_REQUESTS
        spare = SPARE_SHARE if own.bytes == 0 else 1.0
        return requests and self._all.bytes + size <= spare * most.bytes


def _fits(taken: Load, size: int, most: Load) -> bool:
    return taken.requests < most.requests and taken.bytes + size <= most.bytes


def _add(loads: tuple[Load, ...], requests: int, size: int) -> None:
    for load in loads:
        load.requests += requests
        load.bytes += size
