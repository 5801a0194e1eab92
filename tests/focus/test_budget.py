"""What a refocus may spend."""

import pytest

from focusd.errors import BudgetError
from focusd.focus.budget import Budget


def test_a_budget_that_holds_one_more_says_nothing() -> None:
    Budget(8, 10.0, 80.0).check(7, 9.9, 10.0, 70.0)
    Budget(8).check(7, 1e9, 1e9, 1e9)


@pytest.mark.parametrize(
    ("budget", "spent", "message"),
    [
        (Budget(8), (8, 0.0, 10.0, 80.0), "8 exposures do not tell"),
        (Budget(8, seconds=5.0), (3, 5.0, 10.0, 30.0), r"after 5\.0 s and 3 exposures"),
        (
            Budget(8, dose_ms=30.0),
            (3, 0.0, 10.0, 30.0),
            "one more exposure of 10 ms would exceed the dose of 30 ms",
        ),
    ],
)
def test_a_spent_budget_refuses(budget: Budget, spent: tuple[int, float, float, float], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        budget.check(*spent)
