"""What focusctl prints, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from focusd.protocol.events import Event
from focusd.protocol.model import Result
from focusd.protocol.results import RefocusResult
from focusd.rounding import shown_um
from focusd.terminal import one_line_json, printable

Values = Mapping[str, Any]

RESULT_ROWS = {
    "z_um": "µm",
    "outcome": "",
    "message": "",
    "z_start_um": "µm",
    "z_found_um": "µm",
    "focus_um": "µm",
    "shift_um": "µm",
    "backlash_um": "µm",
    "sigma_um": "µm",
    "dof_um": "µm",
    "thickness_um": "µm",
    "share_in_focus": "",
    "strategy": "",
    "exposures": "",
    "dose_ms": "ms",
    "seconds": "s",
    "objective": "",
    "planes": "",
    "z_focus_um": "µm",
    "fwhm_um": "µm",
    "range_um": "µm",
    "r2": "",
    "id": "",
    "path": "",
    "state": "",
    "checks": "",
    "moves": "",
}
_PLACES = {"z_um", "z_start_um", "z_found_um", "z_focus_um", "focus_um"}
LENGTHS = _PLACES | {"shift_um", "dz_um", "backlash_um", "sigma_um"}
"""What `sigma_um` in the same answer is the standard uncertainty of, and itself."""


def say(text: str, colour: str | None = None, err: bool = False) -> None:
    """Print lines, with what a terminal would obey written out."""
    click.secho("\n".join(map(printable, text.split("\n"))), fg=colour, err=err)


def print_table(rows: Iterable[Iterable[str]], heads: Sequence[str] = (), title: str = "") -> None:
    """Print rows of cells in columns as wide as their longest cell."""
    cells = [[printable(cell) for cell in row] for row in ([heads, *rows] if heads else rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if heads:
        cells.insert(1, ["─" * width for width in widths])
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    click.echo("\n".join([printable(title), *lines] if title else lines))


def line(event: Event) -> str:
    """An event for people: time of day in UTC, number, topic, what it says; coloured by ANSI codes."""
    data = event.model_dump()["data"]
    failed = event.topic == "focus.failed" or data.get("state") == "failed"
    job = f" {event.job_id}" if event.job_id else ""
    return (
        click.style(printable(f"{event.time[11:23]} {event.seq:>6} "), dim=True)
        + click.style(printable(f"{event.topic:<15}"), fg="red" if failed else "cyan")
        + click.style(printable(job), dim=True)
        + " "
        + pairs(data)
    )


def pairs(data: Values) -> str:
    """`name=value` of everything; long lists only say how long they are."""
    return "  ".join(f"{printable(name)}={value}" for name, value in flat(data))


def flat(data: Values, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values for people of everything inside, `outer.inner` where it is nested."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, entry(data, name)


def entry(data: Values, name: str) -> str:
    """One value of an answer for people: a z has the digits that the σ beside it justifies."""
    value = data.get(name)
    if isinstance(value, float) and name in LENGTHS:
        return shown_um(value, value if name == "sigma_um" else data.get("sigma_um"))
    return shown(value)


def shown(value: object) -> str:
    """A value for people: floats to four figures, long lists by their length, all on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        short = len(value) <= 4 and not any(isinstance(item, dict | list) for item in value)
        return "[" + ", ".join(map(shown, value)) + "]" if short else f"[{len(value)} items]"
    return "–" if value is None else printable(str(value))


def print_values(values: Values) -> None:
    """Print names and values, one a line; `outer.inner` where they are nested."""
    print_table(flat(values))


def print_result(title: str, result: Result) -> None:
    """The end of a job, or of a hold, for people."""
    say(title)
    values = result.model_dump()
    rows = [
        (name.removesuffix("_um"), f"{entry(values, name)} {unit}".rstrip())
        for name, unit in RESULT_ROWS.items()
        if values.get(name) not in (None, "")
    ]
    if isinstance(result, RefocusResult):
        rows.append(("field", f"{result.geometry.shape}: {result.geometry.reason}"))
    print_table(rows)
    if isinstance(result, RefocusResult):
        names = ("z_um", "b", "sigma", "structure")
        measured = ([entry(probe, name) for name in names] for probe in values["probes"])
        print_table(measured, ("z, µm", "b", "σ(b)", "structure"), "probes")


def print_json(value: Result | Values) -> None:
    """One line for a program."""
    click.echo(one_line_json(value.model_dump(mode="json") if isinstance(value, Result) else value))
