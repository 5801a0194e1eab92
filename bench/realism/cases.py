"""The cases: what a rig is calibrated with, and with what it is searched, each fault alone and some together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bench.realism.camera import Camera
from bench.realism.optics import Optics
from bench.realism.rig import Conditions
from bench.realism.samples import Sample
from bench.realism.stage import Mechanics

OBJECTIVES = {
    "10x/0.3": Optics(10.0, 0.3),
    "20x/0.5": Optics(20.0, 0.5),
    "20x/0.75": Optics(20.0, 0.75, working_um=600.0),
    "40x/0.95": Optics(40.0, 0.95, working_um=200.0),
    "63x/1.4 oil": Optics(63.0, 1.4, immersion_index=1.515, working_um=140.0, sample_index=1.515),
}
USUAL = "10x/0.3"
GROUPS = ("as calibrated", "camera", "optics changed", "mechanics", "thick", "calibration", "combined")


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        group: one of `GROUPS`.
        calibrated, searched: conditions of either.
        planes: of the calibration's stack; None: as the product takes it by itself.
        is_quick: whether it belongs to a short run.
    """

    name: str
    group: str
    calibrated: Conditions
    searched: Conditions
    planes: int | None = None
    is_quick: bool = False


def all_cases(rng: np.random.Generator, *, is_tuning: bool) -> list[Case]:
    """Return all cases; for tuning with other sizes of the faults, and other combinations."""
    size = 0.8 if is_tuning else 1.0
    return [
        *_as_calibrated(),
        *_cameras(size),
        *_optics(size),
        *_mechanics(size),
        *_thick(size),
        *_calibrations(),
        *_combined(rng, size),
    ]


def _plain(objective: str = USUAL) -> Conditions:
    return Conditions(OBJECTIVES[objective])


def _as_calibrated() -> Iterator[Case]:
    for name in OBJECTIVES:
        yield Case(name, "as calibrated", _plain(name), _plain(name), is_quick=name == USUAL)
    light = replace(_plain(), optics=replace(OBJECTIVES[USUAL], condenser=0.7))
    yield Case("partly coherent light", "as calibrated", light, light)
    scalar = replace(_plain(), optics=replace(OBJECTIVES[USUAL], is_vectorial=False))
    yield Case("scalar model", "as calibrated", scalar, scalar)


def _cameras(size: float) -> Iterator[Case]:
    quick = ("bilinear green", "30 specks")
    for name, camera in _camera_faults(size).items():
        conditions = replace(_plain(), camera=camera)
        yield Case(name, "camera", conditions, conditions, is_quick=name in quick)
    for name, colour, channel in (("coloured sample, raw", "raw", ""), ("coloured sample", "malvar", "all")):
        conditions = replace(_plain(), camera=Camera(colour=colour, channel=channel), coloured=True)
        yield Case(name, "camera", conditions, conditions)
    faint = replace(_plain(), camera=Camera(dirt=0.003), sample=Sample(contrast=0.04, background=0.0))
    yield Case("4 % contrast, faint dust", "camera", faint, faint)


def _camera_faults(size: float) -> dict[str, Camera]:
    return {
        "bilinear green": Camera(colour="bilinear", channel="green"),
        "bilinear grey": Camera(colour="bilinear", channel="grey"),
        "Malvar green, 8 bit": Camera(colour="malvar", channel="green", bits=8),
        "colour frames": Camera(colour="malvar", channel="all", bits=8),
        "raw mosaic": Camera(colour="raw"),
        "raw mosaic, 1,000 electrons": Camera(colour="raw", electrons=1000.0),
        "JPEG 90": Camera(bits=8, jpeg=90),
        "JPEG 75": Camera(bits=8, jpeg=75),
        "gamma, JPEG 75": Camera(bits=8, jpeg=75, gamma=0.5),
        "smoothed 0.4 px": Camera(smooth_px=0.4 * size),
        "smoothed 0.6 px": Camera(smooth_px=0.6 * size),
        "median 3×3": Camera(median=3),
        "sharpened": Camera(sharpen=1.0 * size),
        "gamma 0.5, 8 bit": Camera(gamma=0.5, bits=8),
        "fixed pattern 2 %": Camera(pattern=0.02 * size),
        "30 specks": Camera(specks=30, speck_depth=0.3 * size),
        "heavy dust": Camera(specks=120, speck_depth=0.5 * size, dirt=0.01),
        "hot pixels": Camera(hot=60),
        "bands": Camera(bands=0.02 * size),
        "moving shading": Camera(shading=0.3 * size),
    }


