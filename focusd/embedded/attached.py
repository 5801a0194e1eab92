"""`focusd.attach`: focusd on a core that a program has opened, and what that program can ask of it."""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pymmcore_plus import CMMCorePlus

from focusd.config import EmbeddedConfig, RigConfig, load_config
from focusd.daemon.events import Event
from focusd.daemon.jobs import Report
from focusd.daemon.opening import Borrowed
from focusd.embedded.core import LABEL, Acquiring, FocusdCore, FocusdRunner, put_before, take_away
from focusd.embedded.holding import Holding, require_no_offset
from focusd.embedded.room import PROGRAM, EngineRoom
from focusd.errors import BusyError, CalibrationError, ConfigError, FocusdError, RequestError
from focusd.microscope.borrowed import BorrowedMicroscope, within_limits_of
from focusd.microscope.identity import hardware_in
from focusd.protocol.requests import CalibrateParams, MoveParams, RefocusParams
from focusd.protocol.results import CalibrationResult, RefocusResult
from focusd.protocol.states import Disengaged, HoldReport

SAME_PLACE_UM = 0.01
"""The stage has not been moved if it reads back no further away."""
SECOND_TRY_S = 10.0
"""For so long, a focus that was not found is not looked for a second time at the same place."""


@dataclass(frozen=True)
class Failure:
    """A focus that was not found.

    Attributes:
        place: x, y and z where it was looked for, µm.
        at_s: when, by `time.monotonic()`.
    """

    place: tuple[float, ...]
    at_s: float
    error: FocusdError


def attach(core: CMMCorePlus, config: RigConfig | Path | str) -> Attached:
    """Make focusd the autofocus device of a core, whose camera and stage it uses from then on.

    Args:
        core: with camera and stage loaded and chosen; `UniMMCore` included.
        config: of the rig, or its file; `microscope.kind` is "embedded".

    Raises:
        ConfigError: the configuration is wrong, or does not fit the core.
        BusyError: focusd is attached to this core already.
        RigTakenError: another process runs this rig or drives its hardware.
        FocusdError: the rig does not open.
    """
    config = config if isinstance(config, RigConfig) else load_config(Path(config))
    if not isinstance(config.microscope, EmbeddedConfig):
        raise ConfigError(
            f'microscope.kind is "{config.microscope.kind}": focusd would open that microscope itself. To use the '
            'core of this program, set microscope.kind = "embedded"'
        )
    return Attached(core, config)


