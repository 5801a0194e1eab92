"""What a rig remembers from one run of the daemon to the next: its last z and why, and a fault of its hardware.

After a fault the next start leaves the hardware alone, until an operator asks for it: a restart, by systemd or by hand,
must not home a stage that stands on a sample (docs/explanation/safety.md).

A fault must outlive this process on a full or broken disk too. So it is written to the runtime folder first, which
lies on another file system; and a record that cannot be replaced is set aside, which takes no room and no
descriptor: a record that is missing, where one was set aside, counts as a fault.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import anyio
import structlog
from anyio import to_thread
from pydantic import ConfigDict, TypeAdapter

from focusd.daemon.events import Event
from focusd.daemon.rig import Rig
from focusd.storage.files import read_small_text, sealed, set_aside, unsealed, write_atomically

log = structlog.get_logger(__name__)

FORMAT = 1
OPENING = "focusd ended while it opened the hardware"
LARGEST_BYTES = 1 << 20
RETRY_S = 2.0
"""Between two tries to write a record that the disk refuses."""


@dataclass(frozen=True)
class Record:
    """Where a rig was left.

    Attributes:
        z_um: the last z read back; None: never.
        why: what happened last.
        fault: why the hardware must not be touched; None: it may.
        hold: what was held; None: nothing, or somebody has taken notice since.
        written: wall clock, ISO 8601.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    z_um: float | None = None
    why: str = "this rig has not run yet"
    fault: str | None = None
    hold: str | None = None
    written: str | None = None


class RigMemory:
    """The record of one rig on disk, and the events that change it.

    Attributes:
        record: the latest, whether or not it is on disk.
        unwritten: why the latest is not on disk; None: it is.

    Args:
        path: of the record; its folder exists.
        runtime: a folder on another file system, for a fault that cannot be written to `path`; None: as the
            environment says.
    """

    def __init__(self, path: Path, runtime: Path | None = None) -> None:
        self.path = path
        self.record = self._on_disk = Record()
        self.unwritten: str | None = None
        digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
        self._spare = (runtime or _runtime_folder()) / f"focusd-{digest}.json"

    def recall(self) -> Record:
        """Read the record. One that cannot be read counts as a fault: nobody knows what it was about to say."""
        spared = self._spared()
        if spared is None:
            self._on_disk = self._usual()
        self.record = spared or self._on_disk
        return self.record

    def _usual(self) -> Record:
        try:
            return _read(self.path)
        except FileNotFoundError:
            return _missing(self.path)
        except (OSError, ValueError) as error:
            return Record(fault=_unreadable(self.path, error), why="the record was lost")

    def _spared(self) -> Record | None:
        """A fault that may not have reached the usual place; None: there is none."""
        try:
            record = _read(self._spare)
        except OSError:  # nor could it have been written there
            return None
        except ValueError as error:
            return Record(fault=f"{self._spare} holds a fault and cannot be read ({error})")
        return record if record.fault else None

    def write(self, record: Record) -> None:
        """Replace the record. A disk that refuses is reported, and forgets no fault."""
        self.spare(record)
        try:
            self._replace(record)
        except OSError as error:
            self._refused(error)

    def spare(self, record: Record) -> None:
        """Write a fault to the runtime folder, until it has reached the usual place."""
        if record.fault:
            with suppress(OSError):
                write_atomically(self._spare, _to_text(record))

    def begin_to_open(self) -> None:
        """Before the hardware is opened: should that never end, it counts as a fault.

        Raises:
            OSError: the disk refuses; the record is as it was, and the hardware must not be opened.
        """
        self._replace(replace(self.record, fault=OPENING))

    def forget_fault(self, why: str) -> None:
        """The hardware may be touched (again)."""
        self.write(replace(self.record, fault=None, why=why))

    def _replace(self, record: Record) -> None:
        self.record = record
        write_atomically(self.path, _to_text(record))
        self._on_disk = record
        with suppress(OSError):
            self._spare.unlink(missing_ok=True)
        if self.unwritten:
            log.info("the rig's record can be written again", file=str(self.path))
        self.unwritten = None

    def _refused(self, error: OSError) -> None:
        reason = f"{self.path} cannot be written: {error.strerror}"
        if self.unwritten != reason:
            log.warning("the rig's record cannot be written; focusd goes on trying", reason=reason)
        self.unwritten = reason
        if self.record.fault and not self._on_disk.fault:
            with suppress(OSError):
                set_aside(self.path, "it says nothing of the fault that came after it")


