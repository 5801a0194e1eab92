"""Which planes a calibration stack has, and which it may have: what can be refused before light is spent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from focusd.errors import RequestError
from focusd.optics.instrument import Instrument

STACK_UNITS = 16.0
"""Half of what a stack spans, in λ·n/NA²: ±98 µm at 10×/0.3. Further out the score tells no more."""
STEP_UNITS = 0.64
"""Between its planes: 3.9 µm at 10×/0.3, 51 planes. Twice as many tell nothing more, half as many are less sure."""
UNKNOWN_UNIT_UM = 6.1
"""Of an objective whose NA nobody stated: as of a 10×/0.3."""
MIN_PLANES, MOST_PLANES = 7, 1001
LEAST_UNITS = 5.0
"""What a stack spans at least, in λ·n/NA²: 31 µm at 10×/0.3. In simulated stacks that span 3 units and more the origin
is found to 0.01 units, but over 3 units the score rises by 0.11 only, which is little more than its noise."""
WIDEST_GAP_UNITS = 2.0
"""Between neighbouring planes: of 1.6 units, 21 planes still focus most samples; of 3.2 units hardly any."""
PROBE_UNITS = (0.0, 1.0, 2.0, -1.0, -2.0)
"""Where a stack is looked at before it is taken: an empty field shows nothing at any of them."""


def stack_um(instrument: Instrument | None) -> tuple[float, float]:
    """Half the extent and the distance of the planes of a stack that tells all that a search may ask for, µm."""
    unit_um = instrument.axial_unit_um if instrument else UNKNOWN_UNIT_UM
    return _rounded(STACK_UNITS * unit_um), _rounded(STEP_UNITS * unit_um)


def _rounded(value: float) -> float:
    """To two digits, as a person would set it."""
    return float(f"{value:.2g}")


def check_planes(planes_um: Sequence[float], instrument: Instrument | None) -> list[float]:
    """The planes of a stack in ascending order.

    Args:
        planes_um: in any order.
        instrument: None: its optics are not known, and neither is what they need.

    Raises:
        RequestError: no calibration can come of them; the message says which range would do.
    """
    z_um = np.sort(np.asarray(planes_um, dtype=float))
    if not np.isfinite(z_um).all():
        raise RequestError("a plane is not a number: give each plane as a finite z in µm")
    if not MIN_PLANES <= len(z_um) <= MOST_PLANES:
        raise RequestError(
            f"{len(z_um)} planes make no calibration stack; take {MIN_PLANES} to {MOST_PLANES} planes"
            + _usual(instrument)
        )
    gaps_um = np.diff(z_um)
    if not gaps_um.min() > 0:
        twice_um = z_um[np.argmin(gaps_um)]
        raise RequestError(f"the plane at {twice_um:g} µm is given twice: give each plane once")
    if instrument is not None:
        _refuse_unfit(float(np.ptp(z_um)), float(gaps_um.max()), instrument)
    return [float(z) for z in z_um]


def _refuse_unfit(extent_um: float, widest_um: float, instrument: Instrument) -> None:
    """Refuse planes that are too close together, or too far apart, for the optics."""
    least_um, most_um = (
        units * instrument.axial_unit_um * (1 - sign * 1e-6)  # planes that were rounded still fit
        for units, sign in ((LEAST_UNITS, 1), (WIDEST_GAP_UNITS, -1))
    )
    if extent_um < least_um:
        raise RequestError(
            f"the planes span {extent_um:.3g} µm, which is too little for this objective: "
            f"a range of ±{least_um / 2:.3g} µm is the least" + _usual(instrument)
        )
    if widest_um > most_um:
        raise RequestError(
            f"neighbouring planes lie up to {widest_um:.3g} µm apart, which is too far for this objective: "
            f"steps of {most_um:.3g} µm are the most" + _usual(instrument)
        )


def _usual(instrument: Instrument | None) -> str:
    if instrument is None:
        return ""
    range_um, step_um = stack_um(instrument)
    return f", ±{range_um:g} µm in steps of {step_um:g} µm is usual"


def probes_um(planes_um: Sequence[float], start_um: float, instrument: Instrument | None) -> list[float]:
    """Where to look for structure before a stack is taken: around the start, where a person has focused by eye.

    Args:
        planes_um: ascending.
        start_um: where the stage stands; if it stands outside the planes, their middle is meant.
        instrument: None: a sixteenth of half the stack counts as an axial unit.
    """
    low_um, high_um = planes_um[0], planes_um[-1]
    centre_um = start_um if low_um <= start_um <= high_um else (low_um + high_um) / 2
    unit_um = instrument.axial_unit_um if instrument else (high_um - low_um) / (2 * STACK_UNITS)
    wanted_um = (centre_um + units * unit_um for units in PROBE_UNITS)
    return [float(np.clip(z_um, low_um, high_um)) for z_um in wanted_um]
