"""Which settings the accuracy bench measures, with how many runs and which strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.classical import MEASURES
from bench.setting import Setting

POSTERIOR, PUBLISHED = "posterior", "published"
BRENT = "brent "
"""Before the name of a measure."""

OURS = (POSTERIOR, PUBLISHED)
ALL = (*OURS, *(BRENT + name for name in MEASURES))
MAIN = Setting()
IDEAL = replace(MAIN, optics="ideal")
WARM = replace(MAIN, reach_um=3.0, warm=True)


@dataclass(frozen=True)
class Series:
    """Runs of one setting.

    Attributes:
        runs: each on a texture of its own, or as many as there are.
        bounded: of how many runs the bound is computed.
    """

    setting: Setting
    runs: int
    strategies: tuple[str, ...] = OURS
    bounded: int = 0


@dataclass(frozen=True)
class Plan:
    """All series, and after how many images they are judged."""

    series: tuple[Series, ...]
    images: tuple[int, ...]
    released: int


FULL = Plan(
    (
        Series(MAIN, 100, ALL, 50),
        Series(IDEAL, 100, OURS, 50),
        Series(replace(MAIN, reach_um=100.0), 100, OURS, 20),
        Series(replace(IDEAL, reach_um=100.0), 100, (POSTERIOR,), 20),
        Series(replace(MAIN, electrons=1000.0), 50, OURS, 20),
        Series(replace(MAIN, electrons=200.0), 50, OURS, 20),
        Series(replace(MAIN, objective="20x/0.5"), 40, OURS, 10),
        Series(replace(MAIN, objective="40x/0.75"), 40, OURS, 10),
        Series(replace(MAIN, objective="60x/1.4 oil"), 40, OURS, 10),
        Series(replace(MAIN, scene="tilted"), 40, OURS),
        Series(replace(MAIN, scene="sparse"), 40, OURS, 20),
        Series(replace(MAIN, scene="empty"), 40, OURS),
        Series(WARM, 100, (POSTERIOR,)),
    ),
    (2, 3, 4, 5, 6, 8, 10),
    50,
)
QUICK = Plan(
    (
        Series(MAIN, 24, (*OURS, BRENT + "tenengrad"), 12),
        Series(IDEAL, 24, OURS, 12),
        Series(replace(MAIN, reach_um=100.0), 16, (POSTERIOR,)),
        Series(replace(MAIN, scene="empty"), 4, (POSTERIOR,)),
        Series(WARM, 16, (POSTERIOR,)),
    ),
    (2, 3, 4, 5),
    8,
)
