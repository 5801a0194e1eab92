"""What a process of a bench does first."""

from __future__ import annotations

import os
from contextlib import redirect_stderr
from pathlib import Path
from typing import Literal

import torch

from focusd.config import LogConfig
from focusd.daemon.logs import configure_logging


def be_quiet(level: Literal["warning", "error"]) -> None:
    """Compute on one core, and log to subscribers alone."""
    torch.set_num_threads(1)
    with redirect_stderr(Path(os.devnull).open("w")):
        configure_logging(LogConfig(level=level))
