"""One guard is the only way to move z: nothing else in focusd calls what moves a stage."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "focusd"
MOVES = {
    r"microscope\.move_to\(": {"microscope/guard.py"},
    r"\.set(Relative)?(XY)?Position\(": {"microscope/micromanager.py"},
    r"\.(home|setOrigin|fullFocus|incrementalFocus)\(": set(),
}


def callers(pattern: str) -> set[str]:
    """The files in which a call stands."""
    return {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }


def test_only_the_guard_moves_the_stage() -> None:
    assert {pattern: callers(pattern) for pattern in MOVES} == MOVES
