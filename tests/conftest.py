"""What all tests share."""

import logging
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

DEMO_DEVICES = ("tests/ways/", "tests/doctor/", "tests/bench/test_attacks.py")
"""Where Micro-Manager's demo devices are driven as by a daemon, which one process of a machine may do at a time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one worker of `pytest --numprocesses` what a module holds, and all that claim the same devices."""
    for item in items:
        module = item.nodeid.split("::")[0]
        group = "demo devices" if module.startswith(DEMO_DEVICES) else module
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="module", autouse=True)
def process_as_before() -> Iterator[None]:
    """Each module begins with one thread of torch, and leaves to others what it sets for the whole process.

    Several threads only wait for one another on a busy machine. Importing pymmcore-plus lowers the root logger's level.
    """
    threads, level = torch.get_num_threads(), logging.getLogger().level
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    logging.getLogger().setLevel(level)
