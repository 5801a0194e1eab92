"""What runs tell of the scale of z counts for the next one."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.focus.axis import OPTICS
from focusd.focus.scale import REMEMBERED, TELLING, USUAL, Scale, ScaleMemory


def memory(*told: Scale) -> ScaleMemory:
    found = ScaleMemory()
    for scale in told:
        found.learn(scale)
    return found


def spread(memory: ScaleMemory) -> float:
    chances = memory.prior().chances(OPTICS)
    mean = float((chances * OPTICS).sum())
    return float(np.sqrt((chances * (OPTICS - mean) ** 2).sum()))


def test_before_any_run_the_scale_may_be_some_percent_off() -> None:
    assert memory().prior().learnt.value == 1.0
    assert spread(memory()) == pytest.approx(USUAL, rel=0.2)


def test_runs_that_agree_make_the_scale_sure_little_by_little() -> None:
    told = [Scale(0.93, 0.01)] * 8
    spreads = [spread(memory(*told[:count])) for count in (0, 1, 3, 8)]
    assert spreads == sorted(spreads, reverse=True)
    assert memory(*told).prior().learnt.value == pytest.approx(0.93)


def test_runs_that_disagree_leave_it_open() -> None:
    agreeing, others = memory(*[Scale(1.0, 0.01)] * 6), memory(*[Scale(0.94, 0.01), Scale(1.06, 0.01)] * 3)
    assert spread(others) > 2 * spread(agreeing)


def test_a_run_that_did_not_tell_it_is_not_counted() -> None:
    assert memory(Scale(0.8, 2 * TELLING)).prior() == memory().prior()


def test_optics_that_were_changed_are_forgotten_in_the_end() -> None:
    found = memory(*[Scale(0.9, 0.01)] * REMEMBERED, *[Scale(1.05, 0.01)] * REMEMBERED)
    assert found.prior().learnt.value == pytest.approx(1.05)


@pytest.mark.parametrize("told", [(), (Scale(1.0, 0.01),), (Scale(0.9, 0.005),) * 5])
def test_every_scale_stays_possible(told: tuple[Scale, ...]) -> None:
    chances = memory(*told).prior().chances(OPTICS)
    assert chances.sum() == pytest.approx(1.0)
    assert (chances > 1e-4).all()
