"""A graphical program goes on while focusd focuses; needs PySide6, skipped without it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
QtCore: Any = pytest.importorskip("PySide6.QtCore", exc_type=ImportError)

from tests.embedded.owned import attached  # noqa: E402


def test_events_are_processed_while_the_main_thread_waits(tmp_path: Path) -> None:
    app = QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])
    with attached(tmp_path) as bench:
        ticks: list[float] = []
        timer = QtCore.QTimer()
        timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
        timer.start(5)
        began_s = time.perf_counter()
        bench.core.fullFocus()
        took_s = time.perf_counter() - began_s
        timer.stop()
        gaps_s = [b - a for a, b in zip([began_s, *ticks], [*ticks, began_s + took_s], strict=True)]
        print(
            f"fullFocus took {took_s:.3f} s, longest without an event {max(gaps_s):.3f} s, {len(ticks)} events"
        )
        assert len(ticks) > took_s / 0.05
    del app
