"""A few random configurations calibrate and refocus; and what would break the promise is seen."""

from __future__ import annotations

import anyio
import pytest

from bench.faults import walks
from bench.faults.walks import walk_all
from focusd.daemon.operations import RigOperations
from focusd.errors import HardwareError


def test_whatever_is_configured_the_operations_end_and_say_how() -> None:
    walked = walk_all(f"5 {number}" for number in range(6))
    assert walked.kept, walked.figures()
    assert walked.walks == 6
    assert set(walked.endings) >= {"move", "calibrate", "refocus"}


@pytest.mark.parametrize("broken", ["hung", "untyped", "unsaid"])
def test_an_operation_that_breaks_the_promise_is_found(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    async def breaks(*_: object, **__: object) -> None:
        if broken == "hung":
            await anyio.sleep_forever()
        raise ZeroDivisionError if broken == "untyped" else HardwareError("no power")

    monkeypatch.setattr(walks, "HANG_S", 0.05)
    monkeypatch.setattr(RigOperations, "calibrate", breaks)
    walked = walk_all(["5 0"])
    assert not walked.kept
    assert len(getattr(walked, broken)) >= 1
