"""Logs of events on a monitor's disk: appended line by line, read back and summed up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from focusd.errors import FocusdError
from focusd.terminal import one_line_json

KEPT = 9
"""Full files beside the present one: FILE.1, the latest, to FILE.9."""

_TAIL_BYTES = 1 << 20
"""Where the last event of a file is looked for."""

Event = dict[str, Any]


class EventLog:
    """A file of JSON lines. A line is written whole or, when the disk refuses, costs only itself.

    Args:
        max_bytes: from which the file is set aside as FILE.1 and begun anew.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._open()

    def append(self, event: Event) -> None:
        """Write an event with one system call: a kill at any moment leaves no half of it behind another."""
        line = (one_line_json(event) + "\n").encode()
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
        written = os.write(self._descriptor, line)
        self._size += written
        if written < len(line):
            raise OSError(f"{self._path}: the disk is full")

    def close(self) -> None:
        """Write all to disk."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _open(self) -> None:
        as_it_is: int = getattr(os, "O_BINARY", 0)  # Windows would turn each line's end into two bytes
        self._descriptor = os.open(self._path, os.O_APPEND | os.O_CREAT | os.O_RDWR | as_it_is, 0o644)
        self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if self._size and self._last_byte() != b"\n":
            self._size += os.write(self._descriptor, b"\n")  # what was cut off stays a line of its own

    def _last_byte(self) -> bytes:
        os.lseek(self._descriptor, -1, os.SEEK_END)
        return os.read(self._descriptor, 1)

    def _rotate(self) -> None:
        self.close()
        for number in range(KEPT - 1, 0, -1):
            if (full := _numbered(self._path, number)).exists():
                full.replace(_numbered(self._path, number + 1))
        self._path.replace(_numbered(self._path, 1))
        self._open()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def read_events(path: Path) -> Iterator[Event]:
    """The events of a log and of its full files before it, oldest first; lines that were cut off are left out."""
    files = [_numbered(path, number) for number in range(KEPT, 0, -1)]
    for file in [*(f for f in files if f.exists()), path]:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from (event for line in lines if (event := _event(line)))


def last_event(path: Path) -> Event | None:
    """The last event of a log, which may have been set aside just now; None if there is none."""
    for file in (path, _numbered(path, 1)):
        if file.exists() and (last := _last_in(file)):
            return last
    return None


def _last_in(file: Path) -> Event | None:
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        lines = content.read().decode("utf-8", errors="replace").splitlines()
    return next((event for line in reversed(lines) if (event := _event(line))), None)


def _event(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return (
        event
        if isinstance(event, dict) and {"topic", "time", "data", "seq", "session"} <= set(event)
        else None
    )


@dataclass(frozen=True)
class Summary:
    """What a drift log says.

    Attributes:
        rate_um_per_min: of the focus, mean slope by least squares, leaving jumps between holds in.
        range_um: from the lowest focus to the highest.
        corrections: moves that followed the drift, checks that succeeded, and others' refocuses.
        dose_ms: exposure time that holding has cost.
        in_focus: share of the time with |Δz| ≤ half a depth of field, as far as the hold could tell.
    """

    hours: float
    estimates: int
    rate_um_per_min: float
    range_um: float
    corrections: int
    failed_checks: int
    exposures: int
    dose_ms: float
    in_focus: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def estimates_of(events: Iterator[Event]) -> list[Event]:
    """The drift events that hold an estimate, once each.

    Raises:
        FocusdError: there are none.
    """
    seen: dict[tuple[str, int], Event] = {}
    for event in events:
        if event["topic"] == "drift" and event["data"].get("focus_um") is not None:
            seen.setdefault((event["session"], event["seq"]), event)
    if len(seen) < 2:
        raise FocusdError(
            "the log holds fewer than two drift estimates: hold the focus, and let monitor log it"
        )
    return sorted(seen.values(), key=lambda event: event["time"])


def summarise(estimates: list[Event]) -> Summary:
    """The figures of a log; `estimates` from `estimates_of`."""
    data = [event["data"] for event in estimates]
    minutes = minutes_of(estimates)
    focus_um = [d["focus_um"] for d in data]
    exposures, dose_ms = _total(data, "exposures"), _total(data, "dose_ms")
    return Summary(
        hours=minutes[-1] / 60,
        estimates=len(data),
        rate_um_per_min=_slope(minutes, focus_um),
        range_um=max(focus_um) - min(focus_um),
        corrections=sum(d["source"] in ("check", "follow", "refocus") for d in data),
        failed_checks=sum(d["source"] == "failed" for d in data),
        exposures=round(exposures),
        dose_ms=dose_ms,
        in_focus=_share_in_focus(minutes, data),
    )


def minutes_of(estimates: list[Event]) -> list[float]:
    """When the estimates were made, in minutes since the first."""
    times = [datetime.fromisoformat(event["time"]) for event in estimates]
    return [(time - times[0]).total_seconds() / 60 for time in times]


def _slope(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    product = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return product / spread if spread else 0.0


def _total(data: list[Event], name: str) -> float:
    """The sum over holds of a count that begins anew with each."""
    total, last = 0.0, 0.0
    for values in data:
        total += values[name] - last if values[name] >= last else values[name]
        last = values[name]
    return total


def _share_in_focus(minutes: list[float], data: list[Event]) -> float:
    """Each estimate counts until the next one."""
    spans = [later - now for now, later in pairwise(minutes)]
    whole = sum(spans)
    good = sum(
        span
        for span, values in zip(spans, data, strict=False)
        if values["state"] == "locked" and abs(values["dz_um"] or 0.0) <= values["dof_um"] / 2
    )
    return good / whole if whole else 0.0
