"""What a rig remembers, and when its hardware is left alone at the start of the next run."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from focusd.config import MicroManagerConfig, RigConfig
from focusd.daemon import opening
from focusd.daemon.events import EventBus
from focusd.daemon.memory import OPENING, Record, Recorder, RigMemory
from focusd.daemon.opening import BEFORE, RigTakenError, opened_rig
from focusd.daemon.rig import Rig
from focusd.errors import ConfigError, HardwareError
from tests.daemon.scripted import ScriptedMicroscope, config_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path) -> RigConfig:
    return config_of(tmp_path, stage={"timeout_s": 0.1})


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch, microscope: ScriptedMicroscope) -> list[RigConfig]:
    """How often hardware was opened."""
    asked: list[RigConfig] = []

    def open_it(config: RigConfig) -> ScriptedMicroscope:
        asked.append(config)
        return microscope

    monkeypatch.setattr(opening, "open_microscope", open_it)
    return asked


def remembered(config: RigConfig) -> Record:
    return RigMemory(config.state_folder / "rig.json").recall()


@asynccontextmanager
async def recording(rig: Rig, memory: RigMemory) -> AsyncIterator[EventBus]:
    """A bus whose events are kept; all are on disk after it."""
    bus, recorder = EventBus(), Recorder(memory, rig)
    async with anyio.create_task_group() as tasks:
        with bus.subscribed(recorder.hear):
            tasks.start_soon(recorder.keep)
            yield bus
        tasks.cancel_scope.cancel()
    recorder.stop(forget_fault=False)


async def test_the_last_z_and_why_are_remembered(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope
) -> None:
    async with opened_rig(config) as (rig, memory), recording(rig, memory) as bus:
        await rig.move_to(42.0)
        bus.publish("job", {"kind": "move", "client": "ada", "state": "succeeded"}, "j1")
    record = remembered(config)
    assert (record.z_um, record.fault) == (42.0, None)
    assert "move j1 of ada: succeeded" in record.why
    assert record.written


async def test_while_a_job_runs_the_record_says_so(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope
) -> None:
    async with opened_rig(config) as (rig, memory), recording(rig, memory) as bus:
        bus.publish("job", {"kind": "refocus", "client": "", "state": "running"}, "j2")
        with anyio.fail_after(10):
            while remembered(config).why != "refocus j2 of a client: running":  # noqa: ASYNC110
                await anyio.sleep(0.005)


async def test_after_a_hung_call_the_next_start_leaves_the_hardware_alone(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    async with opened_rig(config) as (rig, memory), recording(rig, memory) as bus:
        microscope.at_snap = lambda _number: gate.wait(10)
        with pytest.raises(HardwareError):
            await rig.snap()
        bus.publish("state", {"fault": rig.fault})
    gate.set()
    assert remembered(config).fault == "the camera did not answer within 0.101 s"
    for _ in range(2):  # a second restart is no operator either
        async with opened_rig(config) as (rig, memory), recording(rig, memory):
            assert rig.fault
            assert "camera did not answer" in rig.fault
            assert rig.last_z_um == 3.0
            for refused in (rig.snap, rig.position_um, rig.return_to_start):
                with pytest.raises(HardwareError, match="focusctl reconnect"):
                    await refused()
    assert len(opens) == 1
    memory.forget_fault("an operator reconnects")
    async with opened_rig(config) as (rig, _):
        assert await rig.position_um() == 3.0
    assert len(opens) == 2


async def test_an_end_in_mid_opening_counts_as_a_fault(
    config: RigConfig, monkeypatch: pytest.MonkeyPatch, microscope: ScriptedMicroscope
) -> None:
    class KilledError(BaseException):
        pass

    def die(_config: RigConfig) -> None:
        assert remembered(config).fault == OPENING
        raise KilledError

    monkeypatch.setattr(opening, "open_microscope", die)
    with pytest.raises(KilledError):
        async with opened_rig(config):
            pass
    async with opened_rig(config) as (rig, _):
        assert rig.fault == f"disconnected since the last run: {OPENING}"


@pytest.mark.parametrize("error", [HardwareError("it is switched off"), ConfigError("no such camera")])
async def test_hardware_that_refuses_to_open_may_be_tried_again(
    config: RigConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_config: RigConfig) -> None:
        raise error

    monkeypatch.setattr(opening, "open_microscope", refuse)
    with pytest.raises(type(error)):
        async with opened_rig(config):
            pass
    record = remembered(config)
    assert record.fault is None
    assert str(error) in record.why


async def test_a_stage_that_hangs_at_the_start_is_not_asked_again(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(microscope, "position_um", lambda: gate.wait(10))
    with pytest.raises(HardwareError, match="the stage did not answer"):
        async with opened_rig(config):
            pass
    gate.set()
    async with opened_rig(config) as (rig, _):
        assert rig.fault
    assert len(opens) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text(path.read_text().replace("3.0", "9.0")),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b""),
    ],
)
async def test_a_damaged_record_is_set_aside_and_the_start_is_safe(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope, harm: Callable[[Path], object]
) -> None:
    async with opened_rig(config) as (rig, memory), recording(rig, memory):
        pass
    harm(memory.path)
    async with opened_rig(config) as (rig, _):
        assert rig.fault
        assert "cannot be read" in rig.fault
    assert len(list(memory.path.parent.glob("rig.json.bad-*"))) == 1
    assert len(opens) == 1


async def test_a_full_disk_is_reported_and_stops_nothing(
    config: RigConfig,
    opens: list[RigConfig],
    microscope: ScriptedMicroscope,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_rig(config) as (rig, memory):

        def full(_source: Path, _target: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            memory.write(Record(7.0, "nobody hears this"))
        assert await rig.move_to(5.0) == 5.0
    assert remembered(config).why == "the hardware was opened"


async def test_one_process_owns_a_rig(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope
) -> None:
    async with opened_rig(config):
        with pytest.raises(RigTakenError, match=r"another focusd runs this rig .*another name"):
            async with opened_rig(config):
                pass
    async with opened_rig(config):
        pass
    assert len(opens) == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE])
async def test_hardware_whose_faults_could_not_be_remembered_is_not_opened(
    config: RigConfig,
    opens: list[RigConfig],
    microscope: ScriptedMicroscope,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(RigTakenError, match=f"rig.json: cannot be written .{os.strerror(error)}"):
            async with opened_rig(config):
                pass
    assert not opens
    async with opened_rig(config) as (rig, _):
        assert rig.fault is None
    assert len(opens) == 1


async def test_the_words_for_a_fault_do_not_grow_with_each_start(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope
) -> None:
    config.state_folder.mkdir(parents=True)
    RigMemory(config.state_folder / "rig.json").write(Record(fault="it hangs"))
    for _ in range(3):
        async with opened_rig(config) as (rig, memory), recording(rig, memory):
            assert rig.fault == f"{BEFORE}it hangs"
    assert not opens


def on_hardware(config: RigConfig, name: str, file: Path) -> RigConfig:
    """A rig of another name, state folder and ports on the hardware of a Micro-Manager file."""
    hardware = MicroManagerConfig(kind="micromanager", config_file=str(file))
    return config.model_copy(
        update={"name": name, "state_dir": config.state_dir / name, "microscope": hardware}
    )


async def test_one_process_drives_hardware_whatever_the_rig_is_called(
    config: RigConfig, opens: list[RigConfig], microscope: ScriptedMicroscope, tmp_path: Path
) -> None:
    (tmp_path / "rig.cfg").write_text(f"Device,Z,Vendor,{tmp_path}\n")
    (tmp_path / "copy.cfg").write_text(f"# mine\nDevice,Z,Vendor,{tmp_path}\n")
    (tmp_path / "other.cfg").write_text(f"Device,Z,Vendor,{tmp_path} 2\n")
    async with opened_rig(on_hardware(config, "first", tmp_path / "rig.cfg")):
        for file in ("rig.cfg", "copy.cfg"):
            with pytest.raises(RigTakenError, match=r"another focusd drives this hardware .* stop it first"):
                async with opened_rig(on_hardware(config, "second", tmp_path / file)):
                    pass
        async with opened_rig(on_hardware(config, "third", tmp_path / "other.cfg")):
            pass
    async with opened_rig(on_hardware(config, "second", tmp_path / "rig.cfg")):
        pass
    assert len(opens) == 3


async def test_a_state_folder_that_cannot_be_made_is_named(config: RigConfig) -> None:
    config.state_dir.joinpath(config.name).write_text("in the way")
    with pytest.raises(RigTakenError, match="check state_dir"):
        async with opened_rig(config):
            pass
