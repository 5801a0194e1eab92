"""What a rig remembers from one run of the daemon to the next: its last z and why, and a fault of its hardware.

After a fault the next start leaves the hardware alone, until an operator asks for it (DESIGN §7): a restart, by
systemd or by hand, must not home a stage that stands on a sample.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread

from focusd.service.events import Event
from focusd.service.files import sealed, set_aside, unsealed, write_atomically
from focusd.service.rig import Rig

log = structlog.get_logger(__name__)

FORMAT = 1
OPENING = "focusd ended while it opened the hardware"


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

    z_um: float | None = None
    why: str = "this rig has not run yet"
    fault: str | None = None
    hold: str | None = None
    written: str | None = None


class RigMemory:
    """The record of one rig on disk, and the events that change it.

    Args:
        path: of the record; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = Record()

    def recall(self) -> Record:
        """Read the record. One that cannot be read counts as a fault: nobody knows what it was about to say."""
        try:
            self.record = _from_text(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.record = Record()
        except (OSError, ValueError, TypeError) as error:
            self.record = Record(fault=_unreadable(self.path, error), why="the record was lost")
        return self.record

    def write(self, record: Record) -> None:
        """Replace the record. A disk that refuses is reported and changes nothing else."""
        self.record = record
        try:
            write_atomically(self.path, _to_text(record))
        except OSError as error:
            log.warning("the rig's record cannot be written", file=str(self.path), reason=error.strerror)

    def begin_to_open(self) -> None:
        """Before the hardware is opened: should that never end, it counts as a fault."""
        self.write(replace(self.record, fault=OPENING))

    def forget_fault(self, why: str) -> None:
        """The hardware may be touched (again)."""
        self.write(replace(self.record, fault=None, why=why))


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
        if event["topic"] == "state":
            if "hold" in event["data"]:
                self._hold = _described(event["data"]["hold"])
            if (self._rig.fault, self._hold) != (self._memory.record.fault, self._memory.record.hold):
                self._changed.set()

    async def keep(self) -> None:
        """Write after each change, the latest alone where several came at once."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await to_thread.run_sync(self._memory.write, self._now())

    def stop(self, forget_fault: bool) -> None:
        """The last word of this run; without its fault if an operator has said so."""
        why = "an operator reconnects" if forget_fault else f"focusd was stopped after: {self._why}"
        last = replace(self._now(), why=why[:500])
        self._memory.write(replace(last, fault=None) if forget_fault else last)

    def _now(self) -> Record:
        return Record(self._rig.last_z_um, self._why[:500], self._rig.fault, self._hold)


def _described(hold: dict[str, Any]) -> str | None:
    """A hold in words, or the one of an earlier run that nobody has taken notice of."""
    if hold["state"] == "disengaged":
        return hold.get("interrupted")
    client, position = hold["client"], hold["position"]
    return "a hold" + (f" of {client}" if client else "") + (f" at {position}" if position else "")


def _to_text(record: Record) -> str:
    written = datetime.now(UTC).isoformat(timespec="milliseconds")
    return sealed({"format": FORMAT, **asdict(record), "written": written})


def _from_text(text: str) -> Record:
    values = unsealed(text)
    if values.pop("format") != FORMAT:
        raise ValueError(f"it is of another format than {FORMAT}")
    return Record(**values)


def _unreadable(path: Path, error: Exception) -> str:
    where = path if isinstance(error, OSError) else set_aside(path, error)
    return f"the record of the last run cannot be read ({error}; see {where}), so that it may have ended in a fault"