class Attached:
    """focusd on a core. Every method may be called from any thread, and waits.

    In the main thread of a Qt program, events are processed while a method waits, so that the program stays
    usable; what such an event asks of focusd meanwhile is refused as busy.

    Attributes:
        config: of the rig, with the stage's limits as the core narrows them.
        is_chosen: focusd is the core's current autofocus device.
        offset_um: where `fullFocus` leaves the stage, from the focus.
        last_score: how sharp the last exposure was; 0 before the first.
        last: the result of the last refocus; None: there is none.
        exposures: that focusd has taken since it was attached.
    """

    def __init__(self, core: CMMCorePlus, config: RigConfig) -> None:
        embedded = config.microscope
        assert isinstance(embedded, EmbeddedConfig)
        self._core = core
        self.config = config = config.model_copy(update={"stage": within_limits_of(core, config.stage)})
        self.is_chosen = False
        self.offset_um = 0.0
        self.last_score = 0.0
        self.last: RefocusResult | None = None
        self._failure: Failure | None = None
        self._acquiring = Acquiring()
        self._records = False  # a sequence that runs is one of frames that the program keeps
        put_before(core, FocusdCore, self)
        try:
            self._room = EngineRoom(config, Borrowed(self._borrowed, _hardware_of(core)), self._hear)
        except BaseException:
            take_away(core, FocusdCore)
            raise
        put_before(core.mda, FocusdRunner, self)
        self.holding = Holding(self._room)
        atexit.register(self.detach)
        core.setAutoFocusDevice(LABEL)

    def detach(self) -> None:
        """Leave the core as it was. May be called twice.

        A job that runs is cancelled, and what it has borrowed is given back.

        Raises:
            BusyError: an acquisition runs.
        """
        if vars(self._core).get("_focusd") is not self:
            return
        if self._acquiring.thread is not None:
            raise BusyError("an acquisition runs: cancel it, or wait for its end, before detach()")
        atexit.unregister(self.detach)
        self.is_chosen = False
        take_away(self._core.mda, FocusdRunner)
        try:
            self._room.close()
        finally:
            take_away(self._core, FocusdCore)
            self._core.events.propertyChanged.emit("Core", "AutoFocus", self._core.getAutoFocusDevice())

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def calibrate(
        self,
        *,
        range_um: float | None = None,
        step_um: float | None = None,
        planes_um: list[float] | None = None,
    ) -> CalibrationResult:
        """Take a stack around where the stage stands, which is in focus by eye, and keep its curve.

        Raises:
            FocusdError: as for the daemon's `focus.calibrate`.
        """
        self._require_nobody_exposes()
        self._failure = None
        params = CalibrateParams(client=PROGRAM, range_um=range_um, step_um=step_um, planes_um=planes_um)
        work = partial(self._room.assembly.operations.calibrate, params)
        return self._room.job("calibrate", work, params)

    def refocus(self, *, offset_um: float = 0.0, **options: Any) -> RefocusResult:
        """Bring the sample into focus.

        Args:
            offset_um: where to leave the stage, from the focus.
            options: `roi`, `strategy`, `max_exposures`, `max_seconds`, `max_dose_ms`, `target_um`, `prior`, `surface`
                and `far` of the daemon's `focus.run`.

        Returns:
            What `focus.run` answers: the focus, wherever the stage was left.

        Raises:
            FocusdError: as for `focus.run`; the stage stands where it stood.
        """
        self._require_nobody_exposes()
        params = RefocusParams(client=PROGRAM, **options)
        operations = self._room.assembly.operations

        async def work(report: Report) -> RefocusResult:
            found = await operations.refocus(params, report)
            if offset_um:
                await operations.move(MoveParams(z_um=found.focus_um + offset_um), report)
            return found

        self.last = self._room.job("refocus", work, params)
        self._failure = None
        return self.last

    def hold(self, roi: tuple[int, int, int, int] | None = None, position: str | None = None) -> HoldReport:
        """Hold the focus from now on; during an acquisition the hold rests.

        Raises:
            CalibrationError: there is no usable calibration.
            BusyError: another client holds it.
        """
        require_no_offset(self.offset_um)
        return self.holding.engage(roi, position)

    def release(self) -> HoldReport | Disengaged:
        """Hold the focus no longer; the stage rests where it is."""
        return self.holding.release()

    def state(self) -> dict[str, Any]:
        """How the rig stands: what the daemon's `state.get` answers, and the hold."""
        assembly = self._room.assembly
        rig = self._room.call(assembly.operations.state)
        return rig.model_dump() | {"hold": assembly.hold.state().model_dump()}

    @property
    def endpoints(self) -> tuple[str, str] | None:
        """Where clients and monitors are served, requests and events; None: nowhere."""
        served = self._room.assembly.endpoints
        return (served.control, served.events) if served else None

    @property
    def exposures(self) -> int:
        """How many exposures focusd has taken."""
        return self._room.assembly.rig.exposures

    # What the core's methods ask.

    def choose(self, chosen: bool) -> None:
        """Become the core's autofocus device, or make way for another."""
        if self.is_chosen and not chosen and self.holding.is_wanted:
            self.holding.release()
        self.is_chosen = chosen

    def set_offset(self, offset_um: float) -> None:
        """Set where `fullFocus` leaves the stage, from the focus.

        Raises:
            RequestError: it is no number, or the focus is held.
        """
        if not math.isfinite(offset_um):
            raise RequestError(f"an autofocus offset is a number of µm, not {offset_um}")
        if self.holding.is_wanted and not self._acquiring.here:
            require_no_offset(offset_um)
        self.offset_um = float(offset_um)

    def focus_here(self) -> None:
        """Focus for the core's `fullFocus`. A second try at the same place costs no light.

        Raises:
            FocusdError: the focus was not found.
        """
        place, failure = self._place(), self._failure
        if failure and _near(place, failure.place) and time.monotonic() - failure.at_s < SECOND_TRY_S:
            raise failure.error
        try:
            self.refocus(offset_um=self.offset_um)
        except (BusyError, CalibrationError):  # these expose nothing
            raise
        except FocusdError as error:
            self._failure = Failure(self._place(), time.monotonic(), error)
            raise

    def continue_focus(self, wanted: bool) -> None:
        """Hold the focus for the core's continuous focus, or hold it no longer.

        Raises:
            CalibrationError: there is no usable calibration.
            BusyError: another client holds it.
            RequestError: an offset is set.
        """
        if wanted and not self._acquiring.here:
            require_no_offset(self.offset_um)
        self.holding.ask(wanted)

    def noticed(self, method: str, exposes: bool) -> None:
        """Learn that the program has called a method of the core."""
        if exposes:
            self._failure = None
        if method.startswith("start"):
            self._records = method == "startSequenceAcquisition"

    @property
    def acquires_here(self) -> bool:
        """Whether an acquisition is calling, in whose turn the core is."""
        return self._acquiring.here

    @contextmanager
    def turn(self, moves: str | None) -> Iterator[None]:
        """Camera and stage are the program's inside the `with`; what only another client's lease forbids goes on."""
        with self._room.turn(moves):
            yield

    @contextmanager
    def acquisition(self) -> Iterator[None]:
        """An acquisition runs in this thread inside the `with`: nothing of focusd's runs but what its plan asks for."""
        with self._room.turn("an acquisition", alone=True), self._acquiring.running():
            self.holding.postpone()
            try:
                yield
            finally:
                self.holding.catch_up()

    def _require_nobody_exposes(self) -> None:
        if self._acquiring.thread is not None and not self._acquiring.here:
            raise BusyError("an acquisition runs: focusd exposes and moves nothing but where its plan asks")

    def _place(self) -> tuple[float, ...]:
        """x, y and z, as far as the core has stages for them."""
        xy = tuple(self._core.getXYPosition()) if self._core.getXYStageDevice() else ()
        return (*xy, float(self._core.getPosition()))

    def _borrowed(self, config: RigConfig) -> BorrowedMicroscope:
        embedded = config.microscope
        assert isinstance(embedded, EmbeddedConfig)
        return BorrowedMicroscope(self._core, config.camera, config.stage, embedded, lambda: self._records)

    def _hear(self, event: Event) -> None:
        if event["topic"] == "focus.progress" and (b := event["data"].get("b")) is not None:
            self.last_score = 1.0 - float(b)


def _hardware_of(core: CMMCorePlus) -> list[str]:
    """Return what hardware a core drives, as far as a Micro-Manager file says."""
    file = core.systemConfigurationFile()
    return hardware_in(Path(file)) if file else []


def _near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(
        abs(a - b) <= SAME_PLACE_UM for a, b in zip(one, other, strict=True)
    )
