"""What the documents tell people to type, typed: every command of each, against the daemon that it starts.

Documents that start the same daemon are followed one after the other; one that starts none, with the simulator's.
"""

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
from tests.documents import GUIDES, HERE, blocks, name_of, shell_lines
from tests.ways.walk import Walker, end

SIMULATOR = "configs/simulated-10x.toml"


def lines_of(document: Path) -> list[list[str]]:
    """The words of all that is typed in the clone."""
    lines = [line.split("#")[0].strip() for line in shell_lines(document) if line.startswith(HERE)]
    return [shlex.split(line.removeprefix(HERE)) for line in lines]


def started_by(document: Path) -> str:
    """The configuration of the daemon that a document starts, or else the simulator's."""
    starts = [words[-1] for words in lines_of(document) if words[:2] == ["focusd", "run"]]
    return starts[0] if starts else SIMULATOR


FOLLOWED = sorted((each for each in GUIDES if lines_of(each) or blocks(each, "python")), key=started_by)
PROGRAMS = [(document, code) for document in FOLLOWED for code in blocks(document, "python")]


def hurry(config: Path) -> None:
    """Let a hold check every few seconds, so that nobody waits for minutes until `drift` has what it needs."""
    shipped = config.read_text(encoding="utf-8")
    assert "min_interval_s = 20" in shipped
    assert "max_interval_s = 1800" in shipped
    hurried = shipped.replace("min_interval_s = 20", "min_interval_s = 1")
    config.write_text(hurried.replace("max_interval_s = 1800", "max_interval_s = 3"), encoding="utf-8")


def type_all(walker: Walker, document: Path) -> None:
    """Type every command for a running daemon, in order."""
    for program, command, *arguments in lines_of(document):
        if program != "focusctl":
            continue
        if command == "monitor":
            watch(walker, arguments)
        else:
            walker.ctl(command, *arguments)
        left = [word for word in arguments if Path(word).suffix in (".png", ".jsonl")]
        assert [word for word in left if not (walker.folder / word).is_file()] == []


def watch(walker: Walker, arguments: list[str]) -> None:
    """`monitor`, until it has logged what `drift` needs, ended as a person would."""
    with walker.start(
        "focusctl", "monitor", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as monitor:
        assert monitor.stdout
        estimates = (shown for shown in monitor.stdout if " drift " in shown)
        assert len(list(islice(estimates, 2))) == 2, "a rate needs two"
        code, told = end(monitor, signal.SIGINT)
    assert code == 130, told


@pytest.fixture(scope="module")
def walker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    """Somebody in a clone, with the daemon of a configuration running, calibrated."""
    config: str = request.param
    walker = Walker.in_folder(tmp_path_factory.mktemp("clone"))
    hurry(walker.folder / SIMULATOR)
    with walker.daemon("run", "--config", config) as daemon:
        walker.ctl("calibrate")
        yield walker
        assert daemon.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("walker", "document"),
    [(started_by(document), document) for document in FOLLOWED],
    indirect=["walker"],
    ids=map(name_of, FOLLOWED),
)
def test_each_command_is_typed_and_ends_well(walker: Walker, document: Path) -> None:
    """`focusd doctor` is typed for each configuration by test_shipped_configs."""
    type_all(walker, document)


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
from focusd import Client

positions = [(0.0, 0.0), (500.0, -300.0)]
focus = Client()

def move_xy(x_um, y_um):
    pass

"""


@pytest.mark.parametrize(
    ("walker", "code"),
    [(started_by(document), code) for document, code in PROGRAMS],
    indirect=["walker"],
    ids=[f"{name_of(document)} {code.splitlines()[0]}" for document, code in PROGRAMS],
)
def test_each_program_runs_as_it_is_printed(walker: Walker, code: str) -> None:
    """With the addresses of this walk; what a document leaves to the reader is given here."""
    tifffile.imwrite(walker.folder / "frame.tif", np.full((256, 256), 900, np.uint16))
    whole = code if "import" in code else LEFT_TO_THE_READER + code
    here = f"Client({walker.control!r}, {walker.events!r}, "
    program = walker.folder / "program.py"
    program.write_text(whole.replace(CONTROL, walker.control).replace("Client(", here), encoding="utf-8")
    done = walker.run([sys.executable, program.name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert "not in focus" not in done.stdout
