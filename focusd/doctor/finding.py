"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "failure", "skipped"]
Ask = Callable[[str], bool | None]
"""Puts a question to the person at the terminal: yes, no, or None if they cannot tell."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a word or two.
        says: what was found.
        do: what to do about it; empty where all is well.
    """

    check: str
    level: Level
    says: str
    do: str = ""


def ok(check: str, says: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", says)


def warning(check: str, says: str, do: str) -> Finding:
    """focusd runs, but not as well as it could."""
    return Finding(check, "warning", says, do)


def failure(check: str, says: str, do: str) -> Finding:
    """focusd does not start, or cannot do its work."""
    return Finding(check, "failure", says, do)


def skipped(check: str, says: str, do: str = "") -> Finding:
    """Not looked at."""
    return Finding(check, "skipped", says, do)
