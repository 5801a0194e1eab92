"""Each configuration that is shipped, as it is: examined, calibrated, refocused, held, cancelled, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusd.config import RigConfig, SceneConfig, load_config
from focusd.optics.instrument import Instrument
from tests.system.daemon import Daemon
from tests.system.stack import write_stack
from tests.ways.walk import CONFIGS, PATIENCE_S, Walker, end

STACK_FOCUS_UM = 3.0
SHIPPED = sorted(path.name for path in CONFIGS.glob("*.toml") if path.name != "client.toml")
"""What has a microscope of its own; test_client_rig.py goes the way of the other one."""


class Way:
    """One configuration on its way.

    Attributes:
        focus_um: the truth, which the daemon does not know.
    """

    def __init__(self, walker: Walker, name: str) -> None:
        self.walker = walker
        self.file = f"configs/{name}"
        self.config = load_config(walker.folder / self.file)
        scene = self.config.microscope
        self.focus_um = scene.focus_z_um if isinstance(scene, SceneConfig) else STACK_FOCUS_UM

    @property
    def dof_um(self) -> float:
        return optics(self.config).depth_of_field_um

    def refocus(self, *arguments: str) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.walker.ctl("refocus", "--json", *arguments))
        return result

    def fine_stack(self) -> tuple[str, ...]:
        """A calibration of hundreds of planes, which nobody waits for."""
        reach_um = self.config.calibration.range_um or 16 * optics(self.config).depth_of_field_um / 1.35
        return "calibrate", "--step-um", f"{reach_um / 490:.3f}"


def optics(config: RigConfig) -> Instrument:
    instrument = Instrument.from_config(config.objective, config.camera)
    assert instrument is not None, "every shipped configuration says its optics"
    return instrument


@pytest.fixture(scope="module", params=SHIPPED)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Way:
    walker = Walker.in_folder(tmp_path_factory.mktemp("way"))
    planes = [float(z_um) for z_um in np.arange(-40, 41, 2)]
    recorded = load_config(walker.folder / "configs" / "recorded.toml")
    write_stack(
        walker.folder / "configs" / "stack.ome.tif", planes, STACK_FOCUS_UM, instrument=optics(recorded)
    )
    return Way(walker, request.param)


@pytest.fixture(scope="module")
def examined(way: Way) -> list[dict[str, str]]:
    """What the doctor finds before the first start."""
    done = way.walker.type("focusd", "doctor", "--hardware", "--json", "--config", way.file)
    assert done.returncode == 0, done.stdout + done.stderr
    findings: list[dict[str, str]] = json.loads(done.stdout)
    return findings


@pytest.fixture(scope="module")
def daemon(way: Way, examined: object) -> Iterator[Daemon]:
    with way.walker.daemon("run", "--config", way.file) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def calibrated(way: Way, daemon: Daemon) -> str:
    """What `focusctl calibrate` prints."""
    return way.walker.ctl("calibrate")


def test_the_doctor_finds_all_in_order_but_the_calibration(examined: list[dict[str, str]]) -> None:
    wrong = {finding["check"]: finding for finding in examined if finding["level"] in ("warning", "failure")}
    assert wrong.keys() <= {"calibration", "permissions"}, wrong
    assert {"stage", "camera"} <= {finding["check"] for finding in examined}, "the devices were opened"


def test_a_calibration_finds_the_focus_and_goes_back(way: Way, calibrated: str) -> None:
    state = way.walker.state()
    assert "calibrated" in calibrated
    assert state["calibration"]["usable"], state
    assert state["job"] is None
    assert state["z_um"] == pytest.approx(0, abs=0.1), "where it began"


@pytest.mark.parametrize(("search", "within_dof"), [("posterior", 0.5), ("published", 2.0)])
def test_a_refocus_finds_the_focus(way: Way, calibrated: str, search: str, within_dof: float) -> None:
    way.walker.ctl("move", f"{way.focus_um - 2 * way.dof_um:.2f}")
    result = way.refocus("--strategy", search)
    assert abs(result["z_found_um"] - way.focus_um) <= within_dof * way.dof_um, result
    assert way.walker.state()["z_um"] == result["z_found_um"]
    assert way.config.note in result["message"]


def test_a_hold_checks_and_is_released(way: Way, calibrated: str) -> None:
    way.refocus()
    assert "holding" in way.walker.ctl("hold")
    state = way.walker.state_when(lambda state: state["hold"]["checks"] >= 1)
    assert state["hold"]["state"] in ("acquiring", "locked"), state["hold"]
    assert "released" in way.walker.ctl("release")
    state = way.walker.state()
    assert state["hold"]["state"] == "disengaged"
    assert abs(state["z_um"] - way.focus_um) <= 0.5 * way.dof_um


@pytest.mark.parametrize("how", ["focusctl cancel", "Ctrl-C"])
def test_a_calibration_is_cancelled_in_its_midst(way: Way, calibrated: str, how: str) -> None:
    """The stage goes back, the old calibration stays in force."""
    way.walker.ctl("move", "1.5")
    before = way.walker.state()["calibration"]
    with way.walker.half_done(*way.fine_stack()) as calibrate:
        if how == "Ctrl-C":
            code, told = end(calibrate, signal.SIGINT)
        else:
            way.walker.ctl("cancel")
            code, told = end(calibrate)
    assert code == (130 if how == "Ctrl-C" else 1)
    assert "cancelled; the stage stands at 1.5" in told
    state = way.walker.state()
    assert (state["z_um"], state["job"], state["calibration"]) == (1.5, None, before)


def test_ctrl_c_in_mid_calibration_stops_the_daemon_and_its_calibration_serves_the_next(
    way: Way, calibrated: str, daemon: Daemon
) -> None:
    """Last of all: it ends the daemon that the others share."""
    way.walker.ctl("move", "1.5")
    with way.walker.half_done(*way.fine_stack()) as calibrate:
        assert daemon.end(signal.SIGINT) == 0
        code, _ = end(calibrate)
    assert code == 1
    log = daemon.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    said = [json.loads(line)["event"] for line in log.splitlines()]
    assert "stopping" in said
    if way.config.note:
        assert way.config.note in said
        assert "the rehearsal is over; it showed" in said
    record = json.loads(
        (way.walker.folder / "state" / way.config.name / "rig.json").read_text(encoding="utf-8")
    )
    assert (record["z_um"], record["fault"]) == (1.5, None)

    with way.walker.daemon("run", "--config", way.file) as again:
        assert way.walker.state()["calibration"]["usable"]
        assert again.end(signal.SIGTERM) == 0


def test_a_demo_camera_that_shows_no_focus_ends_in_an_error_and_the_log_names_the_rehearsal(
    tmp_path: Path,
) -> None:
    walker = Walker.in_folder(tmp_path)
    file = walker.folder / "configs" / "micromanager-demo.toml"
    settings, rest = file.read_text(encoding="utf-8").split("# Of the rehearsal alone")
    server = rest[rest.index("[server]") :]
    file.write_text(settings.replace('"rehearsal"', '"micromanager"') + server, encoding="utf-8")
    with walker.daemon("run", "--config", f"configs/{file.name}") as daemon:
        done = walker.type("focusctl", "calibrate")
        state = walker.state()
        assert daemon.end() == 0
    assert done.returncode == 1
    assert "error: " in done.stderr.splitlines()[-1], done.stderr
    assert (state["z_um"], state["job"], state["fault"]) == (0, None, None)
    assert 'kind = "rehearsal"' in "".join(
        json.loads(line)["event"] for line in daemon.log.read_text(encoding="utf-8").splitlines()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are another thing there")
def test_at_a_terminal_the_doctor_asks_before_it_moves_the_demo_stage(tmp_path: Path) -> None:
    walker = Walker.in_folder(tmp_path)
    person, terminal = os.openpty()
    try:
        os.write(person, b"yes\nyes\n")
        command = ("doctor", "--hardware", "--config", "configs/micromanager-demo.toml")
        with walker.start("focusd", *command, stdin=terminal, stdout=subprocess.PIPE) as doctor:
            told, _ = doctor.communicate(timeout=PATIENCE_S)
    finally:
        os.close(person)
        os.close(terminal)
    assert doctor.returncode == 0, told
    assert "May the stage now move from 0.0 to -50.0 µm and back?" in told
    assert "objective and sample went apart from 0.0" in " ".join(told.split())
