"""Tables of the faults' bench: many narrow columns, of which the first is never wrapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table


def table_of(title: str, names: Sequence[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table without lines; a cell may be anything that has a text."""
    table = Table(*names, title=title, box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(str, row))
    return table
