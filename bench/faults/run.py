"""The command: the matrix, the kills, the fuzz and the guard, one after the other, as tables and JSON."""

from __future__ import annotations

import json
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from bench import lying
from bench.faults.attacks import run_attacks
from bench.faults.drifts import run_drifts
from bench.faults.faults import FAULTS, Fault
from bench.faults.fuzz import fuzz
from bench.faults.guard_machine import run_guard
from bench.faults.kills import fresh_processes, run_kills
from bench.faults.matrix import Seen, inject
from bench.faults.service import UNHURRIED, config_of, running
from bench.faults.status import run_status
from bench.faults.tables import table_of
from bench.faults.walks import run_walks
from bench.quiet import be_quiet
from focusd.scoring.choice import open_scorer
from focusd.scoring.scorer import Scorer

out = Console()

USUAL = (100, 200, 1_000_000, 100_000)
"""Injections of each fault, kills, messages, steps of the guard."""
QUICK = (3, 10, 20_000, 5000)
WIDE = 160
"""Columns of the widest table."""


@dataclass(frozen=True)
class Parts:
    """How much of each part to run; 0: leave it out.

    Attributes:
        lying: searches and checks.
        attacks: seconds of each flood.
        walks: configurations that calibrate and refocus.
        only: attacks whose name contains one of these; empty: all.
        drift: simulated hours at each rate.
    """

    times: int = 0
    kills: int = 0
    messages: int = 0
    steps: int = 0
    lying: int = 0
    walks: int = 0
    attacks: float = 0.0
    only: tuple[str, ...] = ()
    drift: float = 0.0

    @classmethod
    def asked(cls, *lengths: int | None, quick: bool, **others: Any) -> Parts:
        """The first four at their usual lengths where none is given, unless only others are asked for."""
        only_others = any(others.values()) and not quick and all(length is None for length in lengths)
        usual = (0,) * len(USUAL) if only_others else USUAL
        chosen = [length if asked is None else asked for length, asked in zip(usual, lengths, strict=True)]
        return cls(*(map(min, chosen, QUICK) if quick else chosen), **others)


def run_faults(parts: Parts, seed: int, json_path: Path | None) -> bool:
    """Run all that is asked for at least once; returns whether every promise was kept."""
    be_quiet("warning")
    figures: dict[str, Any] = {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        if parts.times:
            figures["faults"] = _matrix(state / "matrix", parts.times, seed)
            figures["status_while_hung"] = run_status(state / "status", 50 * parts.times)
            out.print(figures["status_while_hung"])
        if parts.kills:
            figures["kills"] = run_kills(state / "kills", parts.kills, seed)
            out.print(figures["kills"])
        if parts.messages:
            figures["fuzz"] = _fuzzed(state / "fuzz", parts.messages, seed)
            out.print(figures["fuzz"])
    if parts.steps:
        figures["guard"] = run_guard(parts.steps)
        out.print(figures["guard"])
    if parts.lying:
        figures["lying"] = lying.report(parts.lying, seed, Console(width=max(out.width, WIDE)))
    if parts.attacks:
        figures["attacks"] = run_attacks(parts.attacks, Console(width=max(out.width, WIDE)), parts.only)
    if parts.drift:
        figures["drift"] = run_drifts(parts.drift, seed, out)
    if parts.walks:
        figures["walks"] = run_walks(parts.walks, seed, out)
        out.print(figures["walks"])
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return _kept(figures)


def _kept(figures: dict[str, Any]) -> bool:
    rows = all(row["as_promised"] == row["times"] for row in figures.get("faults", []))
    kills = figures.get("kills", {"wrong": [], "serves_after": True})
    lied = figures.get("lying", {})
    trusted = not any(
        lied.get(name) for name in ("wrong_3_sigma", "wrong_half_dof", "beyond_reach", "untyped")
    )
    others = all(row["ok"] for name in ("attacks", "drift") for row in figures.get(name, []))
    walked = figures.get("walks", {"kept": True})["kept"]
    return rows and not kills["wrong"] and kills["serves_after"] and trusted and others and walked


def _matrix(folder: Path, times: int, seed: int) -> list[dict[str, Any]]:
    """Each fault in a process of its own: after a thousand of pymmcore's cores in one, the next may never open."""
    _calibrated(folder / "calibrated")
    rows = []
    for number in track(
        range(len(FAULTS)), "faults", console=out, transient=True, disable=not out.is_terminal
    ):
        with ProcessPoolExecutor(1, fresh_processes()) as process:
            rows.append(process.submit(_injected, number, folder, times, seed).result())
    out.print(table_of("faults: promises kept, and what was seen", COLUMNS, map(_cells, rows)))
    return rows


def _injected(number: int, folder: Path, times: int, seed: int) -> dict[str, Any]:
    """One fault's row."""
    be_quiet("warning")
    fault, scorer = FAULTS[number], open_scorer(config_of(folder / "calibrated"))
    random = Random(f"{seed} {fault.name}")
    return _row(fault, [_once(fault, scorer, folder, random) for _ in range(times)])


def _calibrated(state: Path) -> Scorer:
    """A rig whose calibration every injection starts with; returns its scorer."""
    config = config_of(state, microscope={"focus_z_um": 0.0}, stage=UNHURRIED)
    scorer = open_scorer(config)
    with running(config, scorer) as service, service.connect() as client:
        client.calibrate()
    return scorer


def _once(fault: Fault, scorer: Scorer, folder: Path, random: Random) -> Seen:
    state = folder / "once"
    shutil.copytree(folder / "calibrated", state)
    try:
        config = config_of(state, stage={} if fault.latches else UNHURRIED)
        with running(config, scorer) as service:
            return inject(fault, service, random)
    finally:
        shutil.rmtree(state)


def _row(fault: Fault, seen: list[Seen]) -> dict[str, Any]:
    kept = [one.as_promised(fault) for one in seen]
    return {
        "fault": fault.name,
        "times": len(seen),
        "as_promised": sum(kept),
        "outcomes": sorted({one.outcome for one in seen}),
        "detection_s": {
            "median": median(s.detection_s for s in seen),
            "max": max(s.detection_s for s in seen),
        },
        "status_ms": _quantiles([ms for one in seen for ms in one.status_ms]),
        "stage_safe": sum(one.safe for one in seen),
        "serving": sum(one.serving for one in seen),
        "answered_once": sum(one.answers == 1 and one.same for one in seen),
        "limit_violations": sum(one.violations for one in seen),
        "broken": [
            asdict(one) | {"status_ms": max(one.status_ms, default=0.0)}
            for one, good in zip(seen, kept, strict=True)
            if not good
        ][:3],
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ranks = {"median": 0.5, "p99": 0.99, "max": 1.0}
    return {name: float(np.quantile(values or [0.0], rank)) for name, rank in ranks.items()}


COLUMNS = (
    "fault",
    "kept",
    "seen after s",
    "max",
    "status ms p99",
    "max",
    "safe z",
    "serves",
    "once",
    "beyond",
)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    """A fault's row of the table, in the order of the columns."""
    counts = (row[name] for name in ("stage_safe", "serving", "answered_once", "limit_violations"))
    seen_s = (f"{row['detection_s'][name]:.3f}" for name in ("median", "max"))
    status_ms = (f"{row['status_ms'][name]:.0f}" for name in ("p99", "max"))
    return (row["fault"], f"{row['as_promised']}/{row['times']}", *seen_s, *status_ms, *counts)


def _fuzzed(state: Path, messages: int, seed: int) -> dict[str, Any]:
    config = config_of(state)
    with running(config, open_scorer(config)):
        return fuzz(config.server.control, messages, seed)
