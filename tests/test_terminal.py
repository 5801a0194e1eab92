"""Ctrl-C ends a command wherever it falls."""

from __future__ import annotations

import subprocess
import sys

FALLS_INTO_A_DESTRUCTOR = """
import signal, time
from focusd.terminal import keep_interrupts

class Closing:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

keep_interrupts()
try:
    Closing()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_ctrl_c_that_falls_into_a_destructor_is_not_lost() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FALLS_INTO_A_DESTRUCTOR], capture_output=True, text=True, timeout=50
    )
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")
