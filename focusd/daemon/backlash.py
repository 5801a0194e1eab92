"""The measurement of the stage's backlash: one refocus after the other, with all planes approached from one side each.

Each is an operation of its own, which ends where it began, and goes beyond its planes by what was asked for instead of
by what is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from anyio import to_thread

from focusd.config import StageConfig
from focusd.daemon.driving import RefocusDriving
from focusd.daemon.jobs import Report
from focusd.daemon.operation import Stopwatch, operation_on
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError, OutOfRangeError
from focusd.focus.backlash import LENGTHS, ROUND, Backlash, Found, backlash_of
from focusd.focus.refocus import RefocusRun
from focusd.microscope.guard import RunUp
from focusd.protocol.requests import BacklashParams
from focusd.protocol.results import BacklashResult, Lit

Prior = tuple[float, float]
Begin = Callable[[float, tuple[float, float], Prior | None], RefocusRun]
"""Makes a search: from where, within which z, and with the focus as far as it is known."""


class BacklashMeasurement:
    """Measures the backlash of a rig's stage.

    Args:
        begin: makes a search for the focus.
        dof_um: depth of field.
        exposure_ms: of the camera.
    """

    def __init__(
        self, rig: Rig, stage: StageConfig, begin: Begin, dof_um: float, exposure_ms: float, report: Report
    ) -> None:
        self._rig = rig
        self._stage = stage
        self._begin = begin
        self._dof_um = dof_um
        self._exposure_ms = exposure_ms
        self._report = report
        self._stopwatch = Stopwatch(rig)
        self._found: list[Found] = []

    async def measure(self, asked: BacklashParams) -> BacklashResult:
        """Find the focus from both sides in turn; the stage ends where it began.

        Raises:
            FocusdError: what a search or the hardware raises; its data holds what was spent.
            OutOfRangeError: the limits leave no room to come from beyond, or the backlash is larger than was asked for.
        """
        room_um = max(LENGTHS) * asked.up_to_um
        within_um = self._stage.min_um + room_um, self._stage.max_um - room_um
        if within_um[0] >= within_um[1]:
            raise OutOfRangeError(
                f"the stage's limits leave no z to which it could come from {room_um:g} µm beyond: measure with "
                "a smaller up_to_um"
            )
        try:
            for run_up in _run_ups(asked, RunUp.of(self._stage)):
                self._found.append(await self._focus(run_up, within_um))
            backlash = backlash_of(self._found)
        except FocusdError as error:
            error.data.update(self._spent().model_dump())
            raise
        return BacklashResult(
            **dict(self._spent()),
            backlash_um=backlash.backlash_um,
            sigma_um=backlash.sigma_um,
            differences_um=list(backlash.differences_um),
            advised_um=backlash.advised_um,
            message=_advice(backlash),
        )

    async def _focus(self, run_up: RunUp, within_um: tuple[float, float]) -> Found:
        async with operation_on(self._rig, run_up) as operation:
            prior = self._expected(run_up)
            run = await to_thread.run_sync(self._begin, operation.start_um, within_um, prior)
            result = await RefocusDriving(operation, run, self._report).drive()
            await self._rig.return_to_start()
        return Found(run_up.way, run_up.length_um, result.focus_um, result.sigma_um)

    def _expected(self, run_up: RunUp) -> Prior | None:
        """Where the focus is by what was found from this side, or else from the other one."""
        same = [found for found in self._found if found.way == run_up.way]
        if same:
            return same[-1].focus_um, self._dof_um / 4
        return (self._found[-1].focus_um, max(self._dof_um, run_up.length_um)) if self._found else None

    def _spent(self) -> Lit:
        exposures = self._stopwatch.exposures
        return Lit(
            exposures=exposures, dose_ms=exposures * self._exposure_ms, seconds=self._stopwatch.elapsed_s
        )


def _run_ups(asked: BacklashParams, usual: RunUp) -> Iterator[RunUp]:
    """The run-ups of all searches. The last is the usual way, from which the stage then has come home."""
    for number in range(asked.repeats):
        length_um = LENGTHS[number % len(LENGTHS)] * asked.up_to_um
        for side in ROUND:
            yield RunUp(usual.way if side == 1 else usual.opposite, length_um)


def _advice(backlash: Backlash) -> str:
    if not backlash.advised_um:
        return (
            "no backlash can be seen: it is smaller than its uncertainty, and stage.backlash_um = 0 is right for this "
            "objective"
        )
    return (
        f"write backlash_um = {backlash.advised_um:g} under [stage] in the configuration, and calibrate anew"
    )
