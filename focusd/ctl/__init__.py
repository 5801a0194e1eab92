"""`focusctl`: look at a running focusd, calibrate, refocus, hold, cancel and monitor from a terminal.

Exit codes: 0 done, 1 an error (one line that says what to do), 2 wrong usage, 130 Ctrl-C (which cancels the
job that the command has started).
"""

from focusd.ctl.commands import app, main

__all__ = ["app", "main"]
