"""Hold the focus: the decisions of `focusd.hold`, carried out between the jobs of others.

Checks are ordinary refocus operations and following is an ordinary move, each a background job of its own: all go
through the guard, give way to any other job, and never start under somebody's lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio
import structlog

from focusd.config import HoldConfig
from focusd.daemon.events import Event, EventBus, Payload
from focusd.daemon.jobs import Jobs, Report, Work
from focusd.errors import (
    BusyError,
    CalibrationError,
    CancelledJobError,
    FocusdError,
    InternalError,
    OutOfRangeError,
)
from focusd.focus.search import USABLE_DOF
from focusd.hold.held import Held, Refocused
from focusd.hold.lock import Check, Follow, Lock, LockSettings
from focusd.hold.tracking import DriftModel
from focusd.protocol.events import Drift, Source
from focusd.protocol.requests import HoldParams, MoveParams, RefocusParams, Tags
from focusd.protocol.results import MoveResult, RefocusResult
from focusd.protocol.states import Disengaged, HoldReport, HoldState

log = structlog.get_logger(__name__)

CHECK, FOLLOW = "hold-check", "hold-follow"
"""The kinds of its jobs."""
_CHECK_SIGMA = 0.15
"""σ of a check, in depths of field: small, since the velocity is learnt from differences of checks. A sample with too
little light for it is checked as well as a refocus would, and more often."""
_BUSY_S = 0.5
"""How soon to try again when the microscope is somebody else's."""
_SOONEST_S, _LATEST_S = 0.05, 60.0


class Operations(Protocol):
    """What a hold asks of the rig."""

    async def refocus(
        self,
        asked: RefocusParams,
        report: Report,
        *,
        usable_um: float | None = None,
        within_um: tuple[float, float] | None = None,
        is_thin: bool = False,
    ) -> RefocusResult:
        """Bring the sample into focus; nothing is exposed outside `within_um`."""
        ...

    async def move(self, asked: MoveParams, report: Report) -> MoveResult:
        """Move the stage to an absolute z."""
        ...

    async def depth_of_field_um(self) -> float:
        """What errors of the focus are measured in."""
        ...

    @property
    def z_um(self) -> float | None:
        """The last z read back."""
        ...

    @property
    def fault(self) -> str | None:
        """What is wrong with the hardware, for good; None: nothing."""
        ...


