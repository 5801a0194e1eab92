"""The doctor finds what was broken on purpose, says what to do, and touches no hardware unless asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from focusd.demo.rigs import free_ports
from focusd.doctor import Finding, examine, healthy
from focusd.doctor import rig as rig_checks
from focusd.errors import HardwareError
from focusd.protocol.keys import allow, new_pair
from focusd.storage.claims import claim
from focusd.storage.files import lock, sealed
from tests.daemon.scripted import ScriptedMicroscope
from tests.system.daemon import rig, write


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    ports = free_ports(2)
    server = dict(zip(("control", "events"), (f"tcp://127.0.0.1:{port}" for port in ports), strict=True))
    return rig(tmp_path / "state") | {"server": server}


def found(tmp_path: Path, values: dict[str, Any], hardware: bool = False) -> dict[str, Finding]:
    """The findings by what was looked at; of several alike, the last."""
    return {finding.check: finding for finding in examine(write(tmp_path, values), hardware)}


def test_a_good_rig_is_healthy_and_only_lacks_its_calibration(tmp_path: Path, values: dict[str, Any]) -> None:
    findings = found(tmp_path, values, hardware=True)
    assert healthy(findings.values())
    assert [name for name, finding in findings.items() if finding.level == "warning"] == ["calibration"]
    assert "stands at 0.00 µm" in findings["stage"].says
    assert "256×256" in findings["camera"].says
    assert all(finding.do for finding in findings.values() if finding.level != "ok")


def test_hardware_is_opened_only_when_asked(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_config: object) -> None:
        raise HardwareError("it is switched off")

    monkeypatch.setattr(rig_checks, "open_microscope", refuse)
    assert found(tmp_path, values)["devices"].level == "skipped"
    broken = found(tmp_path, values, hardware=True)["devices"]
    assert (broken.level, broken.says) == ("failure", "it is switched off")


def test_hardware_that_another_process_drives_is_not_opened(tmp_path: Path, values: dict[str, Any]) -> None:
    file = tmp_path / "rig.cfg"
    file.write_text("Device,Z,DemoCamera,DStage\n", encoding="utf-8")
    (tmp_path / "adapters").mkdir()
    values["microscope"] = {"kind": "micromanager", "config_file": "rig.cfg", "adapter_path": "adapters"}
    with ExitStack() as driver:
        claim(f"the file {file}", driver)
        devices = found(tmp_path, values, hardware=True)["devices"]
    assert devices.level == "failure"
    assert "another focusd drives this hardware" in devices.says


def wrong_key(values: dict[str, Any], _folder: Path) -> None:
    values["stage"]["speed"] = 3.0


def state_in_the_way(values: dict[str, Any], folder: Path) -> None:
    Path(values["state_dir"]).write_text("in the way", encoding="utf-8")


def fault(values: dict[str, Any], folder: Path) -> None:
    record = Path(values["state_dir"]) / "bench" / "rig.json"
    record.parent.mkdir(parents=True)
    left = {"format": 1, "z_um": 1.0, "why": "", "fault": "the camera hung", "written": None}
    record.write_text(sealed(left), encoding="utf-8")


def damaged_record(values: dict[str, Any], folder: Path) -> None:
    fault(values, folder)
    record = Path(values["state_dir"]) / "bench" / "rig.json"
    record.write_text(record.read_text(encoding="utf-8").replace("hung", "sang"), encoding="utf-8")


def lost_record(values: dict[str, Any], folder: Path) -> None:
    fault(values, folder)
    record = Path(values["state_dir"]) / "bench" / "rig.json"
    record.rename(record.with_name("rig.json.bad-20260101T000000000000"))


def bad_calibration(values: dict[str, Any], folder: Path) -> None:
    file = Path(values["state_dir"]) / "bench" / "calibrations" / "10x_0.3.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}", encoding="utf-8")


def no_weights(values: dict[str, Any], folder: Path) -> None:
    values["scorer"]["weights"] = "absent.safetensors"


def open_secret(values: dict[str, Any], folder: Path) -> None:
    new_pair(folder / "keys", "focusd").chmod(0o644)
    values["server"]["keys"] = "keys"


def no_client(values: dict[str, Any], folder: Path) -> None:
    new_pair(folder / "keys", "focusd")
    values["server"]["keys"] = "keys"


def no_adapters(values: dict[str, Any], folder: Path) -> None:
    values["microscope"] = {"kind": "micromanager", "config_file": "rig.cfg", "adapter_path": "absent"}


def no_config_file(values: dict[str, Any], folder: Path) -> None:
    (folder / "adapters").mkdir()
    values["microscope"] = {"kind": "micromanager", "config_file": "rig.cfg", "adapter_path": "adapters"}


@pytest.mark.parametrize(
    ("harm", "check", "says", "do"),
    [
        (wrong_key, "configuration", "stage.speed: unknown key", "configs/"),
        (state_in_the_way, "state", "cannot be written", "state_dir"),
        (fault, "last run", "the camera hung", "focusctl reconnect"),
        (lost_record, "last run", "may have ended in a fault", "focusctl reconnect"),
        (damaged_record, "last run", "checksum", "focusctl reconnect"),
        (bad_calibration, "calibration", "calibrate anew", "message"),
        (no_weights, "weights", "reinstall focusd", "message"),
        (open_secret, "keys", "chmod 600", "message"),
        (no_client, "keys", "no client", "keys allow"),
        (no_adapters, "adapters", "no Micro-Manager device adapters", "mmcore install"),
        (no_config_file, "config_file", "rig.cfg", "config_file"),
    ],
)
def test_what_is_broken_is_found_with_what_to_do(
    tmp_path: Path,
    values: dict[str, Any],
    harm: Callable[[dict[str, Any], Path], None],
    check: str,
    says: str,
    do: str,
) -> None:
    harm(values, tmp_path)
    findings = found(tmp_path, values)
    assert findings[check].level == "failure", findings
    assert says in findings[check].says
    assert do in findings[check].do
    assert not healthy(findings.values())


def test_keys_that_are_in_order_are_named(tmp_path: Path, values: dict[str, Any]) -> None:
    new_pair(tmp_path / "keys", "focusd")
    new_pair(tmp_path, "ada")
    allow(tmp_path / "keys", tmp_path / "ada.key")
    values["server"]["keys"] = "keys"
    assert "ada" in found(tmp_path, values)["keys"].says


@pytest.fixture
def taken(values: dict[str, Any]) -> Iterator[str]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(values["server"]["events"])
        yield values["server"]["events"]


def test_a_taken_port_is_named(tmp_path: Path, values: dict[str, Any], taken: str) -> None:
    findings = found(tmp_path, values)
    assert findings["server.control"].level == "ok"
    assert findings["server.events"].level == "failure"
    assert taken in findings["server.events"].says


def test_a_running_focusd_is_left_in_peace(tmp_path: Path, values: dict[str, Any], taken: str) -> None:
    folder = Path(values["state_dir"]) / "bench"
    folder.mkdir(parents=True)
    with ExitStack() as running:
        lock(folder / "lock", running)
        findings = found(tmp_path, values, hardware=True)
    assert "runs this rig now" in findings["running"].says
    assert findings["ports, devices"].level == "skipped"
    assert healthy(findings.values())


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focusd", "doctor", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_command_prints_a_table_or_json_and_its_exit_code_tells(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    good = doctor("--config", str(write(tmp_path, values)))
    assert good.returncode == 0, good.stderr
    assert "focusctl calibrate" in good.stdout
    fault(values, tmp_path)
    bad = doctor("--json", "--config", str(write(tmp_path, values)))
    assert bad.returncode == 1
    levels = {finding["check"]: finding["level"] for finding in json.loads(bad.stdout)}
    assert (levels["configuration"], levels["last run"]) == ("ok", "failure")


class Person:
    """Somebody at the microscope who answers as scripted.

    Attributes:
        asked: the questions, each with the z where the stage stood then.
    """

    def __init__(self, stage: ScriptedMicroscope, *answers: bool | None) -> None:
        self.stage, self.answers = stage, list(answers)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, question: str) -> bool | None:
        self.asked.append((question, self.stage.position_um()))
        if not self.answers:
            raise KeyboardInterrupt
        return self.answers.pop(0)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> ScriptedMicroscope:
    microscope = ScriptedMicroscope(z_um=10.0)
    monkeypatch.setattr(rig_checks, "open_microscope", lambda _config: microscope)
    return microscope


def walked(
    tmp_path: Path, values: dict[str, Any], person: Person | None, **stage: object
) -> dict[str, Finding]:
    devices = {"kind": "micromanager", "config_file": "MMConfig_demo.cfg"}
    given = values | {"microscope": devices, "stage": values["stage"] | stage}
    return {finding.check: finding for finding in examine(write(tmp_path, given), hardware=True, ask=person)}


@pytest.mark.parametrize(("towards", "there_um"), [("increasing", -40.0), ("decreasing", 60.0)])
@pytest.mark.parametrize(("apart", "level"), [(True, "ok"), (False, "failure"), (None, "warning")])
def test_a_person_is_walked_through_the_stage_s_direction(
    tmp_path: Path,
    values: dict[str, Any],
    stage: ScriptedMicroscope,
    towards: str,
    there_um: float,
    apart: bool | None,
    level: str,
) -> None:
    """Asked before it moves, asked where it went, and back again; a stage wired the wrong way round is a failure."""
    person = Person(stage, True, apart)
    finding = walked(tmp_path, values, person, towards_sample=towards)["direction"]
    assert finding.level == level, finding
    assert [z_um for _, z_um in person.asked] == [10.0, there_um]
    assert f"from 10.0 to {there_um:.1f} µm" in person.asked[0][0]
    assert stage.moves == [there_um, 10.0]
    if apart is False:
        assert "came CLOSER" in finding.says
        assert "stage.towards_sample" in finding.do


@pytest.mark.parametrize("answer", [False, None])
def test_nothing_moves_unless_the_person_agrees(
    tmp_path: Path, values: dict[str, Any], stage: ScriptedMicroscope, answer: bool | None
) -> None:
    assert walked(tmp_path, values, Person(stage, answer))["direction"].level == "skipped"
    assert stage.moves == []


def test_without_a_person_the_walk_is_left_out_and_that_is_told(
    tmp_path: Path, values: dict[str, Any], stage: ScriptedMicroscope
) -> None:
    finding = walked(tmp_path, values, None)["direction"]
    assert (finding.level, finding.says) == ("skipped", "not walked")
    assert "in a terminal" in finding.do
    assert stage.moves == []


def test_beside_a_limit_there_is_no_way_to_walk(
    tmp_path: Path, values: dict[str, Any], stage: ScriptedMicroscope
) -> None:
    finding = walked(tmp_path, values, Person(stage), min_um=-5.0)["direction"]
    assert finding.level == "skipped"
    assert "too near a limit" in finding.says
    assert stage.moves == []


def test_a_person_who_leaves_in_mid_walk_leaves_the_stage_where_it_began(
    tmp_path: Path, values: dict[str, Any], stage: ScriptedMicroscope
) -> None:
    with pytest.raises(KeyboardInterrupt):
        walked(tmp_path, values, Person(stage, True))
    assert stage.moves == [-40.0, 10.0]
