"""What a rig remembers of a fault when the disk refuses, the process is killed, or something odd lies in its place.

Real processes under real trouble: each remembers a fault, and is killed before it can do more.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from focusd.daemon import memory as module
from focusd.daemon.events import EventBus
from focusd.daemon.memory import Record, Recorder, RigMemory
from focusd.daemon.rig import Rig
from focusd.storage.files import sealed
from tests.daemon.scripted import ScriptedMicroscope, config_of
from tests.storage.test_files import ODD

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its limits and kills are others")

FAULT = "the camera did not answer within 10 s"
KILLED = """
import os, resource, signal, subprocess, sys
from contextlib import suppress
from pathlib import Path
from focusd.daemon.memory import Record, RigMemory

state = Path(sys.argv[1])
memory = RigMemory(state / "rig.json", Path(sys.argv[2]))
memory.begin_to_open()
memory.forget_fault("the hardware was opened")

def full():
    with suppress(OSError), open(state / "filler", "wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass

def limited(what, to):
    resource.setrlimit(what, (to, to))

def read_only():
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)

def lost():
    for file in state.iterdir():
        file.unlink()
    state.rmdir()

def none():
    pass

{
    "full disk": full,
    "all full": full,
    "file size": lambda: limited(resource.RLIMIT_FSIZE, 0),
    "descriptors": lambda: limited(resource.RLIMIT_NOFILE, 3),
    "read-only": read_only,
    "lost folder": lost,
    "healthy disk": none,
}[sys.argv[3]]()
for fault in sys.argv[4:]:
    memory.write(Record(12.5, "refocus", fault))
os.kill(os.getpid(), signal.SIGKILL)
"""
IN_A_SMALL_DISK = """
mount -t tmpfs -o size=64k,mode=700 tmpfs "$1" && "${@:2}"; code=$?
mount -o remount,rw "$1"; rm -f "$1/filler"; cp -a "$1" "$1.after"; umount "$1"; cp -a "$1.after/." "$1"; exit $code
"""
"""In a mount namespace of its own; what is left on the disk, once there is room again, is copied out."""


def can_mount() -> bool:
    with suppress(OSError):
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    return False


def remembered_after(trouble: str, folder: Path, *fault: str) -> Record:
    """What the next start knows of a process that met a fault in some trouble with its disk, and was killed."""
    state = folder / "state"
    runtime = state if trouble == "all full" else folder / "runtime"
    state.mkdir()
    runtime.mkdir(exist_ok=True)
    command = [sys.executable, "-c", KILLED, str(state), str(runtime), trouble, *fault]
    if trouble in ("full disk", "all full", "read-only"):
        if not can_mount():
            pytest.skip("no disk can be mounted here")
        command = ["unshare", "--mount", "bash", "-c", IN_A_SMALL_DISK, "bash", str(state), *command]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), ended.stderr
    state.mkdir(exist_ok=True)
    return RigMemory(state / "rig.json", runtime).recall()


@pytest.mark.parametrize("trouble", ["full disk", "read-only", "lost folder", "healthy disk"])
def test_a_fault_outlives_a_kill_whatever_the_disk_refuses(tmp_path: Path, trouble: str) -> None:
    assert remembered_after(trouble, tmp_path, FAULT).fault == FAULT


@pytest.mark.parametrize("trouble", ["all full", "file size", "descriptors"])
def test_where_no_file_can_be_written_at_all_it_is_remembered_that_there_may_be_a_fault(
    tmp_path: Path, trouble: str
) -> None:
    record = remembered_after(trouble, tmp_path, FAULT)
    assert record.fault
    assert "it may have ended in a fault" in record.fault
    assert record.z_um is None, "it is not known where the stage stands"


@pytest.mark.parametrize("trouble", ["all full", "descriptors", "healthy disk"])
def test_a_kill_without_a_fault_is_none(tmp_path: Path, trouble: str) -> None:
    record = remembered_after(trouble, tmp_path)
    assert (record.fault, record.why) == (None, "the hardware was opened")


def sealed_with(**values: object) -> str:
    return sealed({"format": 1, "z_um": 1.0, "why": "", "fault": None, "hold": None, "written": ""} | values)


def put(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "harm",
    [
        *ODD,
        put("[" * 200_000),
        put(sealed({"z_um": 1.0})),
        put(sealed_with(z_um="1.0")),
        put(sealed_with(z_um=float("nan"))),
        put(sealed_with(fault=7)),
        put(sealed_with(hold=["a hold"])),
        put(sealed_with(more=1)),
    ],
)
def test_whatever_lies_in_the_place_of_the_record_is_a_fault_and_set_aside(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    memory = RigMemory(tmp_path / "rig.json", tmp_path / "runtime")
    harm(memory.path)
    fault = memory.recall().fault
    assert fault
    assert "rig.json.bad-" in fault
    memory.write(memory.record)
    assert RigMemory(memory.path, tmp_path / "runtime").recall().fault == fault


def test_a_record_that_was_set_aside_and_not_written_anew_is_a_fault(tmp_path: Path) -> None:
    """As after a kill between the two."""
    memory = RigMemory(tmp_path / "rig.json", tmp_path / "runtime")
    memory.path.write_text("{")
    for _ in range(2):
        assert memory.recall().fault


def test_a_fault_that_is_on_disk_stays_there_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when focusd is started again and again on a full disk."""
    RigMemory(tmp_path / "rig.json", tmp_path).write(Record(5.0, "refocus", FAULT))
    for _ in range(2):
        with monkeypatch.context() as full:
            full.setattr(os, "replace", refuse)
            memory = RigMemory(tmp_path / "rig.json", tmp_path)
            assert (memory.recall().fault, memory.record.z_um) == (FAULT, 5.0)
            memory.write(memory.record)
            assert memory.unwritten
    assert [path.name for path in tmp_path.iterdir()] == ["rig.json"]


