"""The way of those whose program owns camera and stage: configs/client.toml, the examples, ZeroMQ and HTTP."""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusd import Autofocus, Client, Frame
from focusd.config import load_config
from focusd.errors import (
    CalibrationError,
    FocusdError,
    HardwareError,
    OutOfRangeError,
    RequestError,
    TravelLimitError,
)
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from focusd.protocol.results import CalibrationResult, RefocusResult
from tests.system.daemon import Daemon
from tests.ways.walk import CONFIGS, Walker

EXAMPLES = Path(__file__).parents[2] / "examples"
FOCUS_UM = 12.5
DOF_UM = 8.28


@dataclass
class Own:
    """The client's microscope, and all frames that it exposed."""

    microscope: SimulatedMicroscope
    frames: list[Frame]

    def snap(self, z_um: float) -> Any:
        self.microscope.move_to(z_um)
        self.frames.append(self.microscope.snap())
        return self.frames[-1].pixels

    @property
    def z_um(self) -> float:
        return self.microscope.position_um()


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    microscope = open_simulated(load_config(CONFIGS / "simulated-10x.toml"))
    microscope.set_scene("gravel", 1, FOCUS_UM)
    yield Own(microscope, [])
    microscope.close()


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    walker = Walker.in_folder(tmp_path_factory.mktemp("client"))
    with (walker.folder / "configs" / "client.toml").open("a", encoding="utf-8") as config:
        config.write("\n[scorer]\nbudget_ms = 100000\n")  # as many tiles, however busy the machine is
    return walker


@pytest.fixture(scope="module")
def daemon(walker: Walker) -> Iterator[Daemon]:
    with walker.daemon("run", "--config", "configs/client.toml") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def calibrated(daemon: Daemon, own: Own) -> CalibrationResult:
    return calibrate(daemon.client, own)


def calibrate(client: Client, own: Own) -> CalibrationResult:
    run = client.ask("calibrate", z_um=FOCUS_UM)
    for z_um in run:
        run.tell(own.snap(z_um))
    assert isinstance(run.result, CalibrationResult)
    return run.result


def refocused(client: Client, own: Own, start_um: float, **options: Any) -> RefocusResult:
    run = client.ask(z_um=start_um, **options)
    for z_um in run:
        run.tell(own.snap(z_um))
    assert isinstance(run.result, RefocusResult)
    return run.result


