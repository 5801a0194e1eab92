"""Lengths have the digits that their uncertainty justifies."""

import math

import pytest

from focusd.rounding import rounded_um, shown_um


@pytest.mark.parametrize(
    ("value_um", "sigma_um", "text"),
    [
        (12.51472259829519, 0.1435, "12.51"),
        (12.5, 0.0312, "12.500"),
        (0.1435, 0.1435, "0.14"),
        (-0.0004, 0.02, "0.000"),
        (24999.98765, 0.1, "24999.99"),
        (1234.5, 130.0, "1230"),
        (12.5, None, "12.5"),
        (200.0, None, "200"),
        (-1.29449, None, "-1.294"),
        (3456.7891, float("nan"), "3456.789"),
        (0.0, 0.0, "0"),
        (math.nan, 0.1, "nan"),
    ],
)
def test_a_length_ends_with_the_second_digit_of_its_sigma_or_a_nanometre(
    value_um: float, sigma_um: float | None, text: str
) -> None:
    assert shown_um(value_um, sigma_um) == text
    assert float(text) == pytest.approx(rounded_um(value_um, sigma_um), nan_ok=True)
