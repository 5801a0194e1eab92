"""The one asynchronous driver of a run: exposures, moves, spectra and scores overlap as far as the run allows.

While one frame is scored, the stage moves to where the run will most likely want it, or the next plane is exposed.
Nothing is exposed before the run has asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus
from anyio.streams.memory import MemoryObjectSendStream

from focusd.daemon.jobs import Report
from focusd.daemon.metrics import STAGE_SECONDS
from focusd.daemon.operation import Operation
from focusd.daemon.stages import stages
from focusd.errors import FocusdError
from focusd.focus.calibrating import CalibrationRun
from focusd.focus.frame import Frame
from focusd.focus.measurement import Measurement
from focusd.focus.refocus import BEYOND_DOF, NEAR_SIGMA, RefocusRun
from focusd.focus.run import Run
from focusd.optics.bands import BlockSpectra
from focusd.protocol.results import CalibrationResult, RefocusResult, Spent

T = TypeVar("T")

NEAR_DOF = 0.05
"""A stage that waits within so many depths of field of a plane is not moved again: the frame's own z counts."""
WAITING_FRAMES = 1
"""Exposed and not yet scored; with the one that is scored and the one being exposed, all that are kept."""


class _Driving:
    """What the drivers of both runs do."""

    def __init__(self, operation: Operation, run: Run[Any], report: Report) -> None:
        self._operation = operation
        self._run = run
        self._report = report

    async def _computed(self, stage: str, function: Callable[..., T], *given: Any, **named: Any) -> T:
        """Call a function that computes, in a thread, and count its time."""
        with self._operation.stopwatch.scoring(), STAGE_SECONDS.labels(stage).time():
            return await to_thread.run_sync(partial(function, *given, **named))

    async def _measured(self, frame: Frame, spectra: BlockSpectra | None = None) -> Measurement:
        return await self._computed("score", self._run.measure, frame, spectra)

    def _add(self, frame: Frame, measurement: Measurement) -> None:
        self._run.add(measurement, frame.exposures, self._operation.stopwatch.elapsed_s)
        self._report("focus.progress", self._run.progress.model_dump())

    async def _judge(self) -> None:
        await to_thread.run_sync(self._run.judge)


