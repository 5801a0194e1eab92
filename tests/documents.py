"""The documents of the repository, as the tests that follow them read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HERE = ".venv/bin/"
"""What is typed in the clone begins with it; `/opt` and `sudo` are for a service."""

GUIDES = [ROOT / "README.md", DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
"""What people follow step by step."""
PAGES = [
    *GUIDES,
    DOCS / "index.md",
    *sorted(DOCS.glob("explanation/*.md")),
    *sorted(DOCS.glob("reference/*.md")),
]
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def name_of(document: Path) -> str:
    """A document's path in the repository."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def shell_lines(document: Path) -> list[str]:
    """What is typed into a shell, with its comments."""
    return [line for block in blocks(document, "sh") for line in block.splitlines()]


def prose(document: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