def test_a_client_calibrates_and_focuses_its_own_microscope(
    daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    assert calibrated.in_force
    assert calibrated.message == "", "nothing is wrong with it"
    assert daemon.client.calibrations().calibrations[0].planes == calibrated.planes
    assert calibrated.z_focus_um == pytest.approx(FOCUS_UM, abs=0.3)
    found = refocused(daemon.client, own, -20.0)
    assert abs(found.focus_um - FOCUS_UM) <= min(0.1 * found.dof_um, 2 * found.sigma_um)
    assert found.exposures <= 4
    assert daemon.client.state().calibration.usable


def test_the_answers_are_those_of_the_engine_on_the_same_frames(
    walker: Walker, daemon: Daemon, own: Own, calibrated: CalibrationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first run after a calibration: later ones know the scale of z from those before."""
    calibrate(daemon.client, own)
    before = len(own.frames)
    found = refocused(daemon.client, own, 30.0)
    monkeypatch.setenv("STATE_DIRECTORY", walker.environment["STATE_DIRECTORY"])
    run = Autofocus(walker.folder / "configs" / "client.toml").refocus(z_um=30.0)
    for frame in own.frames[before:]:
        run.tell(Frame(frame.pixels, z_um=run.expose_um[0]))
    same = run.result
    assert (same.focus_um, same.sigma_um, same.geometry) == (found.focus_um, found.sigma_um, found.geometry)


def test_nothing_outside_the_limits_is_asked_for(
    daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    run = daemon.client.ask(z_um=-20.0, limits_um=(-30.0, -10.0))
    error: FocusdError | None = None
    while run.expose_um and error is None:
        assert -30 <= run.expose_um[0] <= -10
        try:
            run.tell(own.snap(run.expose_um[0]))
        except FocusdError as raised:
            error = raised
    assert isinstance(error, OutOfRangeError), "the focus lies outside"
    with pytest.raises(TravelLimitError, match="is the widest"):
        daemon.client.ask("calibrate", z_um=0.0, limits_um=(-30.0, 30.0))


def test_planes_beside_those_asked_for_count_where_they_were_taken(
    daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    run = daemon.client.ask(z_um=40.0)
    for number, z_um in enumerate(run):
        pixels = own.snap(z_um + (0.7 if number % 2 else -0.7))
        run.tell(pixels, z_um=own.z_um)
    assert isinstance(run.result, RefocusResult)
    assert run.result.focus_um == pytest.approx(FOCUS_UM, abs=0.1 * run.result.dof_um)


def test_runs_go_on_side_by_side_and_a_bad_frame_disturbs_only_itself(
    daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    good, bad = (daemon.client.ask(z_um=start_um) for start_um in (0.0, 30.0))
    frame = own.snap(0.0)
    for pixels, z_um, error in (
        (np.zeros((8, 8), np.float32), 0.0, RequestError),
        (np.zeros(64, np.uint16), 0.0, RequestError),
        (frame, float("nan"), RequestError),
        (np.zeros((512, 512), np.uint16), 30.0, HardwareError),
    ):
        with pytest.raises(error):
            bad.tell(pixels, z_um=z_um)
    with pytest.raises(HardwareError, match="does not read out"):
        bad.tell(own.snap(30.0))
    for z_um in good:
        good.tell(own.snap(z_um))
    assert isinstance(good.result, RefocusResult)
    assert good.result.focus_um == pytest.approx(FOCUS_UM, abs=0.3)
    with pytest.raises(RequestError, match="ask for another one"):
        daemon.client._tell(run=good.id, frames=[frame], z_um=[0.0])
    good.drop()
    with pytest.raises(RequestError, match="there is no run"):
        daemon.client._tell(run=good.id, frames=[frame], z_um=[0.0])


def test_abandoned_runs_make_room_for_others(daemon: Daemon, own: Own, calibrated: CalibrationResult) -> None:
    with daemon.connect("careful") as careful, daemon.connect("careless") as careless:
        mine = careful.ask(z_um=0.0)
        abandoned = [careless.ask(z_um=10.0) for _ in range(40)]
        assert len({run.id for run in abandoned}) == 40
        for z_um in mine:
            mine.tell(own.snap(z_um))
        assert mine.result


def test_a_rig_that_the_daemon_is_not_configured_for_is_refused(
    daemon: Daemon, calibrated: CalibrationResult
) -> None:
    assert daemon.client.ask(z_um=0.0, rig={"na": 0.3, "camera": "camera"}).expose_um
    with pytest.raises(CalibrationError, match=r"na = 0\.3, and the client's is 0\.5"):
        daemon.client.ask(z_um=0.0, rig={"na": 0.5})
    with pytest.raises(RequestError, match="no 'aperture'"):
        daemon.client.ask(z_um=0.0, rig={"aperture": 0.5})
    with pytest.raises(RequestError, match="step_um is no option of 'refocus'"):
        daemon.client.ask(z_um=0.0, step_um=1.0)


@pytest.mark.parametrize("asked", [Client.refocus, Client.calibrate, Client.hold])
def test_what_needs_hardware_says_that_there_is_none(
    daemon: Daemon, asked: Callable[[Client], object]
) -> None:
    with pytest.raises(RequestError, match="no camera and no stage"):
        asked(daemon.client)


def test_the_example_of_the_documents_runs_as_it_stands(walker: Walker, daemon: Daemon) -> None:
    for name in ("plain_zeromq.py", "my_microscope.py"):
        code = (EXAMPLES / name).read_text(encoding="utf-8").replace("tcp://127.0.0.1:5570", daemon.control)
        code = code.replace("Path(__file__).parents[1]", f"Path({str(walker.folder)!r})")
        (walker.folder / name).write_text(code, encoding="utf-8")
    done = walker.run([sys.executable, "plain_zeromq.py"])
    assert done.returncode == 0, done.stderr
    told = re.search(r"in focus at (\S+) ± (\S+) µm after (\d) exposures", done.stdout)
    assert told, done.stdout
    assert float(told[1]) == pytest.approx(FOCUS_UM, abs=0.3)


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """What an HTTP client is answered."""
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rpc(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def test_the_same_works_over_http(
    walker: Walker, daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    status, reply = post(walker.http, rpc("focus.ask", z_um=-10.0))
    assert status == 200
    while reply["result"]["expose_um"]:
        pixels = own.snap(reply["result"]["expose_um"][0])
        frame = {"dtype": "uint16", "shape": pixels.shape, "z_um": own.z_um}
        frame["base64"] = base64.b64encode(pixels.tobytes()).decode()
        status, reply = post(walker.http, rpc("focus.tell", run=reply["result"]["run"], frames=[frame]))
        assert status == 200
        assert "result" in reply, reply
    assert reply["result"]["result"]["focus_um"] == pytest.approx(FOCUS_UM, abs=0.3)
    _, reply = post(walker.http, rpc("focus.nothing"))
    assert reply["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://somewhere.example"}, 403),
        ({"Host": "somewhere.example"}, 400),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_others_are_refused_over_http(
    walker: Walker, daemon: Daemon, headers: dict[str, str], status: int
) -> None:
    assert post(walker.http, rpc("system.ping"), **headers)[0] == status


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[1]", b'{"base64": 1}', b'{"params": {"frames": [{"base64": "?"}]}}']
)
def test_garbage_over_http_is_answered(walker: Walker, daemon: Daemon, body: bytes) -> None:
    status, reply = post(walker.http, body)
    assert status in (200, 400)
    assert status == 400 or "error" in reply
    assert daemon.answers()


def test_frames_told_together_end_a_run_and_the_rest_is_not_needed(
    daemon: Daemon, own: Own, calibrated: CalibrationResult
) -> None:
    run = daemon.client.ask(z_um=0.0, prior=(FOCUS_UM, 2.0))
    planes = [FOCUS_UM + step for step in (-6.0, 0.0, 1.0, 3.0, 5.0)]
    stack = [own.snap(z_um) for z_um in planes]
    answer = daemon.client._tell(run=run.id, frames=stack, z_um=planes)
    assert isinstance(answer.result, RefocusResult)
    assert answer.result.focus_um == pytest.approx(FOCUS_UM, abs=0.5)
    assert answer.result.exposures < len(planes)


def test_a_body_that_does_not_come_keeps_nobody_else_waiting(walker: Walker, daemon: Daemon) -> None:
    port = int(walker.http.split(":")[2].split("/")[0])
    head = "POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(head.encode())
        assert post(walker.http, rpc("system.ping"))[0] == 200
        slow.settimeout(60)
        assert b"408" in slow.recv(100).split(b"\r\n")[0]
