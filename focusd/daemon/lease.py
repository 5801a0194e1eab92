"""The lease: while an acquisition exposes, focusd moves nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from focusd.errors import BusyError, RequestError
from focusd.protocol import states
from focusd.protocol.states import LeaseHolder


@dataclass(frozen=True)
class _Grant:
    """Who has the microscope, and until when at most."""

    id: str
    client: str
    until_s: float
    until: str


class Lease:
    """One client's exclusive use of the microscope. It ends by itself unless its holder prolongs it in time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._grant: _Grant | None = None

    def acquire(self, client: str, seconds: float, lease_id: str | None = None) -> states.Lease:
        """Take the lease, or, with the id of the one held, have it run so long from now.

        Raises:
            BusyError: somebody else has it.
            RequestError: the id is that of a lease that has ended.
        """
        self.check(lease_id)
        if lease_id is not None and self._current is None:
            raise RequestError("this lease has ended; acquire another one, without lease_id")
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        self._grant = _Grant(
            lease_id or secrets.token_hex(8),
            client,
            self._clock() + seconds,
            until.isoformat(timespec="milliseconds"),
        )
        return states.Lease(lease_id=self._grant.id, seconds=seconds, until=self._grant.until)

    def release(self, lease_id: str) -> bool:
        """Give it back; False if it had ended before."""
        held = self._current is not None and self._current.id == lease_id
        if held:
            self._grant = None
        return held

    def check(self, lease_id: str | None) -> None:
        """Raises BusyError if somebody has the lease and this is not its id."""
        grant = self._current
        if grant is not None and grant.id != lease_id:
            whose = f" by {grant.client}" if grant.client else ""
            raise BusyError(
                f"the microscope is leased{whose} until {grant.until} at most; wait for its release",
                client=grant.client,
                until=grant.until,
            )

    @property
    def holder(self) -> LeaseHolder | None:
        """Who has it, as `state.get` tells; the id stays its holder's."""
        grant = self._current
        return LeaseHolder(client=grant.client, until=grant.until) if grant else None

    @property
    def _current(self) -> _Grant | None:
        if self._grant is not None and self._clock() >= self._grant.until_s:
            self._grant = None
        return self._grant
