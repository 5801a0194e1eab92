"""What events say that are kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def told(events: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events, decoded."""
    return [json.loads(event) for event in events]
