"""docs/reliability.md names tests that exist, at least one for each promise."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROMISES = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8").split("## Figures")[0]
ROWS = [line for line in PROMISES.splitlines() if re.match(r"\| (?!promise)[A-Z].* \|$", line)]
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_promise_has_a_test_and_every_test_exists(row: str) -> None:
    named = NAMED.findall(row)
    assert named, "a promise without a test"
    assert [name for file, name in named if name not in functions_of(file)] == []


def test_all_promises_are_looked_at() -> None:
    assert len(ROWS) >= 35
