"""Names that one process of a machine holds, and what a rig's hardware is called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from mm_test_adapters import device_adapter_path

from focusd.config import MicroManagerConfig, SimulatedConfig
from focusd.microscope.identity import hardware_of
from focusd.storage.claims import claim

HOLD = """
import os, sys
from contextlib import ExitStack
from focusd.storage.claims import claim
if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
with ExitStack() as resources:
    claim(sys.argv[1], resources)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(name: str, *user: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a name inside the `with`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, name, *user], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def is_free(name: str) -> bool:
    try:
        with ExitStack() as resources:
            claim(name, resources)
    except BlockingIOError:
        return False
    return True


def test_a_name_is_held_until_its_process_is_killed(tmp_path: Path) -> None:
    name = f"test {tmp_path}"
    with held_by_another(name) as other:
        assert not is_free(name)
        assert is_free(f"{name} 2")
        if sys.platform == "linux":
            with ExitStack() as resources, pytest.raises(BlockingIOError, match=f"process {other.pid} holds"):
                claim(name, resources)
    assert is_free(name)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root becomes another user")
def test_a_name_is_held_against_other_users(tmp_path: Path) -> None:
    name = f"test {tmp_path}"
    with held_by_another(name, "65534"):
        assert not is_free(name)


def rig_file(folder: Path, *lines: str) -> MicroManagerConfig:
    """A Micro-Manager file with some lines before its devices are initialised."""
    demo = (Path(device_adapter_path()) / "MMConfig_demo.cfg").read_text(encoding="utf-8")
    folder.mkdir(exist_ok=True)
    path = folder / "rig.cfg"
    initialize = "Property,Core,Initialize,1"
    path.write_text(demo.replace(initialize, "\n".join((*lines, initialize))), encoding="utf-8")
    return MicroManagerConfig(kind="micromanager", config_file=str(path))


def share(one: MicroManagerConfig, other: MicroManagerConfig) -> bool:
    return not set(hardware_of(one)).isdisjoint(hardware_of(other))


def test_a_file_is_the_same_hardware_wherever_it_is_named_from_and_when_it_is_copied(tmp_path: Path) -> None:
    here = rig_file(tmp_path / "here", "Device,Stage,ASITiger,XYStage", "Property,Stage,SerialPort,COM3")
    (tmp_path / "link.cfg").symlink_to(here.config_file)
    linked = here.model_copy(update={"config_file": str(tmp_path / "link.cfg")})
    copy = rig_file(tmp_path / "there", "Device,Stage,ASITiger,XYStage", " Property, Stage,SerialPort ,COM3")
    other = rig_file(tmp_path / "other", "Device,Stage,ASITiger,XYStage", "Property,Stage,SerialPort,COM4")
    assert share(here, linked)
    assert share(here, copy)
    assert not share(here, other)


def test_two_files_that_share_a_serial_port_share_hardware(tmp_path: Path) -> None:
    one = rig_file(tmp_path / "one", "Device,COM3,SerialManager,COM3", "Device,Lamp,Vendor,Lamp")
    two = rig_file(tmp_path / "two", "Device,port,SerialManager,COM3")
    three = rig_file(tmp_path / "three", "Device,COM4,SerialManager,COM4")
    assert share(one, two)
    assert not share(one, three)


def test_a_file_beside_the_adapters_is_found_as_micromanager_finds_it(tmp_path: Path) -> None:
    named = MicroManagerConfig(
        kind="micromanager", config_file="MMConfig_demo.cfg", adapter_path=device_adapter_path()
    )
    assert share(named, rig_file(tmp_path / "copy"))


def test_what_lies_inside_the_process_is_shared_with_nobody() -> None:
    assert hardware_of(SimulatedConfig()) == []
