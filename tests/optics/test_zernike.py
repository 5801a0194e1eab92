"""Zernike polynomials against Noll's paper and against the definition of an orthonormal basis."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focusd.optics.zernike import COMA_X, COMA_Y, SPHERICAL, noll_to_nm, zernike

Array = NDArray[np.float64]

NOLL = [
    (0, 0),
    (1, 1),
    (1, -1),
    (2, 0),
    (2, -2),
    (2, 2),
    (3, -1),
    (3, 1),
    (3, -3),
    (3, 3),
    (4, 0),
    (4, 2),
    (4, -2),
    (4, 4),
    (4, -4),
    (5, 1),
    (5, -1),
    (5, 3),
    (5, -3),
    (5, 5),
    (5, -5),
    (6, 0),
]
"""(n, m) of j = 1…22, Noll 1976, table I; odd j are the sine terms."""


def test_noll_table() -> None:
    assert [noll_to_nm(j) for j in range(1, len(NOLL) + 1)] == NOLL


def test_index_starts_at_one() -> None:
    with pytest.raises(ValueError, match="starts at 1"):
        noll_to_nm(0)


def test_orthonormal_over_the_disc() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(12)  # exact for these polynomials in t = ρ²
    angles = np.arange(24) * 2 * np.pi / 24
    t, theta = (torch.as_tensor(a.ravel()) for a in np.meshgrid((nodes + 1) / 2, angles, indexing="ij"))
    weight = torch.as_tensor(np.repeat(weights / 2, len(angles)) / len(angles))

    basis = torch.stack([zernike(j, t.sqrt(), theta) for j in range(1, len(NOLL) + 1)])
    gram = (basis * weight) @ basis.T

    assert torch.allclose(gram, torch.eye(len(NOLL), dtype=gram.dtype), atol=1e-12)


@pytest.mark.parametrize(
    ("j", "expected"),
    [
        (4, lambda r, a: np.sqrt(3) * (2 * r**2 - 1)),
        (COMA_Y, lambda r, a: np.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(a)),
        (COMA_X, lambda r, a: np.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(a)),
        (SPHERICAL, lambda r, a: np.sqrt(5) * (6 * r**4 - 6 * r**2 + 1)),
    ],
)
def test_low_orders_in_closed_form(j: int, expected: Callable[[Array, Array], Array]) -> None:
    rho, theta = np.meshgrid(np.linspace(0, 1, 9), np.linspace(-3, 3, 7))
    values = zernike(j, torch.as_tensor(rho), torch.as_tensor(theta)).numpy()
    np.testing.assert_allclose(values, expected(rho, theta), atol=1e-12)
