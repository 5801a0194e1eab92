"""focusd on a core that a program has opened: it focuses, and leaves the core and the process as they were."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mm_test_adapters
import pytest
import structlog
import torch
from pymmcore_plus import CMMCorePlus

import focusd
from focusd import standalone
from focusd.client import Client
from focusd.config import RigConfig
from focusd.embedded import FocusLostError, attach
from focusd.errors import BusyError, ConfigError, FocusdError, NoSampleError
from focusd.microscope.micromanager import close_core
from tests.embedded.owned import Bench, attached, config_of, core_state, opened, own_threads

DOF_UM = 8.28


def torch_s_threads() -> tuple[int, int]:
    """Of this thread, and of one that begins now."""
    begun: list[int] = []
    thread = threading.Thread(target=lambda: begun.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return torch.get_num_threads(), begun[0]


def process_state() -> dict[str, Any]:
    return {
        "switch interval": sys.getswitchinterval(),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "torch": torch_s_threads(),
        "signals": [signal.getsignal(number) for number in signal.Signals],
        "structlog": structlog.is_configured(),
    }


def test_the_core_s_autofocus_brings_the_sample_into_focus(bench: Bench) -> None:
    bench.owned.stage.set_position_um(18.0)
    bench.core.fullFocus()
    assert abs(bench.owned.defocus_um) < 0.1 * DOF_UM
    assert 0 < bench.focusd.exposures <= 4, "the first run of a rig does not know its scale of z"
    assert 0 < bench.core.getLastFocusScore() <= 1


def test_the_face_of_focusd_attaches_too(tmp_path: Path) -> None:
    with opened(config_of(tmp_path)) as (owned, rig), focusd.attach(owned.core, rig) as attached_to:
        assert attached_to.state()["microscope"] == "embedded"


def test_core_and_process_are_the_same_before_and_after(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    with opened(config_of(tmp_path)) as (owned, rig):
        before, process, threads = core_state(owned.core), process_state(), own_threads()
        focusd = attach(owned.core, rig)
        assert process_state() == process | {"structlog": True}
        assert owned.core.getAutoFocusDevice() == "focusd"
        owned.focus_by_eye()
        focusd.calibrate()
        owned.core.fullFocus()
        focusd.detach()
        focusd.detach()
        deadline_s = time.monotonic() + 10
        while own_threads() > threads and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert core_state(owned.core) == before
        assert process_state() == process
        assert own_threads() <= threads


@pytest.mark.parametrize("live", [False, True])
def test_what_an_operation_borrows_it_gives_back(bench: Bench, live: bool) -> None:
    core = bench.core
    core.setExposure(33.0)
    core.setProperty("camera", "Binning", "2")
    core.setROI(10, 20, 64, 32)
    core.setConfig("Channel", "red")
    if live:
        core.startContinuousSequenceAcquisition(0)
    before = core_state(core)
    core.fullFocus()
    assert core_state(core) == before
    if live:
        core.stopSequenceAcquisition()


def test_a_camera_that_raises_gives_all_back_too_and_can_be_asked_again(bench: Bench) -> None:
    core = bench.core
    core.setExposure(33.0)
    core.setROI(10, 20, 64, 32)
    before, z_um = core_state(core), core.getPosition()
    bench.owned.camera.fails = 1
    with pytest.raises(FocusLostError, match=r"hardware_error.*cable is loose") as lost:
        core.fullFocus()
    assert isinstance(lost.value, RuntimeError)
    assert isinstance(lost.value.__cause__, FocusdError)
    assert core_state(core) == before
    assert core.getPosition() == pytest.approx(z_um, abs=0.01)
    core.snapImage()  # something has changed since
    core.fullFocus()
    assert abs(bench.owned.defocus_um) < 0.1 * DOF_UM


def test_the_rig_s_own_channel_is_borrowed(tmp_path: Path) -> None:
    seen: list[str] = []
    with opened(config_of(tmp_path)) as (owned, rig):
        microscope = rig.microscope.model_copy(update={"channel": "white"})
        with attach(owned.core, rig.model_copy(update={"microscope": microscope})) as focusd:
            owned.focus_by_eye()
            owned.core.events.imageSnapped.connect(
                lambda _label: seen.append(owned.core.getCurrentConfig("Channel"))
            )
            focusd.calibrate()
            assert set(seen) == {"white"}
            assert owned.core.getCurrentConfig("Channel") == "green"


def test_a_second_try_at_the_same_place_costs_no_light(bench: Bench) -> None:
    bench.owned.world.set_scene("empty", 1, 8.0)
    with pytest.raises(FocusLostError, match="no_sample") as first:
        bench.core.fullFocus()
    assert isinstance(first.value.__cause__, NoSampleError)
    exposures = bench.focusd.exposures
    with pytest.raises(FocusLostError, match="no_sample"):
        bench.core.fullFocus()
    assert bench.focusd.exposures == exposures
    bench.core.setPosition(12.0)
    with pytest.raises(FocusLostError, match="no_sample"):
        bench.core.fullFocus()
    assert bench.focusd.exposures > exposures


def test_an_offset_is_where_the_stage_is_left(bench: Bench) -> None:
    bench.core.setAutoFocusOffset(5.0)
    assert bench.core.getAutoFocusOffset() == 5.0
    bench.core.fullFocus()
    assert bench.owned.defocus_um == pytest.approx(5.0, abs=0.1 * DOF_UM)


def test_an_offset_beyond_the_limits_is_refused_with_the_reason(bench: Bench) -> None:
    bench.core.setAutoFocusOffset(500.0)
    with pytest.raises(FocusLostError, match="travel_limit"):
        bench.core.fullFocus()
    assert abs(bench.owned.defocus_um) < 0.1 * DOF_UM


def test_clients_are_served_from_inside(bench: Bench) -> None:
    assert bench.focusd.endpoints is not None
    with Client(bench.focusd.endpoints[0]) as client:
        assert client.state().microscope == "embedded"
        bench.owned.stage.set_position_um(20.0)
        client.refocus()
    assert abs(bench.owned.defocus_um) < 0.1 * DOF_UM


def test_where_the_ports_are_taken_focusd_works_without_them(tmp_path: Path) -> None:
    with attached(tmp_path / "first") as first:
        assert first.focusd.endpoints is not None
        control, events = first.focusd.endpoints
        server = {"control": control, "events": events}
        with attached(tmp_path / "second", server=server) as second:
            assert second.focusd.endpoints is None
            second.core.fullFocus()
        with opened(config_of(tmp_path / "third", server=server)) as (owned, rig):
            microscope = rig.microscope.model_copy(update={"sockets": "required"})
            with pytest.raises(FocusdError, match="is running on"):
                attach(owned.core, rig.model_copy(update={"microscope": microscope}))
            assert type(owned.core).__name__ == "UniMMCore"
            assert not hasattr(owned.core, "_focusd")


def test_one_rig_is_attached_once(tmp_path: Path) -> None:
    with attached(tmp_path, calibrated=False) as bench:
        with pytest.raises(BusyError, match="attached to this core already"):
            attach(bench.core, bench.focusd.config)
        with opened(config_of(tmp_path)) as (other, rig):
            before = core_state(other.core)
            with pytest.raises(FocusdError, match="another focusd runs this rig"):
                attach(other.core, rig)
            assert core_state(other.core) == before


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with opened(config_of(tmp_path)) as (owned, _), pytest.raises(ConfigError, match='"embedded"'):
        attach(owned.core, config_of(tmp_path))


def test_the_daemon_refuses_what_belongs_to_another_program(tmp_path: Path) -> None:
    with opened(config_of(tmp_path)) as (_, rig), pytest.raises(ConfigError, match=r"focusd\.attach\(core"):
        standalone.run(rig)


LEFT_ATTACHED = """
import sys
from pathlib import Path
from tests.embedded.owned import calibration, config_of, opened
from focusd.embedded import attach
context = opened(config_of(Path(sys.argv[1])))
owned, rig = context.__enter__()
focusd = attach(owned.core, rig)
owned.core.setExposure(33.0)
try:
    focusd.refocus()
