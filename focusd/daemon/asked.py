"""Runs that clients drive: camera and stage are the client's, which sends frames and is told where to expose next.

Several runs go on side by side. Each is bounded by its budget, and one that nobody tells anything ends by itself.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import structlog
from anyio import to_thread

from focusd.autofocus import Autofocus
from focusd.daemon.events import Payload
from focusd.errors import BusyError, CalibrationError, FocusdError, InternalError, RequestError
from focusd.focus.frame import Frame
from focusd.focus.run import Run
from focusd.protocol.results import CalibrationResult, RefocusResult, RunAnswer, RunDropped
from focusd.protocol.runs import AskParams, Kind

log = structlog.get_logger(__name__)

Report = Callable[[str, Payload], object]

MOST_RUNS = 16
"""Of all clients together. One more ends the run that has waited longest, of the client that has most of them."""
IDLE_S = 300.0
"""A run that is told nothing for so long ends."""


@dataclass(eq=False)
class AskedRun:
    """One run of a client.

    Attributes:
        owner: who asked for it.
        run: None once it has ended: its measurements take megabytes.
        began_s, told_s: when it began and when it was last asked for or told something, by `time.perf_counter()`.
        is_told: a request works on it.
    """

    id: str
    kind: Kind
    owner: Hashable
    run: Run[Any] | None
    began_s: float
    told_s: float
    is_told: bool = False
    _result: RefocusResult | CalibrationResult | None = None
    _error: FocusdError | None = None

    def answer(self) -> RunAnswer:
        """Return the planes to expose next, and the result at the end.

        Raises:
            FocusdError: with which the run ended.
        """
        if self._error is not None:
            raise self._error
        expose_um = list(self.run.expose_um) if self.run else []
        return RunAnswer(run=self.id, expose_um=expose_um, result=self._result)

    def end(self, result: RefocusResult | CalibrationResult | FocusdError) -> None:
        """Keep how it ended, and nothing else."""
        self.run = None
        if isinstance(result, FocusdError):
            self._error = result.with_traceback(None)  # its frames would keep the camera's frames alive
        else:
            self._result = result


class AskedRuns:
    """The runs of all clients.

    Args:
        report: publishes `focus.progress`, `focus.done` and `focus.failed`, with the run's id.
        found: hears each focus that is found, once.
    """

    def __init__(
        self, autofocus: Autofocus, report: Report, found: Callable[[RefocusResult], object]
    ) -> None:
        self._autofocus = autofocus
        self._report = report
        self._found = found
        self._runs: dict[str, AskedRun] = {}
        self._scoring = anyio.CapacityLimiter(2)  # one decides while another is scored

    async def ask(self, owner: Hashable, asked: AskParams) -> RunAnswer:
        """Begin a run, and say which planes to expose first.

        Args:
            owner: who asks: a name, a key or a connection.

        Raises:
            CalibrationError: there is no calibration, or the client's rig is another one.
            FocusdError: what beginning the run raises.
        """
        self._require_rig(asked.rig)
        options = asked.options()
        begin: Callable[..., Run[Any]] = (
            self._autofocus.refocus if asked.kind == "refocus" else self._autofocus.calibrate
        )
        run = await to_thread.run_sync(partial(begin, asked.z_um, asked.limits_um, **options))
        self._make_room()
        now_s = time.perf_counter()
        begun = AskedRun(secrets.token_hex(8), asked.kind, owner, run, now_s, now_s)
        self._runs[begun.id] = begun
        return begun.answer()

    async def tell(self, run_id: str, frames: Sequence[Frame]) -> RunAnswer:
        """Tell a run what the client exposed; without frames it says again what it wants, or its result.

        Frames after the one that ends the run are not needed, and are not looked at.

        Raises:
            RequestError: there is no such run, or it has ended.
            BusyError: another request tells this run frames.
            FocusdError: with which the run ends.
        """
        asked = self._get(run_id)
        if asked.is_told:
            raise BusyError("another request tells this run frames: tell them one after the other")
        asked.is_told = True
        try:
            if frames and asked.run is None:
                asked.answer()  # raises what the run ended with
                raise RequestError(f"the run {asked.id} has ended: ask for another one")
            for frame in frames:
                if asked.run is not None:
                    await self._tell_one(asked, asked.run, frame)
        finally:
            asked.is_told, asked.told_s = False, time.perf_counter()
        return asked.answer()

    def drop(self, run_id: str) -> RunDropped:
        """Give a run up. One that has ended or is not known is no error."""
        return RunDropped(dropped=self._runs.pop(run_id, None) is not None)

    def expire(self) -> None:
        """End the runs that nobody has told anything for long."""
        oldest_s = time.perf_counter() - IDLE_S
        for asked in [a for a in self._runs.values() if a.told_s < oldest_s and not a.is_told]:
            self._end(asked, f"nobody told it anything for {IDLE_S:g} s")

    async def _tell_one(self, asked: AskedRun, run: Run[Any], frame: Frame) -> None:
        elapsed_s = time.perf_counter() - asked.began_s
        about = {"run": asked.id, "kind": asked.kind}
        try:
            await to_thread.run_sync(partial(run.tell, frame, elapsed_s=elapsed_s), limiter=self._scoring)
        except FocusdError as error:
            if run.has_ended:
                asked.end(error)
                self._report("focus.failed", about | {"outcome": error.outcome, "reason": error.message})
            raise
        except Exception as error:  # what it knows by now cannot be trusted
            asked.end(InternalError.of(error))
            raise
        self._report("focus.progress", run.progress.model_dump() | {"run": asked.id})
        if run.has_ended:
            asked.end(run.result)
            if isinstance(run.result, RefocusResult):
                self._found(run.result)
            self._report("focus.done", run.result.model_dump() | about)

    def _require_rig(self, rig: Mapping[str, object]) -> None:
        """Refuse what the client says of its rig where it contradicts the configuration.

        Raises:
            RequestError: there is no such part.
            CalibrationError: names the part that differs.
        """
        for name, told in rig.items():
            known = self._autofocus.fingerprint.get(name)
            if name not in self._autofocus.fingerprint:
                raise RequestError(f"a rig has no {name!r}: it has {', '.join(self._autofocus.fingerprint)}")
            if told != known:
                raise CalibrationError(
                    f"this daemon is configured for {name} = {known!r}, and the client's is {told!r}: ask a daemon "
                    "that is configured for it",
                    field=name,
                    configured=known,
                    told=told,
                )

    def _get(self, run_id: str) -> AskedRun:
        try:
            return self._runs[run_id]
        except KeyError:
            raise RequestError(
                f"there is no run {run_id!r}: it was dropped, it waited for frames for more than {IDLE_S:g} s, or "
                "the daemon was started anew; ask for another one"
            ) from None

    def _make_room(self) -> None:
        """Keep the number of runs bounded: nobody's runs may push out those of clients that have fewer."""
        self.expire()
        if len(self._runs) < MOST_RUNS:
            return
        counts = Counter(asked.owner for asked in self._runs.values())
        most, _ = counts.most_common(1)[0]
        waiting = [a for a in self._runs.values() if a.owner == most and not a.is_told]
        if not waiting:
            raise BusyError(f"{MOST_RUNS} runs are being told frames at once; try again in a second")
        self._end(min(waiting, key=lambda asked: asked.told_s), "its client began too many others")

    def _end(self, asked: AskedRun, why: str) -> None:
        del self._runs[asked.id]
        if asked.run is not None:
            log.info("a client's run ends", run=asked.id, kind=asked.kind, why=why)
            self._report(
                "focus.failed", {"run": asked.id, "kind": asked.kind, "outcome": "cancelled", "reason": why}
            )
