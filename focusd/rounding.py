"""Lengths for people: no more digits than their standard uncertainty justifies."""

from __future__ import annotations

import math

NANOMETRE = 3
"""Decimals of a length in µm whose uncertainty is not known: no stage resolves more."""


def rounded_um(value_um: float, sigma_um: float | None = None) -> float:
    """Round a length in µm to the second digit of its standard uncertainty, or to a nanometre."""
    return round(value_um, _decimals(sigma_um)) if math.isfinite(value_um) else value_um


def shown_um(value_um: float, sigma_um: float | None = None) -> str:
    """The rounded length as text; a zero at its end is written where it is a known digit."""
    text = f"{rounded_um(value_um, sigma_um) + 0.0:.{max(_decimals(sigma_um), 0)}f}"  # no negative zero
    return text if _is_known(sigma_um) else text.rstrip("0").rstrip(".")


def _decimals(sigma_um: float | None) -> int:
    """How many decimals count; negative where not even the last digits before the point do."""
    return 1 - math.floor(math.log10(sigma_um)) if sigma_um and _is_known(sigma_um) else NANOMETRE


def _is_known(sigma_um: float | None) -> bool:
    return sigma_um is not None and math.isfinite(sigma_um) and sigma_um > 0