except Exception as error:
    print(type(error).__name__)
print("left", flush=True)
"""


def test_a_program_that_ends_without_detaching_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT_ATTACHED, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.split() == ["CalibrationError", "left"]
    assert (ended.returncode, ended.stderr) == (0, "")
    with opened(config_of(tmp_path)) as (owned, rig):
        attach(owned.core, rig).detach()


def demo_config(tmp_path: Path, **microscope: Any) -> RigConfig:
    config = config_of(tmp_path, microscope={})
    values = config.model_dump(exclude={"microscope"}) | {"microscope": {"kind": "embedded", **microscope}}
    return RigConfig.model_validate(values)


@pytest.fixture
def demo_core() -> Any:
    """Micro-Manager's own demonstration devices."""
    core = CMMCorePlus(mm_path=mm_test_adapters.device_adapter_path())
    core.loadSystemConfiguration("MMConfig_demo.cfg")
    yield core
    close_core(core)


@pytest.mark.parametrize("live", [False, True])
def test_a_core_of_c_devices_gets_all_back(tmp_path: Path, demo_core: CMMCorePlus, live: bool) -> None:
    """Its pictures show no focus: every operation fails, and has to leave no trace."""
    core = demo_core
    core.setExposure(12.0)
    core.setProperty("Camera", "Binning", "2")
    core.setROI(16, 32, 64, 48)
    core.setAutoShutter(False)
    core.setShutterOpen(True)
    untouched = core_state(core)
    with attach(core, demo_config(tmp_path, channel="FITC")) as focusd:
        if live:
            core.startContinuousSequenceAcquisition(0)
        before = core_state(core)
        with pytest.raises(FocusdError):
            focusd.calibrate()
        assert focusd.exposures > 0
        assert core_state(core) == before
        core.setAutoFocusDevice("Autofocus")
        core.fullFocus()
        assert core.getAutoFocusDevice() == "Autofocus"
        core.setAutoFocusDevice("focusd")
        with pytest.raises(FocusLostError, match="calibration_mismatch"):
            core.fullFocus()
        if live:
            core.stopSequenceAcquisition()
    assert core_state(core) == untouched


def test_a_preset_that_does_not_exist_or_moves_z_is_refused(tmp_path: Path, demo_core: CMMCorePlus) -> None:
    with pytest.raises(ConfigError, match="no preset 'white'"):
        attach(demo_core, demo_config(tmp_path, channel="white"))
    demo_core.defineConfig("Channel", "deep", "Z", "Position", "50")
    with pytest.raises(ConfigError, match="moves the stage"):
        attach(demo_core, demo_config(tmp_path, channel="deep"))


def test_the_same_devices_are_not_driven_twice(tmp_path: Path, demo_core: CMMCorePlus) -> None:
    other = demo_config(tmp_path).model_copy(update={"name": "other"})
    with attach(demo_core, demo_config(tmp_path)):
        core = CMMCorePlus(mm_path=mm_test_adapters.device_adapter_path())
        core.loadSystemConfiguration("MMConfig_demo.cfg")
        try:
            with pytest.raises(FocusdError, match="drives this hardware"):
                attach(core, other)
        finally:
            close_core(core)
