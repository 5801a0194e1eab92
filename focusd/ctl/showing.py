"""What focusctl prints, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from focusd.protocol.messages import JsonObject
from focusd.terminal import PlainConsole, one_line_json, printable

RESULT_ROWS = {
    "z_um": "µm",
    "outcome": "",
    "message": "",
    "z_start_um": "µm",
    "z_found_um": "µm",
    "focus_um": "µm",
    "shift_um": "µm",
    "sigma_um": "µm",
    "dof_um": "µm",
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

out = PlainConsole(highlight=False, markup=False)


def line(event: JsonObject) -> Text:
    """An event for people: time of day in UTC, number, topic, what it says."""
    line = Text(printable(f"{event['time'][11:23]} {event['seq']:>6} "), style="dim")
    failed = event["topic"] == "focus.failed" or event["data"].get("state") == "failed"
    line.append(printable(f"{event['topic']:<15}"), style="red" if failed else "cyan")
    if event["job_id"]:
        line.append(printable(f" {event['job_id']}"), style="dim")
    return line.append(" " + pairs(event["data"]))


def pairs(data: JsonObject) -> str:
    """`name=value` of everything; long lists only say how long they are."""
    return "  ".join(f"{printable(name)}={shown(value)}" for name, value in flat(data))


def flat(data: JsonObject, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of everything inside, `outer.inner` where it is nested."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def shown(value: object) -> str:
    """A value for people: floats to four figures, long lists by their length, all on one line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        short = len(value) <= 4 and not any(isinstance(item, dict | list) for item in value)
        return "[" + ", ".join(map(shown, value)) + "]" if short else f"[{len(value)} items]"
    return "–" if value is None else printable(str(value))


def two_columns() -> Table:
    """A table of names and values."""
    table = Table("", "", show_header=False)
    table.columns[0].style = "dim"
    return table


def print_result(title: str, result: JsonObject) -> None:
    """The end of a job, or of a hold, for people."""
    out.print(title)
    table = two_columns()
    for name, unit in RESULT_ROWS.items():
        if result.get(name) not in (None, ""):
            table.add_row(name.removesuffix("_um"), f"{shown(result[name])} {unit}".rstrip())
    if field := result.get("geometry"):
        table.add_row("field", f"{field['shape']}: {field['reason']}")
    out.print(table)
    if probes := result.get("probes"):
        out.print(_probes_table(probes))


def _probes_table(probes: list[JsonObject]) -> Table:
    table = Table("z, µm", "b", "σ(b)", "structure", title="probes")
    for probe in probes:
        table.add_row(*(shown(probe.get(name)) for name in ("z_um", "b", "sigma", "structure")))
    return table


def print_json(value: JsonObject) -> None:
    """One line for a program."""
    typer.echo(one_line_json(value))
