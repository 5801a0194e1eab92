"""A rig from its configuration: for one process alone, its last record first, then its hardware if that allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from focusd.config import ClientConfig, RigConfig
from focusd.daemon.memory import Record, RigMemory
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError
from focusd.microscope.disconnected import DisconnectedMicroscope
from focusd.microscope.factory import open_microscope
from focusd.microscope.identity import hardware_of
from focusd.microscope.protocol import Microscope
from focusd.storage.claims import claim
from focusd.storage.files import lock

log = structlog.get_logger(__name__)


BEFORE = "disconnected since the last run: "


class RigTakenError(FocusdError):
    """Another process owns this rig or its hardware, or its state cannot be kept."""


@dataclass(frozen=True)
class Borrowed:
    """Hardware that another program has opened.

    Attributes:
        open: makes a microscope of it.
        hardware: what it is, in the words of `hardware_of`.
    """

    open: Callable[[RigConfig], Microscope]
    hardware: Sequence[str]


@asynccontextmanager
async def opened_rig(
    config: RigConfig, borrowed: Borrowed | None = None
) -> AsyncIterator[tuple[Rig, RigMemory]]:
    """The rig, ours alone inside the `async with`; disconnected and at fault if the last run ended in a fault.

    Args:
        borrowed: another program's hardware; None: the hardware is opened as configured.

    Raises:
        RigTakenError: another focusd runs it or drives its hardware, or its state cannot be kept.
        FocusdError: the hardware does not open.
    """
    with _ours_alone(config, borrowed):
        memory = RigMemory(config.state_folder / "rig.json")
        record = await to_thread.run_sync(memory.recall)
        if record.written:
            log.info("the last run", z_um=record.z_um, why=record.why, written=record.written)
        rig = _disconnected(config, record) if record.fault else await _connected(config, memory, borrowed)
        try:
            yield rig, memory
        finally:
            with anyio.CancelScope(shield=True):
                await rig.aclose()


@contextmanager
def _ours_alone(config: RigConfig, borrowed: Borrowed | None) -> Iterator[None]:
    """Hold the rig's state and its hardware against all other processes inside the `with`."""
    with ExitStack() as resources:
        _hold_state(config.state_folder, resources)
        hold_hardware(config, resources, borrowed)
        yield


def _hold_state(folder: Path, resources: ExitStack) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder / "lock", resources)
    except BlockingIOError as error:
        raise RigTakenError(
            f"another focusd runs this rig (it holds {folder / 'lock'}): stop it, or give this rig another name"
        ) from error
    except OSError as error:
        raise _unwritable(error.filename or folder, error) from error


def hold_hardware(config: RigConfig, resources: ExitStack, borrowed: Borrowed | None = None) -> None:
    """Hold a rig's hardware against all other processes of this machine until `resources` close.

    Args:
        borrowed: as for `opened_rig`.

    Raises:
        RigTakenError: another focusd drives some of it.
        ConfigError: it cannot be found out what the hardware is.
    """
    for hardware in borrowed.hardware if borrowed else hardware_of(config.microscope):
        try:
            claim(hardware, resources)
        except BlockingIOError as error:
            raise RigTakenError(
                f"another focusd drives this hardware ({error.strerror}: {hardware}): stop it first; it may run "
                "under another name, or for another user"
            ) from error


def _unwritable(path: Path | str, error: OSError) -> RigTakenError:
    return RigTakenError(
        f"{path}: cannot be written ({error.strerror}); check state_dir in the configuration"
    )


def _disconnected(config: RigConfig, record: Record) -> Rig:
    """A rig that knows where it was left, and is not touched."""
    fault = BEFORE + (record.fault or "").removeprefix(BEFORE)
    rig = Rig(DisconnectedMicroscope(config.camera.name), config.stage, config.camera, fault)
    rig.last_z_um = record.z_um
    log.error("the hardware is left alone until an operator runs `focusctl reconnect`", fault=record.fault)
    return rig


async def _connected(config: RigConfig, memory: RigMemory, borrowed: Borrowed | None) -> Rig:
    """A rig whose hardware is open and says where it stands. An end in mid-opening is remembered as a fault.

    Hardware whose faults could not be remembered is not opened.
    """
    try:
        await to_thread.run_sync(memory.begin_to_open)
    except OSError as error:
        raise _unwritable(memory.path, error) from error
    rig: Rig | None = None
    try:
        microscope = await to_thread.run_sync(borrowed.open if borrowed else open_microscope, config)
        rig = Rig(microscope, config.stage, config.camera, borrowed=borrowed is not None)
        if not isinstance(config.microscope, ClientConfig):
            await rig.position_um()  # a stage that cannot even be read is told now, not at the first request
    except FocusdError as error:
        if rig is not None:
            await rig.aclose()
        # Hardware that refuses may be asked again; one that hangs may not.
        why, fault = f"the hardware did not open: {error.message}", rig.fault if rig else None
        await to_thread.run_sync(memory.write, replace(memory.record, why=why, fault=fault))
        raise
    await to_thread.run_sync(memory.forget_fault, "the hardware was opened")
    return rig
