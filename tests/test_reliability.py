"""docs/reliability.md names tests that exist: for each promise, and for each thing that broke once."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES, _, AFTER = DOCUMENT.partition("## What broke once")
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows_of(part: str) -> list[str]:
    """The rows of all tables, without their headings."""
    return re.findall(r"^\| (?!promise|what broke|-)[^|]+ \|.* \|$", part, re.MULTILINE)


BROKE = rows_of(AFTER.partition("## Figures")[0])


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", rows_of(PROMISES), ids=lambda row: row[2:50])
def test_a_promise_has_a_test(row: str) -> None:
    assert NAMED.search(row)


@pytest.mark.parametrize("row", BROKE, ids=lambda row: row[2:50])
def test_what_broke_once_has_a_test(row: str) -> None:
    assert NAMED.search(row)


def test_every_test_that_is_named_anywhere_exists() -> None:
    assert [(file, name) for file, name in NAMED.findall(DOCUMENT) if name not in functions_of(file)] == []
    assert DOCUMENT.count("::") == len(NAMED.findall(DOCUMENT)), (
        "each is named with its file, between backticks"
    )


def test_all_rows_are_looked_at() -> None:
    assert len(rows_of(PROMISES)) >= 35
    assert len(BROKE) >= 25