def refuse(_new: Path, _old: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.anyio
async def test_a_fault_is_remembered_before_anybody_is_told_of_what_comes_after_it(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    rig, bus = Rig(ScriptedMicroscope(), config.stage, config.camera), EventBus()
    memory = RigMemory(tmp_path / "rig.json", tmp_path / "runtime")
    memory.begin_to_open()
    memory.forget_fault("the hardware was opened")
    recorder = Recorder(memory, rig)  # whose thread has not come to it
    rig._devices.latch(FAULT)
    with bus.subscribed(recorder.hear):
        bus.publish("log", {"event": "any event"})
        assert RigMemory(memory.path, tmp_path / "runtime").recall().fault == FAULT
    await rig.aclose()


@pytest.mark.anyio
async def test_what_the_disk_refuses_is_tried_again_and_the_state_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    config = config_of(tmp_path)
    rig = Rig(ScriptedMicroscope(), config.stage, config.camera)
    memory, bus = RigMemory(tmp_path / "rig.json", tmp_path / "runtime"), EventBus()
    memory.begin_to_open()
    recorder = Recorder(memory, rig)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            with monkeypatch.context() as full:
                full.setattr(os, "replace", refuse)
                tasks.start_soon(recorder.keep)
                while not rig.unrecorded:  # noqa: ASYNC110
                    await anyio.sleep(0.005)
                assert "rig.json cannot be written: No space left on device" in rig.unrecorded
            while rig.unrecorded:  # noqa: ASYNC110
                await anyio.sleep(0.005)
            assert RigMemory(memory.path, tmp_path / "runtime").recall().fault is None
            rig._devices.latch(FAULT)
            with bus.subscribed(recorder.hear):
                bus.publish("log", {"event": "any event"})
            while RigMemory(memory.path, tmp_path / "runtime").recall().fault != FAULT:  # noqa: ASYNC110
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
    await rig.aclose()
