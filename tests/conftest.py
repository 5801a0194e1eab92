"""What all tests share."""

import signal
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# A shell that runs the tests in the background has them, and every program that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` has them ignore the end of the terminal.
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says how busy the machine is, and nothing of focusd.
settings.register_profile("focusd", deadline=None)
settings.load_profile("focusd")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for one another on a busy machine; who sets their number leaves it so to others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