class Recorder:
    """Writes the record when a job begins or ends and when a fault is latched, in a thread: disks are slow."""

    def __init__(self, memory: RigMemory, rig: Rig) -> None:
        self._memory = memory
        self._rig = rig
        self._why = "focusd started"
        self._hold = memory.record.hold
        self._changed = anyio.Event()
        self._changed.set()

    def hear(self, event: Event) -> None:
        """A subscriber of the event bus."""
        if event["topic"] == "job":
            job = event["data"]
            self._why = f"{job['kind']} {event['job_id']} of {job['client'] or 'a client'}: {job['state']}"
            self._changed.set()
        if event["topic"] == "state" and "hold" in event["data"]:
            self._hold = _described(event["data"]["hold"])
        if self._rig.fault != self._memory.record.fault:  # at any event: no client hears of a fault before
            self._memory.spare(self._now())
        if (self._rig.fault, self._hold) != (self._memory.record.fault, self._memory.record.hold):
            self._changed.set()

    async def keep(self) -> None:
        """Write after each change, the latest alone where several came at once; try again what the disk refuses."""
        while True:
            with anyio.move_on_after(RETRY_S if self._memory.unwritten else None):
                await self._changed.wait()
            self._changed = anyio.Event()
            await to_thread.run_sync(self._memory.write, self._now())
            self._rig.unrecorded = self._memory.unwritten

    def stop(self, forget_fault: bool) -> None:
        """The last word of this run; without its fault if an operator has said so."""
        why = "an operator reconnects" if forget_fault else f"focusd was stopped after: {self._why}"
        last = replace(self._now(), why=why[:500])
        self._memory.write(replace(last, fault=None) if forget_fault else last)

    def _now(self) -> Record:
        z_um = self._rig.last_z_um
        known_um = z_um if z_um is not None and math.isfinite(z_um) else None
        return Record(known_um, self._why[:500], self._rig.fault, self._hold)


def _runtime_folder() -> Path:
    """Where this user's running programs keep what a restart of the machine may forget."""
    environment = os.environ
    service = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    user = environment.get("XDG_RUNTIME_DIR") or environment.get("TMPDIR") or environment.get("TEMP")
    return Path(service or user or "/tmp")


def _described(hold: dict[str, Any]) -> str | None:
    """A hold in words, or the one of an earlier run that nobody has taken notice of."""
    if hold["state"] == "disengaged":
        return hold.get("interrupted")
    client, position = hold["client"], hold["position"]
    return ("a hold" + (f" of {client}" if client else "") + (f" at {position}" if position else ""))[:500]


def _to_text(record: Record) -> str:
    written = datetime.now(UTC).isoformat(timespec="milliseconds")
    return sealed({"format": FORMAT, **asdict(record), "written": written})


def _read(path: Path) -> Record:
    values = unsealed(read_small_text(path, LARGEST_BYTES))
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"it is of another format than {FORMAT}")
    return TypeAdapter(Record).validate_json(json.dumps(values))


def _missing(path: Path) -> Record:
    """What no record means: the first run, or a fault that could not be written in place of the record set aside."""
    aside = sorted(path.parent.glob(f"{path.name}.bad-*"))
    if not aside:
        return Record()
    return Record(
        fault=f"the last run ended before it could write its record anew (the one before is {aside[-1]}), so that it "
        "may have ended in a fault",
        why="the record was lost",
    )


def _unreadable(path: Path, error: Exception) -> str:
    where = path
    with suppress(OSError):
        where = set_aside(path, error)
    reason = error.strerror if isinstance(error, OSError) else error
    return f"the record of the last run cannot be read ({reason}; see {where}), so that it may have ended in a fault"
