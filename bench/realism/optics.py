"""Transfer functions of a microscope in incoherent light, from the point spread functions of psfmodels.

psfmodels integrates the diffraction of Gibson & Lanni's model, vectorial (Aguet 2009) or scalar, and shares no code
with `focusd.optics`. Its spread is round, so that one line through it, transformed by Hankel's integral, says all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import psfmodels
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import j0

from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

COVER_GLASS_UM, GLASS_INDEX = 170.0, 1.515
WAVELENGTH_UM = 0.55
CAMERA_PIXEL_UM = 6.5

_PER_RESOLUTION = 7
"""Samples of the spread in λ/NA: four are what it needs."""
_RINGS = 10.0
"""In λ/NA, kept around the geometric blur."""
_WIDE = 120.0
"""In λ/NA: the radius within which the light of the whole spread is counted, once an instrument."""
_SCAN_UNITS, _SCAN_STEP_UNITS = 25.0, 0.1
"""Where the best plane is looked for, in λ·n/NA²."""


@dataclass(frozen=True)
class Optics:
    """What makes the image.

    Attributes:
        magnification: from sample to camera.
        immersion_index: of what lies between cover glass and objective.
        working_um: thickness of it by design.
        sample_index: of what surrounds the sample.
        cover_um: by which the cover glass is thicker than the objective was made for.
        depth_um: of the sample below the cover glass.
        is_vectorial: else the scalar model.
        condenser: NA of the light's cone over that of the objective, for absorbing samples in transmitted light;
            None: the sample emits light.
    """

    magnification: float
    na: float
    immersion_index: float = 1.0
    working_um: float = 2000.0
    sample_index: float = 1.45
    wavelength_um: float = WAVELENGTH_UM
    cover_um: float = 0.0
    depth_um: float = 0.0
    is_vectorial: bool = True
    condenser: float | None = None

    @property
    def pixel_um(self) -> float:
        """Pitch of the camera's pixels in the sample."""
        return CAMERA_PIXEL_UM / self.magnification

    @property
    def resolution_um(self) -> float:
        """λ/NA."""
        return self.wavelength_um / self.na

    @property
    def axial_unit_um(self) -> float:
        """λ·n/NA²."""
        return self.wavelength_um * self.immersion_index / self.na**2

    @property
    def cut_off(self) -> float:
        """Highest frequency that an image can hold, per µm."""
        return 2 * self.na / self.wavelength_um

    @property
    def configured(self) -> Instrument:
        """What a user writes into focusd's configuration of it."""
        return Instrument(
            self.magnification, self.na, self.immersion_index, self.wavelength_um, CAMERA_PIXEL_UM
        )


@dataclass(frozen=True)
class Transfer:
    """A round transfer function.

    Attributes:
        values: at 0, `step`, 2·`step` … per µm; 0 beyond.
    """

    values: NDArray[np.float32]
    step: float


def transfer(optics: Optics, defocus_um: float) -> Transfer:
    """Return the transfer function at a distance from the plane of the highest peak."""
    return _transfer(optics, float(defocus_um) + best_plane_um(optics))


@lru_cache(maxsize=2048)
def _transfer(optics: Optics, z_um: float) -> Transfer:
    spacing_um = optics.resolution_um / _PER_RESOLUTION
    radius_um = _blur_um(optics, z_um) + _RINGS * optics.resolution_um
    spread = _spread(optics, z_um, radius_um)
    r_um = spacing_um * np.arange(len(spread), dtype=float)
    count = max(256, math.ceil(16 * radius_um * optics.cut_off))
    frequency = np.linspace(0, optics.cut_off, count + 1)
    values = _hankel(spread, r_um, frequency) / _light(optics)
    values[0], values[-1] = 1.0, 0.0
    return Transfer(values.astype(np.float32), optics.cut_off / count)


def _hankel(spread: Array, r_um: Array, frequency: Array) -> Array:
    """Return 2π ∫ p(r) J₀(2πfr) r dr: a sum, and the ends that Euler and Maclaurin add to it at r = 0."""
    h = r_um[1]
    total = j0(2 * np.pi * frequency[:, None] * r_um) @ (spread * r_um) * h
    curvature = 2 * (spread[1] - spread[0]) / h**2 - spread[0] * (2 * np.pi * frequency) ** 2 / 2
    return np.asarray(2 * np.pi * (total + h**2 / 12 * spread[0] - h**4 / 240 * curvature))


@lru_cache
def _light(optics: Optics) -> float:
    """Return the integral of the spread, which no defocus changes."""
    h = optics.resolution_um / _PER_RESOLUTION
    spread = _spread(optics, best_plane_um(optics), _WIDE * optics.resolution_um)
    within = 2 * np.pi * h**2 * (np.cumsum(spread * np.arange(len(spread))) + spread[0] / 12)
    # What lies beyond a radius goes as its inverse: twice as far out, half as much is missing.
    return float(2 * within[-1] - within[len(within) // 2])


@lru_cache
def best_plane_um(optics: Optics) -> float:
    """Return the z, as psfmodels counts it, at which the spread's centre is brightest."""
    unit_um = optics.axial_unit_um
    scan_um = np.arange(-_SCAN_UNITS, _SCAN_UNITS + _SCAN_STEP_UNITS / 2, _SCAN_STEP_UNITS) * unit_um
    scan_um += optics.depth_um * optics.immersion_index / optics.sample_index
    peak = _planes(optics, scan_um, 3)[:, 1, 1]
    near_um = float(scan_um[peak.argmax()])
    within = (near_um - 0.2 * unit_um, near_um + 0.2 * unit_um)
    found = minimize_scalar(
        lambda z_um: -_planes(optics, np.array([z_um]), 3)[0, 1, 1],
        bounds=within,
        method="bounded",
        options={"xatol": 1e-4 * unit_um},
    )
    return float(found.x)


def _spread(optics: Optics, z_um: float, radius_um: float) -> Array:
    """Return the intensity along a line outwards from the centre."""
    half = math.ceil(radius_um * _PER_RESOLUTION / optics.resolution_um)
    return _planes(optics, np.array([z_um]), 2 * half + 1)[0, half, half:]


def _planes(optics: Optics, z_um: Array, width: int) -> Array:
    planes = psfmodels.make_psf(
        z=z_um.tolist(),
        nx=width,
        dxy=optics.resolution_um / _PER_RESOLUTION,
        pz=optics.depth_um,
        NA=optics.na,
        wvl=optics.wavelength_um,
        ns=optics.sample_index,
        ni=optics.immersion_index,
        ni0=optics.immersion_index,
        tg=COVER_GLASS_UM + optics.cover_um,
        tg0=COVER_GLASS_UM,
        ng=GLASS_INDEX,
        ng0=GLASS_INDEX,
        ti0=optics.working_um,
        oversample_factor=1,
        normalize=False,
        model="vectorial" if optics.is_vectorial else "scalar",
    )
    return np.asarray(planes, float)


def _blur_um(optics: Optics, z_um: float) -> float:
    """Return the radius of the geometric blur."""
    sine = optics.na / optics.immersion_index
    away_um = abs(z_um - best_plane_um(optics)) + 0.5 * abs(optics.cover_um)
    return away_um * sine / math.sqrt(1 - sine**2)
