"""What the documents tell people to type, typed: every command of each, against the daemon that it starts.

A document that starts none is followed with the simulator's, calibrated.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tifffile

from focusd.client.client import CONTROL
from tests.documents import GUIDES, HERE, blocks, name_of, shell_lines
from tests.ways.walk import Walker, end

SIMULATOR = ["focusd", "run", "--config", "configs/simulated-10x.toml"]


def lines_of(document: Path) -> list[list[str]]:
    """The words of all that is typed in the clone."""
    lines = [line.split("#")[0].strip() for line in shell_lines(document) if line.startswith(HERE)]
    return [shlex.split(line.removeprefix(HERE)) for line in lines]


FOLLOWED = [document for document in GUIDES if lines_of(document) or blocks(document, "python")]
PROGRAMS = [(document, code) for document in FOLLOWED for code in blocks(document, "python")]


def hurry(config: Path) -> None:
    """Let a hold check every few seconds, so that nobody waits for minutes until `drift` has what it needs."""
    shipped = config.read_text(encoding="utf-8")
    assert "min_interval_s = 20" in shipped
    assert "max_interval_s = 1800" in shipped
    hurried = shipped.replace("min_interval_s = 20", "min_interval_s = 1")
    config.write_text(hurried.replace("max_interval_s = 1800", "max_interval_s = 3"), encoding="utf-8")


@dataclass
class Follower:
    """Somebody who follows a document, with the daemon running that it starts."""

    walker: Walker
    document: Path

    def type_all(self) -> set[str]:
        """Type every command for a running daemon, in order; returns the commands."""
        done = set()
        for program, command, *arguments in lines_of(self.document):
            if program != "focusctl":
                continue
            done.add(command)
            if command == "monitor":
                self.watch(arguments)
            else:
                self.walker.ctl(command, *arguments)
        return done

    def watch(self, arguments: list[str]) -> None:
        """`monitor`, until it has logged what `drift` needs, ended as a person would."""
        with self.walker.start(
            "focusctl", "monitor", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as monitor:
            assert monitor.stdout
            estimates = (shown for shown in monitor.stdout if " drift " in shown)
            assert len(list(islice(estimates, 2))) == 2, "a rate needs two"
            code, told = end(monitor, signal.SIGINT)
        assert code == 130, told


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    walker = Walker.in_folder(tmp_path_factory.mktemp("clone"))
    hurry(walker.folder / "configs" / "simulated-10x.toml")
    return walker


@pytest.fixture(scope="module")
def follower(request: pytest.FixtureRequest, clone: Walker) -> Iterator[Follower]:
    """Somebody who has typed what comes before the daemon, and has started it."""
    document: Path = request.param
    lines = lines_of(document)
    for program, command, *arguments in lines:
        if (program, command) == ("focusd", "doctor"):
            done = clone.type(program, command, *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
    start = next((line for line in lines if line[:2] == ["focusd", "run"]), SIMULATOR)
    with clone.daemon(*start[1:]) as daemon:
        if not clone.state()["calibration"]["usable"]:
            clone.ctl("calibrate")
        yield Follower(clone, document)
        assert daemon.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("follower", FOLLOWED, indirect=True, ids=name_of)
def test_each_command_is_typed_and_ends_well(follower: Follower) -> None:
    follower.type_all()


def test_all_that_matters_is_typed_somewhere() -> None:
    typed = {line[1] for document in FOLLOWED for line in lines_of(document)}
    assert typed >= {
        "run",
        "doctor",
        "status",
        "calibrate",
        "refocus",
        "hold",
        "release",
        "monitor",
        "drift",
        "map",
    }


LEFT_TO_THE_READER = """
from focusd.client.client import Client

positions = [(0.0, 0.0), (500.0, -300.0)]
focus = Client()

def move_xy(x_um, y_um):
    pass

"""


@pytest.mark.parametrize(
    ("follower", "code"),
    PROGRAMS,
    indirect=["follower"],
    ids=[f"{name_of(document)} {code.splitlines()[0]}" for document, code in PROGRAMS],
)
def test_each_program_runs_as_it_is_printed(follower: Follower, code: str) -> None:
    """With the addresses of this walk; what a document leaves to the reader is given here."""
    walker = follower.walker
    tifffile.imwrite(walker.folder / "frame.tif", np.full((256, 256), 900, np.uint16))
    whole = code if "focusd.client.client" in code or "zmq" in code else LEFT_TO_THE_READER + code
    here = f"Client({walker.control!r}, {walker.events!r}, "
    program = walker.folder / "program.py"
    program.write_text(whole.replace(CONTROL, walker.control).replace("Client(", here), encoding="utf-8")
    done = walker.run([sys.executable, program.name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert "not in focus" not in done.stdout
