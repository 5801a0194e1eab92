"""`python -m bench invariance`: does b depend on defocus alone? The same textures through other objectives, in other
kinds of light and with other exposures; and empty fields, which must be told from textured ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.synthetic import FIELD_PX, Image, exposures, field_score, held_out_objects, optical_transfers
from focusd.optics.defocus import blurriness
from focusd.optics.imaging import vignette
from focusd.optics.instrument import Instrument
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import load_model

AXIAL_UNITS = np.linspace(-18, 18, 25)
"""Planes, in λ·n/NA² of the reference: ±110 µm."""
EMPTY_FIELDS = 400

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """One way to look at the textures."""

    magnification: float = 10.0
    na: float = 0.3
    light: str = "fluorescence"
    electrons: float = 8000.0

    @property
    def instrument(self) -> Instrument:
        """Objective and a camera of 6.5 µm pixels."""
        return Instrument(magnification=self.magnification, na=self.na)


REFERENCE = Condition()
CONDITIONS = {
    "10×/0.3, fluorescence, 8,000 e⁻": REFERENCE,
    "5×/0.15": replace(REFERENCE, magnification=5.0, na=0.15),
    "20×/0.5": replace(REFERENCE, magnification=20.0, na=0.5),
    "40×/0.75": replace(REFERENCE, magnification=40.0, na=0.75),
    "absorbing": replace(REFERENCE, light="absorbing"),
    "weak contrast": replace(REFERENCE, light="weak"),
    "50,000 e⁻": replace(REFERENCE, electrons=50_000.0),
    "1,000 e⁻": replace(REFERENCE, electrons=1_000.0),
    "200 e⁻": replace(REFERENCE, electrons=200.0),
}


@dataclass(frozen=True)
class Scores:
    """Field scores of one condition, each (textures, planes)."""

    b: Array
    sigma: Array
    structure: Array


def run_invariance(textures: Path | None, count: int, seed: int, json_file: Path | None) -> None:
    """Measure, print the tables, write the JSON."""
    torch.set_num_threads(1)
    objects = held_out_objects(textures, count, seed)
    model = load_model()
    scores = {}
    for name, condition in track(CONDITIONS.items(), description="conditions"):
        scores[name] = _scores(condition, objects, Scorer(model, condition.instrument.sampling))
    rows = {name: _row(score, next(iter(scores.values()))) for name, score in scores.items()}
    empty = _empty_fields(Scorer(model, REFERENCE.instrument.sampling))
    fields = {"empty_found": float((empty < 0.5).mean()), "empty_fields": len(empty)}
    fields["false_alarms"] = float(np.mean([row["called_empty"] for row in rows.values()]))
    _print(rows, fields, len(objects))
    if json_file:
        text = json.dumps({"conditions": rows, "empty": fields}, indent=1)
        json_file.write_text(text + "\n", encoding="utf-8")


def radiance(image: Image, light: str) -> Image:
    """The object in fluorescence on some background, absorbing bright light, or of weak contrast."""
    shown = {"fluorescence": image + 0.05, "absorbing": np.exp(-1.5 * image), "weak": 0.9 + 0.2 * image}
    return np.asarray(shown[light], dtype=np.float32)


def planes_um(instrument: Instrument) -> Array:
    """Where an instrument has the defocus, as Zernike focus, that the reference has at its axial units.

    The paraxial λ·n/NA² is too long a unit at high apertures: by 17 % between NA/n 0.3 and 0.75.
    """
    reference = REFERENCE.instrument
    per_unit = [blurriness(i, i.axial_unit_um) for i in (instrument, reference)]
    return np.asarray(AXIAL_UNITS * instrument.axial_unit_um * per_unit[1] / per_unit[0])


def _scores(condition: Condition, objects: list[Image], scorer: Scorer) -> Scores:
    instrument = condition.instrument
    transfers = optical_transfers(planes_um(instrument), instrument)
    generator = torch.Generator().manual_seed(1)
    rows = []
    for image in objects:
        frames = exposures(radiance(image, condition.light), transfers, condition.electrons, generator)
        rows.append([_field(scorer, frame) for frame in frames])
    return Scores(*np.moveaxis(np.array(rows), -1, 0))


def _field(scorer: Scorer, frame: NDArray[np.uint16]) -> tuple[float, float, float]:
    """b weighted by precision, median σ, and mean probability of structure."""
    measure = scorer.score(frame)
    return field_score(measure), float(np.median(measure.sigma)), float(measure.structure.mean())


def _row(scores: Scores, reference: Scores) -> dict[str, float]:
    """How far the median curve is from the reference's, in shares of its range, and what σ says."""
    curve, expected = np.median(scores.b, 0), np.median(reference.b, 0)
    shift = np.abs(curve - expected) / np.ptp(expected)
    return {
        "largest_shift": float(shift.max()),
        "mean_shift": float(shift.mean()),
        "spread": float(scores.b.std(0).mean() / np.ptp(expected)),
        "median_sigma": float(np.median(scores.sigma)),
        "called_empty": float((scores.structure < 0.5).mean()),
    }


def _empty_fields(scorer: Scorer) -> Array:
    """Mean probability of structure in evenly lit fields with vignetting, at 20 … 50,000 electrons."""
    rng = np.random.default_rng(2)
    generator = torch.Generator().manual_seed(2)
    nothing = torch.ones((1, FIELD_PX, FIELD_PX // 2 + 1))
    values = []
    for _ in range(EMPTY_FIELDS):
        light = vignette((FIELD_PX, FIELD_PX), float(rng.uniform(0, 0.4)), torch.empty(0)).numpy()
        electrons = float(np.exp(rng.uniform(np.log(20), np.log(50_000))))
        frame = next(exposures(light, nothing, electrons, generator))
        values.append(float(scorer.score(frame).structure.mean()))
    return np.array(values)


def _print(rows: dict[str, dict[str, float]], fields: dict[str, float], count: int) -> None:
    table = Table(title=f"b over ±18 axial units, {count} held-out textures; shares of the reference's range")
    table.add_column("condition")
    for column in next(iter(rows.values())):
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.4f}" for value in row.values()))
    console = Console(width=120)
    console.print(table)
    console.print(
        f"{fields['empty_fields']} empty fields: {fields['empty_found']:.2%} found; "
        f"textured fields called empty: {fields['false_alarms']:.2%}"
    )
