"""What README tells people to type, typed: every command, one after the other, against the daemon that it starts."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tifffile

from focusd.addresses import CONTROL
from tests.test_readme import blocks, shell_lines
from tests.ways.walk import Walker, end

HERE = ".venv/bin/"
LINES = [line.split("#")[0].strip() for line in shell_lines() if line.startswith(HERE)]
"""All that is typed in the clone; what begins with /opt or sudo is for a service."""
COMMANDS = [line for line in LINES if line.startswith(f"{HERE}focusctl")]


def words(line: str) -> list[str]:
    program, *arguments = shlex.split(line.removeprefix(HERE))
    return [program, *arguments]


def hurry(config: Path) -> None:
    """Let a hold check every few seconds, so that nobody waits for minutes until `drift` has what it needs."""
    shipped = config.read_text(encoding="utf-8")
    assert "min_interval_s = 20" in shipped
    assert "max_interval_s = 1800" in shipped
    hurried = shipped.replace("min_interval_s = 20", "min_interval_s = 1")
    config.write_text(hurried.replace("max_interval_s = 1800", "max_interval_s = 3"), encoding="utf-8")


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    """Somebody who has started the daemon as README says, and calibrated."""
    walker = Walker.in_folder(tmp_path_factory.mktemp("clone"))
    hurry(walker.folder / "configs" / "simulated-10x.toml")
    start = next(line for line in LINES if line.startswith(f"{HERE}focusd run"))
    with walker.daemon(*words(start)[1:]) as daemon:
        for line in COMMANDS[: COMMANDS.index(f"{HERE}focusctl calibrate") + 1]:
            walker.ctl(*words(line)[1:])
        yield walker
        assert daemon.end(signal.SIGTERM) == 0


def test_each_command_is_typed_and_ends_well(walker: Walker) -> None:
    """`monitor` is followed until it has logged what `drift` needs, and ended as a person would."""
    typed = set()
    for line in COMMANDS:
        program, command, *arguments = words(line)
        typed.add(command)
        if command != "monitor":
            walker.ctl(command, *arguments)
            continue
        with walker.start(
            program, command, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as monitor:
            assert monitor.stdout
            estimates = (shown for shown in monitor.stdout if " drift " in shown)
            assert len(list(islice(estimates, 2))) == 2, "a rate needs two"
            code, told = end(monitor, signal.SIGINT)
        assert code == 130, told
        walker.ctl("release")
    assert typed >= {"status", "calibrate", "refocus", "hold", "monitor", "drift"}
    assert {path.name for path in walker.folder.iterdir()} >= {"events.jsonl", "drift.png", "field.png"}


LEFT_TO_THE_READER = """
from focusd.client import Client

positions = [(0.0, 0.0), (500.0, -300.0)]
focus = Client()

def move_xy(x_um, y_um):
    pass

"""


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_each_program_runs_as_it_is_printed(walker: Walker, code: str) -> None:
    """With the addresses of this walk; what README leaves to the reader is given here."""
    tifffile.imwrite(walker.folder / "frame.tif", np.full((256, 256), 900, np.uint16))
    whole = code if "focusd.client" in code or "zmq" in code else LEFT_TO_THE_READER + code
    here = f"Client({walker.control!r}, {walker.events!r}, "
    program = walker.folder / "program.py"
    program.write_text(whole.replace(CONTROL, walker.control).replace("Client(", here), encoding="utf-8")
    done = walker.run([sys.executable, program.name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
