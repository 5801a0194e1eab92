"""Bounded Brent search on a sharpness: what users run today, its exposures counted."""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import minimize_scalar


def brent(sharpness: Callable[[float], float], limits_um: tuple[float, float], exposures: int) -> list[float]:
    """The sharpest z so far after each exposure.

    Args:
        sharpness: exposes at a z; larger is sharper.
        limits_um: the search's; the focus should lie between.
        exposures: at most, two or more; a search that ends sooner keeps its answer.
    """
    seen: list[tuple[float, float]] = []

    def cost(z_um: float) -> float:
        seen.append((-sharpness(float(z_um)), float(z_um)))
        return seen[-1][0]

    minimize_scalar(cost, bounds=limits_um, method="bounded", options={"maxiter": exposures, "xatol": 1e-3})
    best = [min(seen[: n + 1])[1] for n in range(len(seen))]
    return best + [best[-1]] * (exposures - len(best))
