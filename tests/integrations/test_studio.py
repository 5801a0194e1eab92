"""integrations/micro-manager/focusd.bsh in a JVM, against stubs of Studio's interfaces and focusd's simulator."""

from __future__ import annotations

import re
import shutil
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from focusd.demo.rigs import free_ports
from focusd.microscope.simulated import SimulatedMicroscope
from tests.integrations.rig import FOCUS_UM, INTEGRATIONS, TENTH_UM, asked_daemon, own_microscope

STUBS = Path(__file__).parent / "studio"
SCRIPT = INTEGRATIONS / "micro-manager" / "focusd.bsh"
JARS = [Path("/usr/share/java") / name for name in ("bsh.jar", "jeromq.jar")]
BEFORE = "20.0 Cy5 false true 0"
"""Exposure, channel, autoshutter, shutter open, suspensions of live mode, as the stub of the core begins."""

missing = [str(jar) for jar in JARS if not jar.is_file()]
missing += [program for program in ("java", "javac") if not shutil.which(program)]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f"needs default-jdk-headless, libbsh-java and libjeromq-java: {', '.join(missing)} missing",
)


class Answers(socketserver.StreamRequestHandler):
    """Camera and stage, as the core of the stub asks for them."""

    def handle(self) -> None:
        rig = cast(MicroscopeServer, self.server).rig
        for line in self.rfile:
            command, *arguments = line.decode().split()
            rig.asked.append((command, *arguments))
            if command in rig.broken:
                told = f"the {command} failed".encode()
                self.wfile.write(struct.pack(">?H", False, len(told)) + told)
                continue
            if command == "move":
                rig.microscope.move_to(float(arguments[0]))
            self.wfile.write(struct.pack(">?d", True, rig.microscope.position_um()))
            if command == "snap":
                pixels = rig.microscope.snap().pixels
                self.wfile.write(struct.pack(">ii", *pixels.shape) + pixels.astype(">u2").tobytes())


class MicroscopeServer(socketserver.TCPServer):
    """Serves one core."""

    rig: Rig