class RefocusDriving(_Driving):
    """Drives a search for the focus on a rig."""

    _run: RefocusRun

    def __init__(self, operation: Operation, run: RefocusRun, report: Report) -> None:
        super().__init__(operation, run, report)
        self._turn = anyio.Lock()  # frames are added in their order

    async def drive(self) -> RefocusResult:
        """Bring the sample into focus, and stay there.

        Raises:
            FocusdError: what the run or the hardware raises; its data holds what was spent, and the exposures.
        """
        run, operation = self._run, self._operation
        try:
            await self._judged(await self._opened(run.expose_um))
            while not run.has_ended:
                near_um = NEAR_DOF * run.field.dof_um
                await self._judged(await operation.expose(run.expose_um[0], near_um))
            found = run.result
            beyond_um = BEYOND_DOF * run.field.dof_um
            near_um = NEAR_SIGMA * found.sigma_um
            z_um = await operation.come_to(found.focus_um, near_um, beyond_um, run.limits_um)
        except FocusdError as error:
            error.data.update(self._spent().model_dump())
            raise
        reached = {"z_found_um": z_um, "shift_um": z_um - run.start_um}
        return found.model_copy(update=dict(self._spent()) | reached)

    def _spent(self) -> Spent:
        """Return what the run spent, with time and light as the rig counted them."""
        stopwatch = self._operation.stopwatch
        spent = self._run.spent(stopwatch.exposures)
        return spent.model_copy(
            update={"seconds": stopwatch.elapsed_s, "seconds_by_stage": stopwatch.split()}
        )

    async def _opened(self, planes_um: Sequence[float]) -> Frame:
        """Expose the opening planes; all but the last, which is returned, are scored meanwhile.

        Nothing is exposed before light and readout of the frame before it have been checked, and the frame before that
        has been scored.
        """
        frames: list[Frame] = []
        async with stages() as scoring:

            async def taken(frame: Frame) -> None:
                frames.append(frame)
                if len(frames) < len(planes_um):
                    await self._checked(frame)
                    await scoring.start(self._score_in_turn, frame)

            await self._operation.sweep(planes_um, taken, self._run.before_um)
        return frames[-1]

    async def _checked(self, frame: Frame) -> None:
        with self._operation.stopwatch.scoring():
            await to_thread.run_sync(self._run.measuring.check, frame)

    async def _score_in_turn(self, frame: Frame, *, task_status: TaskStatus[None]) -> None:
        async with self._turn:
            task_status.started()
            self._add(frame, await self._measured(frame))

    async def _judged(self, frame: Frame) -> None:
        """Measure a frame and judge; as soon as the stage's next z can be predicted, it moves there."""
        async with stages() as moving:
            measured = self._overlapped(frame, moving) if self._run.measurements else self._measured(frame)
            self._add(frame, await measured)
            await self._judge()

    async def _overlapped(self, frame: Frame, moving: TaskGroup) -> Measurement:
        """Measure a frame: its score and, at the same time, the spectra.

        A quarter of the spectra, which is ready soonest, tells in most cases where the stage will be wanted.
        """
        some, ahead_um = await self._computed("spectra", self._predicted, frame, thinned=True)
        if ahead_um is not None:
            moving.start_soon(self._operation.move_to, ahead_um)
        spectra: list[BlockSpectra] = []

        async def complete() -> None:
            blocks, later_um = await self._computed("spectra", self._predicted, frame, known=some)
            if ahead_um is None and later_um is not None:
                moving.start_soon(self._operation.move_to, later_um)
            spectra.append(blocks)

        async with stages() as completing:
            completing.start_soon(complete)
            measurement = await self._measured(frame, some)
        return measurement.with_spectra(spectra[0])

    def _predicted(
        self, frame: Frame, *, thinned: bool = False, known: BlockSpectra | None = None
    ) -> tuple[BlockSpectra, float | None]:
        """Compute spectra and what they predict in one thread: each change of threads costs time."""
        spectra = self._run.measuring.spectra(frame, thinned=thinned, known=known)
        return spectra, self._run.predict_focus_um(frame.z_um, spectra)


class CalibrationDriving(_Driving):
    """Drives a calibration on a rig: its stack goes from one end to the other, so that backlash is the same for all."""

    _run: CalibrationRun

    async def drive(self) -> CalibrationResult:
        """Look for structure, take the stack, and return to the start while the curve is fitted.

        Raises:
            FocusdError: what the run or the hardware raises.
        """
        run = self._run
        while run.is_probing:
            frame = await self._operation.expose(run.expose_um[0])
            self._add(frame, await self._measured(frame))
            run.judge()
        async with stages() as fitting:
            await self._swept(run.expose_um, fitting)
            await self._judge()
            await self._swept(run.expose_um, fitting)
        async with stages() as returning:
            returning.start_soon(self._operation.rig.return_to_start)
            await self._judge()
        return run.result

    async def _swept(self, planes_um: Sequence[float], fitting: TaskGroup) -> None:
        """Expose planes and measure each while the next is exposed."""
        run = self._run
        send, receive = anyio.create_memory_object_stream[Frame](WAITING_FRAMES)
        async with receive, stages() as group:
            group.start_soon(self._acquire, planes_um, send)
            async for frame in receive:
                self._add(frame, await self._measured(frame))
                if fit := run.fit_ahead():
                    fitting.start_soon(to_thread.run_sync, fit)

    async def _acquire(self, planes_um: Sequence[float], frames: MemoryObjectSendStream[Frame]) -> None:
        with frames:
            await self._operation.sweep(planes_um, frames.send)
