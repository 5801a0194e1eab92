"""Every attack on a daemon in a process of its own, one after the other: what was promised, and what was not kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.faults.besieged import besiege
from bench.faults.endings import ENDINGS, run_ending
from bench.faults.floods import sieges
from bench.faults.storms import storms
from bench.faults.tables import table_of


def run_attacks(
    seconds: float, console: Console, only: Sequence[str] = (), folder: Path | None = None
) -> list[dict[str, Any]]:
    """Run them, print a table, return a row for each.

    Args:
        only: those whose name contains one of these; empty: all.
        folder: for the daemons' states; None: a temporary one.
    """
    with tempfile.TemporaryDirectory(prefix="focusd-attacks-") as temporary:
        rows = []
        for row in _rows(seconds, only, folder or Path(temporary)):
            rows.append(row)
            console.print(
                "kept  " if row["ok"] else "broken", row["name"], "; ".join(row["failed"]), highlight=False
            )
    console.print(table_of("attacks on a daemon", COLUMNS, map(_cells, rows)))
    return rows


def _rows(seconds: float, only: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    def is_wanted(name: str) -> bool:
        return not only or any(part in name for part in only)

    for number, name in enumerate(filter(is_wanted, ENDINGS)):
        yield run_ending(name, folder / f"ending-{number}")
    for number, siege in enumerate(siege for siege in [*sieges(), *storms()] if is_wanted(siege.name)):
        yield besiege(siege, folder / f"siege-{number}", seconds)


COLUMNS = (
    "attack",
    "kept",
    "state ms p50",
    "p99",
    "echo p99",
    "unanswered",
    "RSS MB",
    "peak",
    "after",
    "refocuses",
)
FIGURES = (
    "state_p50_ms",
    "state_p99_ms",
    "echo_p99_ms",
    "unanswered",
    "rss_before_mb",
    "rss_peak_mb",
    "rss_after_mb",
)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    """An attack's row of the table, in the order of the columns."""
    seen = (f"{row[name]:.0f}" if name in row else "" for name in FIGURES)
    refocuses = ", ".join(f"{name} {count}" for name, count in row.get("refocuses", {}).items())
    return (row["name"], "yes" if row["ok"] else "no", *seen, refocuses)
