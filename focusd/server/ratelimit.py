"""How many requests one client may send: a bucket of tokens each, refilled at a steady rate. No I/O."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

REMEMBERED = 4096
"""Clients whose buckets are kept; one that was away for long starts with a full one."""


@dataclass
class _Bucket:
    tokens: float
    filled_s: float


class RateLimit:
    """At most `per_s` requests a second of each client, and so many at once.

    Args:
        per_s: requests per second.
        at_once: None: as many as in a second.
    """

    def __init__(
        self, per_s: float, clock: Callable[[], float] = time.perf_counter, at_once: float | None = None
    ) -> None:
        self._per_s = per_s
        self._at_once = per_s if at_once is None else at_once
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def allows(self, client: Hashable, cost: float = 1.0) -> bool:
        """Whether a client may have one more request answered; counts it.

        Args:
            cost: in requests. One that costs more than a client has is allowed, and what is missing is owed.
        """
        now_s = self._clock()
        bucket = self._buckets.setdefault(client, _Bucket(self._at_once, now_s))
        self._buckets.move_to_end(client)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._at_once, bucket.tokens + (now_s - bucket.filled_s) * self._per_s)
        bucket.filled_s = now_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= cost
        return True

    def charge(self, client: Hashable, cost: float) -> None:
        """Count what a request turned out to cost."""
        if bucket := self._buckets.get(client):
            bucket.tokens -= cost