class Hold:
    """Keeps the sample in focus while engaged.

    Args:
        exposure_ms: of one exposure, for the dose.
        clock: seconds, never stepped.
        interrupted: the hold that the last run of focusd ended with; told until somebody engages or releases.
    """

    def __init__(
        self,
        operations: Operations,
        bus: EventBus,
        jobs: Jobs,
        config: HoldConfig,
        exposure_ms: float,
        clock: Callable[[], float] = time.perf_counter,
        interrupted: str | None = None,
    ) -> None:
        self._operations = operations
        self._bus = bus
        self._jobs = jobs
        self._config = config
        self._exposure_ms = exposure_ms
        self._clock = clock
        self._held: Held | None = None
        self._interrupted = interrupted
        self._woken = anyio.Event()

    async def engage(self, asked: HoldParams) -> HoldReport:
        """Hold the focus from now on; asked again with the same params, go on holding.

        Raises:
            BusyError: somebody holds it with other params.
            CalibrationError: there is no usable calibration.
        """
        dof_um = await self._operations.depth_of_field_um()
        if held := self._held:
            if held.asked != asked:
                client = held.asked.client
                raise BusyError(
                    f"the focus is held already{f' for {client}' if client else ''}; release it first",
                    client=client,
                )
        else:
            wall_s = time.time() - self._clock()
            held = self._held = Held(asked, dof_um, self._new_lock(dof_um), wall_s, self._exposure_ms)
            self._interrupted = None
            log.info("holding", client=asked.client, position=asked.position)
            self._wake()
        return self._report(held)

    async def release(self) -> HoldReport | Disengaged:
        """End the hold, when a check under way has ended; the stage rests where it is."""
        held, self._held, self._interrupted = self._held, None, None
        self._wake()
        job = self._jobs.running
        if job and job.background:
            self._jobs.cancel(job.id)
            await job.wait()
        if held is None:
            return Disengaged(state="disengaged")
        log.info("released", client=held.asked.client)
        return self._report(held).model_copy(update={"state": "disengaged"})

    def state(self) -> HoldState:
        """How the hold stands; what changes with every second is in the drift events alone."""
        if self._held:
            return self._held.standing(self._clock(), self._operations.z_um)
        if self._interrupted is None:
            return Disengaged(state="disengaged")
        reason = f"{self._interrupted} ended with the last run of focusd, which moves nothing by itself: hold again"
        return Disengaged(state="disengaged", reason=reason, interrupted=self._interrupted)

    def saw(self, sharpness: float, z_um: float | None, tags: Tags) -> bool:
        """A frame that somebody else has exposed of the held field; False if it tells the hold nothing.

        Args:
            sharpness: a classical measure of it, always the same one.
            z_um: where the stage stood; None: where it stands.
        """
        held, now_s, stands_um = self._held, self._clock(), self._operations.z_um
        if held is None or self._jobs.running:
            return False
        if not held.learns_from(now_s, stands_um if z_um is None else z_um, stands_um):
            return False
        dropped = held.frame(now_s, sharpness)
        self._tell(held, "frame", tags=tags, sharpness=sharpness, dropped=dropped)
        if dropped:
            self._wake()
        return True

    def disturb(self, by: str) -> None:
        """Begin anew: something has moved the stage, or changed the sample.

        Args:
            by: what it was, in words.
        """
        if held := self._held:
            held.disturbed(by)
            self._wake()

    async def run(self) -> None:
        """Hold until cancelled."""
        with self._bus.subscribed(self._hear):
            while True:
                self._woken = anyio.Event()
                pause_s = await self.turn()
                with anyio.move_on_after(pause_s):
                    await self._woken.wait()

    async def turn(self) -> float:
        """Do what is due; returns the seconds until something will be."""
        held = self._held
        if held is None:
            return _LATEST_S
        if held.learn():
            self._tell(held, "refocus")
        decision = held.lock.decide(self._clock(), self._operations.z_um or 0.0)
        if isinstance(decision, Check):
            return await self._background(CHECK, held, lambda report: self._check(held, report))
        if isinstance(decision, Follow):
            z_um = decision.z_um
            return await self._background(FOLLOW, held, lambda report: self._follow(held, z_um, report))
        return min(max(decision.seconds, _SOONEST_S), _LATEST_S)

    async def _background(self, kind: str, held: Held, work: Work) -> float:
        """Run a job that gives way to all others."""
        held.rests_um = held.at_um = self._operations.z_um
        try:
            job = self._jobs.start(kind, work, held.asked.client, background=True)
            await job.wait()
        except BusyError:
            return _BUSY_S
        finally:
            held.rests_um = None
        return 0.0 if job.state == "succeeded" else _BUSY_S

    async def _check(self, held: Held, report: Report) -> RefocusResult:
        """Measure the focus by a refocus, which also goes there."""
        began_s = self._clock()
        with self._judged(held, CHECK):
            found = await self._refocus(held, report)
            held.checked((began_s + self._clock()) / 2, found)
        held.ended("focused", time.time())
        self._tell(held, "check")
        return found

    async def _refocus(self, held: Held, report: Report) -> RefocusResult:
        """The one place where a check measures; it starts from what the tracker expects, and stays near that."""

        def counted(topic: str, payload: Payload) -> object:
            if topic == "focus.progress":
                held.exposures += 1
                held.seen(payload.get("z_um"))
            return report(topic, payload)

        expected = held.lock.expected(self._clock(), self._operations.z_um or 0.0)
        try:
            return await self._operations.refocus(
                RefocusParams(roi=held.asked.roi, target_um=_CHECK_SIGMA * held.dof_um, prior=expected.prior),
                counted,
                usable_um=USABLE_DOF * held.dof_um,
                within_um=expected.within_um,
                is_thin=held.is_thin,
            )
        except OutOfRangeError as error:
            raise OutOfRangeError(
                f"{error.message}; a hold looks no further than hold.reach_um from where it expects the focus",
                **error.data,
            ) from None

    async def _follow(self, held: Held, z_um: float, report: Report) -> MoveResult:
        with self._judged(held, FOLLOW):
            moved = await self._operations.move(MoveParams(z_um=z_um), report)
        self._tell(held, "follow")
        return moved

    @contextmanager
    def _judged(self, held: Held, kind: str) -> Iterator[None]:
        """Whatever fails inside counts against the lock; what was cancelled has only given way."""
        try:
            yield
        except CancelledJobError:
            raise
        except Exception as error:
            told = error if isinstance(error, FocusdError) else InternalError(repr(error)[:200])
            if kind == CHECK:
                held.ended(told.outcome, time.time())
            suspect = "suspect" in told.data
            held.lock.failed(self._clock(), told.message, self._is_hopeless(told), suspect)
            if held.state(self._clock(), self._operations.z_um) == "lost":
                log.warning("the focus is lost: the stage rests where it is", reason=told.message)
            self._tell(held, "failed", outcome=told.outcome)
            raise
        finally:
            held.seen(self._operations.z_um)

    def _is_hopeless(self, error: FocusdError) -> bool:
        """Whether an operator has to look first: most of what one check has met, the next may not."""
        return isinstance(error, CalibrationError) or self._operations.fault is not None

    def _hear(self, event: Event) -> None:
        """Whatever another job did to the stage or the sample, the hold begins anew after it, or with what it found."""
        if event["topic"] != "job" or event["data"]["state"] in ("queued", "running"):
            return
        job, held = event["data"], self._held
        if held and job["kind"] not in (CHECK, FOLLOW):
            by = f"a {job['kind']} job" + (f" of {job['client']}" if job["client"] else "")
            held.refocused = self._found(held, event, by)
            if held.refocused is None:
                self.disturb(by)
        self._wake()

    def _found(self, held: Held, event: Event, by: str) -> Refocused | None:
        """What the job has found, if it was a refocus of the held region; learnt from in turn, not in an event."""
        if event["data"]["kind"] != "refocus" or event["job_id"] is None:
            return None
        job = self._jobs.status(event["job_id"])
        asked, found = job.params, job.result
        if not isinstance(asked, RefocusParams) or not isinstance(found, RefocusResult):
            return None
        if asked.roi != held.asked.roi or asked.surface is not None:
            return None
        return Refocused(self._clock(), found.z_found_um, found.sigma_um, by)

    def _tell(self, held: Held, source: Source, tags: Tags | None = None, **more: Any) -> None:
        """Publish the estimate as it is now."""
        job = self._jobs.running
        mine = job.id if job and job.background else None
        told = held.asked.tags | (tags or {})
        drift = Drift(source=source, **dict(self._report(held)), tags=told, **more)
        self._bus.publish("drift", drift.model_dump(), mine)

    def _report(self, held: Held) -> HoldReport:
        return held.report(self._clock(), self._operations.z_um)

    def _new_lock(self, dof_um: float) -> Lock:
        config = self._config
        settings = LockSettings(
            config.fraction * dof_um,
            config.min_interval_s,
            config.max_interval_s,
            config.reach_um,
            config.retries,
        )
        return Lock(settings, DriftModel(config.drift_um_per_min / 60, config.step_um))

    def _wake(self) -> None:
        self._woken.set()
