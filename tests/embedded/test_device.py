"""focusd named in a Micro-Manager configuration file: a program needs no line of code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mm_test_adapters
import pytest
from pymmcore_plus import DeviceType
from pymmcore_plus.experimental.unicore import UniMMCore

from focusd.microscope.micromanager import close_core

RIG = """
name = "from-cfg"
state_dir = "state"
[objective]
name = "10x/0.3"
magnification = 10
na = 0.3
[camera]
pixel_um = 6.5
exposure_ms = 5
[stage]
min_um = -150
max_um = 150
towards_sample = "increasing"
[microscope]
kind = "{kind}"
[server]
control = "tcp://127.0.0.1:*"
events = "tcp://127.0.0.1:*"
"""

CFG = """
Property,Core,Initialize,0
Device,Camera,DemoCamera,DCam
Device,Z,DemoCamera,DStage
Device,Autofocus,DemoCamera,DAutoFocus
#py pyDevice,focusd,focusd.embedded.device,Autofocus
#py Property,focusd,Config,{rig}
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,Focus,Z
Property,Core,AutoFocus,Autofocus
#py Property,Core,AutoFocus,focusd
"""


def load(core: UniMMCore, folder: Path, kind: str = "embedded") -> None:
    (folder / "rig.toml").write_text(RIG.format(kind=kind), encoding="utf-8")
    file = folder / "scope.cfg"
    file.write_text(CFG.format(rig=folder / "rig.toml"), encoding="utf-8")
    core.loadSystemConfiguration(str(file))


@pytest.fixture
def core() -> Iterator[UniMMCore]:
    core = UniMMCore(mm_path=mm_test_adapters.device_adapter_path())
    yield core
    close_core(core)


def test_a_file_attaches_focusd_and_unloading_detaches_it(tmp_path: Path, core: UniMMCore) -> None:
    core.unloadAllDevices()
    before = set(vars(core))
    for _ in range(2):  # loaded a second time, it is attached anew
        load(core, tmp_path)
        assert core.getAutoFocusDevice() == "focusd"
        assert core.getDeviceType("focusd") == DeviceType.AutoFocus
        assert core.getProperty("focusd", "LastResult") == ""
        with pytest.raises(RuntimeError, match="calibration_mismatch"):
            core.fullFocus()
        core.setAutoFocusDevice("Autofocus")
        core.fullFocus()
        core.setAutoFocusDevice("focusd")
        assert core.getAutoFocusDevice() == "focusd"
    core.unloadAllDevices()
    assert type(core) is UniMMCore
    assert set(vars(core)) == before


def test_a_rig_of_another_kind_fails_the_file_with_the_reason(tmp_path: Path, core: UniMMCore) -> None:
    with pytest.raises(RuntimeError, match=r'set microscope\.kind = "embedded"'):
        load(core, tmp_path, kind="simulated")
    assert type(core) is UniMMCore