def _optics(size: float) -> Iterator[Case]:
    usual = OBJECTIVES[USUAL]
    changed = {
        "NA −10 %": replace(usual, na=usual.na * (1 - 0.1 * size)),
        "NA −7 %": replace(usual, na=usual.na * (1 - 0.07 * size)),
        "NA +10 %": replace(usual, na=usual.na * (1 + 0.1 * size)),
        "λ −20 %": replace(usual, wavelength_um=usual.wavelength_um * (1 - 0.2 * size)),
        "λ +20 %": replace(usual, wavelength_um=usual.wavelength_um * (1 + 0.2 * size)),
    }
    for name, optics in changed.items():
        yield Case(name, "optics changed", _plain(), Conditions(optics), is_quick=name == "NA −7 %")
    light = replace(usual, condenser=0.7)
    for condenser in (0.5, 0.6, 0.8, 0.9):
        now = replace(light, condenser=0.7 + size * (condenser - 0.7))
        yield Case(f"condenser {condenser} after 0.7", "optics changed", Conditions(light), Conditions(now))
    dry = OBJECTIVES["40x/0.95"]
    for cover_um in (-20.0, 20.0):
        now = replace(OBJECTIVES["20x/0.5"], cover_um=size * cover_um)
        yield Case(
            f"20x/0.5, cover glass {cover_um:+.0f} µm", "optics changed", _plain("20x/0.5"), Conditions(now)
        )
        now = replace(dry, cover_um=0.25 * size * cover_um)
        name = f"40x/0.95, cover glass {cover_um / 4:+.0f} µm"
        yield Case(name, "optics changed", _plain("40x/0.95"), Conditions(now))


def _mechanics(size: float) -> Iterator[Case]:
    faults = {
        "vibration 3 px": Mechanics(vibration_px=3 * size, smear_px=1.5 * size),
        "z shakes 0.3 µm": Mechanics(shake_um=0.3 * size),
        "jitter 0.3 µm": Mechanics(jitter_um=0.3 * size),
        "backlash 1 µm": Mechanics(backlash_um=1.0 * size),
        "tilt 10 µm": Mechanics(tilt_um=10 * size),
        "bowl 8 µm": Mechanics(bowl_um=8 * size),
        "drift 0.05 µm an exposure": Mechanics(drift_um=0.05 * size),
    }
    for name, mechanics in faults.items():
        now = replace(_plain(), mechanics=mechanics)
        yield Case(f"{name}, calibration", "mechanics", now, _plain())
        yield Case(f"{name}, search", "mechanics", _plain(), now)
        yield Case(f"{name}, both", "mechanics", now, now, is_quick=name == "vibration 3 px")
    for scale in (0.93, 1.07):
        now = replace(_plain(), mechanics=Mechanics(scale=1 + size * (scale - 1)))
        yield Case(f"scale {scale}, search", "mechanics", _plain(), now)
        yield Case(f"scale {scale}, calibration", "mechanics", now, _plain())


def _thick(size: float) -> Iterator[Case]:
    for depth in (0.5, 1.0, 2.0, 3.0, 5.0):
        now = replace(_plain(), sample=Sample(depth_dof=depth * size))
        yield Case(f"slab of {depth:g} DOF", "thick", _plain(), now, is_quick=depth == 1.0)
    for depth in (1.0, 3.0):
        now = replace(_plain(), sample=Sample(kind="beads", depth_dof=depth * size))
        yield Case(f"beads over {depth:g} DOF", "thick", _plain(), now)
    two = replace(_plain(), sample=Sample(depth_dof=1.5 * size, layers=2))
    yield Case("two layers, 1.5 DOF apart", "thick", _plain(), two)


def _calibrations() -> Iterator[Case]:
    for planes in (21, 51, 99):
        yield Case(f"{planes} planes", "calibration", _plain(), _plain(), planes, is_quick=planes == 21)
    beads = replace(_plain(), sample=Sample(kind="beads"))
    yield Case("calibrated on beads", "calibration", beads, _plain())
    yield Case("beads", "calibration", _plain(), beads)
    dim = replace(_plain(), camera=Camera(electrons=300.0))
    yield Case("300 electrons", "calibration", dim, dim)
    yield Case("300 electrons, search", "calibration", _plain(), dim)


def _combined(rng: np.random.Generator, size: float) -> Iterator[Case]:
    """Two to four faults at a time, drawn at random: some of the rig for good, some of the search alone."""
    cameras = list(_camera_faults(size).items())
    for number in range(8):
        name, camera = cameras[int(rng.integers(len(cameras)))]
        rig, told = replace(_plain(), camera=camera), [name]
        if rng.random() < 0.5:
            backlash_um = float(rng.uniform(0.2, 1.0))
            rig = replace(rig, mechanics=replace(rig.mechanics, backlash_um=backlash_um))
            told.append(f"backlash {backlash_um:.1f}")
        if rng.random() < 0.5:
            smear_px = float(rng.uniform(0.3, 1.5))
            rig = replace(rig, mechanics=replace(rig.mechanics, smear_px=smear_px))
            told.append(f"smear {smear_px:.1f}")
        now = rig
        if rng.random() < 0.5:
            change = float(rng.uniform(-0.07, 0.07))
            now = replace(now, optics=replace(now.optics, na=now.optics.na * (1 + change)))
            told.append(f"NA {change:+.0%}")
        if rng.random() < 0.5 or now is rig:
            depth = float(rng.uniform(0.3, 2.0))
            now = replace(now, sample=Sample(depth_dof=depth))
            told.append(f"slab {depth:.1f}")
        yield Case(", ".join(told), "combined", rig, now, is_quick=number == 0)