@dataclass
class Rig:
    """What the core has: the microscope, what it was asked, what fails."""

    microscope: SimulatedMicroscope
    asked: list[tuple[str, ...]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    @property
    def moves_um(self) -> list[float]:
        """Where the stage was sent."""
        return [float(words[1]) for words in self.asked if words[0] == "move"]

    @property
    def snaps(self) -> list[tuple[str, ...]]:
        """(exposure, channel, autoshutter) of each exposure."""
        return [words[1:] for words in self.asked if words[0] == "snap"]


@dataclass
class Studio:
    """A running stub of Studio that has run the script."""

    process: subprocess.Popen[str]
    rig: Rig

    def do(self, *words: str) -> str:
        """What the autofocus method answers."""
        outcome, answer = self._told(words)
        assert outcome == "ok", answer
        return answer

    def fails(self, *words: str) -> str:
        """The message of the exception."""
        outcome, answer = self._told(words)
        assert outcome == "error", answer
        return answer

    def _told(self, words: tuple[str, ...]) -> tuple[str, str]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        outcome, _, answer = self.process.stdout.readline().rstrip("\n").partition("\t")
        return outcome, answer

    def begin(self, z_um: float, **settings: str) -> None:
        """Stand at a z, with the settings that work but for these."""
        self.rig.broken.clear()
        self.rig.microscope.move_to(z_um)
        self.rig.asked.clear()
        whole = {"lowest_um": "-150", "highest_um": "150", "channel": "", "exposure_ms": "", "target_um": ""}
        for name, value in (whole | settings).items():
            self.do("set", name, value)


@contextmanager
def serving(rig: Rig) -> Iterator[int]:
    """The port at which the core finds its microscope."""
    with MicroscopeServer(("127.0.0.1", 0), Answers) as server:
        server.rig = rig
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    classes = folder / "classes"
    path = ":".join(map(str, [*JARS, classes]))
    sources = [str(file) for file in STUBS.rglob("*.java")]
    subprocess.run(["javac", "-encoding", "UTF-8", "-cp", path, "-d", str(classes), *sources], check=True)
    with asked_daemon(folder) as (walker, _), own_microscope() as microscope:
        rig = Rig(microscope)
        with serving(rig) as port:
            command = ["java", "-Dfile.encoding=UTF-8", "-cp", path, "StudioStub", str(SCRIPT), str(port)]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8") as process:
                studio = Studio(process, rig)
                studio.do("set", "endpoint", walker.control)
                yield studio
                assert process.stdin
                process.stdin.close()
                process.wait(30)


@pytest.fixture(scope="module")
def calibrated(studio: Studio) -> str:
    studio.begin(FOCUS_UM, kind="calibrate")
    studio.do("fullFocus")
    assert studio.rig.microscope.position_um() == pytest.approx(FOCUS_UM, abs=0.01)
    return studio.do("status")


def test_it_says_what_it_is(studio: Studio) -> None:
    assert studio.do("name") == "focusd"
    assert studio.do("names") == "endpoint lowest_um highest_um channel exposure_ms target_um kind"
    studio.do("set", "channel", "DAPI")
    assert studio.do("get", "channel") == "DAPI"
    assert "channel=DAPI" in studio.do("properties")
    assert "focusd has no property 'colour'" in studio.fails("get", "colour")
    assert "focus at each time point" in studio.fails("continuous")


def test_the_script_is_read_alike_in_every_encoding() -> None:
    """Studio reads it in that of the computer."""
    assert SCRIPT.read_bytes().isascii()


def test_without_a_calibration_the_reason_is_said(studio: Studio) -> None:
    studio.begin(0.0)
    assert "focusd: " in studio.fails("fullFocus")
    assert "calibrat" in studio.do("status")
    assert studio.do("state") == BEFORE


def test_it_calibrates_in_focus_by_eye(studio: Studio, calibrated: str) -> None:
    assert "calibrated with" in calibrated
    assert studio.do("get", "kind") == "refocus", "for the next time alone"


@pytest.mark.parametrize("method", ["fullFocus", "incrementalFocus"])
@pytest.mark.parametrize("start_um", [-20.0, 45.0])
def test_it_brings_the_sample_into_focus(
    studio: Studio, calibrated: str, method: str, start_um: float
) -> None:
    studio.begin(start_um)
    sigma_um = float(studio.do(method))
    assert 0 < sigma_um < 1
    assert studio.rig.microscope.position_um() == pytest.approx(FOCUS_UM, abs=TENTH_UM)
    assert len(studio.rig.snaps) == int(studio.do("images")) <= 4
    assert float(studio.do("score")) == sigma_um
    told = re.match(r"in focus at (\S+) ", studio.do("status"))
    assert told
    assert float(told[1]) == pytest.approx(FOCUS_UM, abs=TENTH_UM)


def test_it_exposes_in_the_channel_and_gives_all_back(studio: Studio, calibrated: str) -> None:
    studio.begin(-10.0, channel="DAPI", exposure_ms="10")
    studio.do("fullFocus")
    assert set(studio.rig.snaps) == {("10.0", "DAPI", "true")}
    assert studio.do("state") == BEFORE


@pytest.mark.parametrize("broken", ["snap", "move"])
def test_after_a_failure_of_the_hardware_all_is_as_before(
    studio: Studio, calibrated: str, broken: str
) -> None:
    studio.begin(-10.0, channel="DAPI", exposure_ms="10")
    studio.rig.broken = {broken}
    assert f"the {broken} failed" in studio.fails("fullFocus")
    assert f"the {broken} failed" in studio.do("status")
    assert studio.rig.microscope.position_um() == pytest.approx(-10.0, abs=0.01)
    assert studio.do("state") == BEFORE
    studio.begin(-10.0)
    studio.do("fullFocus")


def test_a_preset_that_does_not_exist_is_refused_without_light(studio: Studio, calibrated: str) -> None:
    studio.begin(-10.0, channel="FITC")
    assert 'No preset "FITC"' in studio.fails("fullFocus")
    assert studio.rig.snaps == []
    assert studio.do("state") == BEFORE


def test_the_stage_stays_within_the_limits_and_comes_back(studio: Studio, calibrated: str) -> None:
    studio.begin(-20.0, lowest_um="-30", highest_um="-10")
    assert "focusd: " in studio.fails("fullFocus")
    assert studio.rig.moves_um
    assert all(-30 <= z_um <= -10 for z_um in studio.rig.moves_um)
    assert studio.rig.microscope.position_um() == pytest.approx(-20.0, abs=0.01)
    assert studio.do("state") == BEFORE


@pytest.mark.parametrize("limit", ["", "deep"])
def test_nothing_moves_before_the_limits_are_set(studio: Studio, calibrated: str, limit: str) -> None:
    studio.begin(0.0, highest_um=limit)
    assert "Set lowest_um and highest_um" in studio.fails("fullFocus")
    assert (studio.rig.moves_um, studio.rig.snaps) == ([], [])


def test_the_target_reaches_focusd(studio: Studio, calibrated: str) -> None:
    studio.begin(0.0, target_um="-1")
    assert "target_um" in studio.fails("fullFocus")
    studio.begin(0.0, target_um="1")
    studio.do("fullFocus")


def test_a_sharper_image_has_the_higher_score(studio: Studio, calibrated: str) -> None:
    studio.begin(0.0)
    sharp, near, far = (float(studio.do("computeScore", str(FOCUS_UM + off))) for off in (0.0, 8.0, 20.0))
    assert sharp > near > far


def test_a_daemon_that_is_not_there_is_told_after_the_timeout(
    studio: Studio, calibrated: str, tmp_path: Path
) -> None:
    """With the script's own patience made short."""
    text = SCRIPT.read_text(encoding="utf-8")
    assert "timeoutMs = 60000" in text
    hasty = tmp_path / "focusd.bsh"
    hasty.write_text(text.replace("timeoutMs = 60000", "timeoutMs = 300"), encoding="utf-8")
    (port,) = free_ports(1)
    with serving(studio.rig) as own:
        command = [*studio.process.args[:-2], str(hasty), str(own)]  # type: ignore[index]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            other = Studio(process, studio.rig)
            other.do("set", "endpoint", f"tcp://127.0.0.1:{port}")
            other.begin(0.0)
            assert "focusd does not answer" in other.fails("fullFocus")
            assert other.do("state") == BEFORE
            assert studio.rig.snaps == []
            assert process.stdin
            process.stdin.close()
            process.wait(30)
