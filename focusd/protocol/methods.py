"""The table of methods: server, clients, the commands of `focusctl`, the OpenRPC document and the reference are made
from it. A parameter is written once, in the model of its method's params."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, ParamSpec, TypeVar, cast

from pydantic import TypeAdapter

from focusd.errors import (
    AmbiguousError,
    BudgetError,
    BusyError,
    CalibrationError,
    CancelledJobError,
    FocusdError,
    HardwareError,
    MapError,
    NoConvergenceError,
    NoSampleError,
    OutOfRangeError,
    SaturatedError,
    TravelLimitError,
)
from focusd.protocol import requests as asked
from focusd.protocol.calibrations import (
    CalibrationRemoved,
    KeptCalibration,
    KeptCalibrations,
    ShownCalibration,
)
from focusd.protocol.events import EventPage
from focusd.protocol.requests import LongParams, Params
from focusd.protocol.results import (
    BacklashResult,
    CalibrationResult,
    MoveResult,
    RefocusResult,
    RunAnswer,
    RunDropped,
    Scores,
)
from focusd.protocol.runs import AskParams, RunParams, TellParams
from focusd.protocol.slide import FocusMapResult, MapAdded, MapCleared, MapOffsets, MapPredictions
from focusd.protocol.states import (
    Discovery,
    Disengaged,
    Hello,
    HoldReport,
    JobStatus,
    Lease,
    LeaseReleased,
    Released,
    Session,
    State,
)

P = ParamSpec("P")
R = TypeVar("R")
Errors = tuple[type[FocusdError], ...]


@dataclass(frozen=True, eq=False)
class Method(Generic[P, R]):
    """One method of the protocol, which takes `P` and answers `R`.

    Attributes:
        params: model of its params; a `LongParams` makes it a job, which answers `Started` at once unless it is told
            to wait.
        result: what it answers.
        raises: the errors that it ends in, besides RequestError and those of the connection.
    """

    name: str
    params: type[Params]
    result: type[R]
    summary: str
    raises: Errors = ()

    @property
    def is_long(self) -> bool:
        """Whether it is a job."""
        return issubclass(self.params, LongParams)

    def read(self, value: object) -> R:
        """Its result, from JSON.

        Raises:
            ValidationError: it is another one.
        """
        return cast(R, _adapter(self).validate_python(value))


@cache
def _adapter(method: Method[..., Any]) -> TypeAdapter[Any]:
    return TypeAdapter(method.result)


METHODS: dict[str, Method[..., Any]] = {}
"""All of them by name."""


def _method(
    name: str, params: Callable[P, Params], result: type[R], summary: str, raises: Errors = ()
) -> Method[P, R]:
    method: Method[P, R] = Method(name, cast(type[Params], params), result, summary, raises)
    METHODS[name] = method
    return method


_JOB = (BusyError, CancelledJobError, HardwareError, TravelLimitError)
_EXPOSED = (*_JOB, CalibrationError, NoSampleError, SaturatedError)
_SOUGHT = (*_EXPOSED, BudgetError, NoConvergenceError, OutOfRangeError, AmbiguousError)
_SOUGHT_BY_CLIENTS = tuple(error for error in _SOUGHT if error is not CancelledJobError)

HELLO = _method("system.hello", asked.HelloParams, Hello, "Protocol, version, session, methods and topics.")
PING = _method("system.ping", Params, Session, "Answers at once; names the session.")
RECONNECT = _method(
    "system.reconnect",
    Params,
    Session,
    "After a fault that an operator has looked into: the daemon starts anew and opens the hardware.",
)
STATE = _method("state.get", Params, State, "What the rig is doing and where its stage stands.")
CALIBRATE = _method(
    "focus.calibrate",
    asked.CalibrateParams,
    CalibrationResult,
    "Take a calibration stack around the present z: focus by eye first.",
    _EXPOSED,
)
REFOCUS = _method("focus.run", asked.RefocusParams, RefocusResult, "Bring the sample into focus.", _SOUGHT)
HOLD = _method(
    "focus.hold",
    asked.HoldParams,
    HoldReport,
    "Keep the sample in focus from now on, until it is released.",
    (BusyError, CalibrationError),
)
RELEASE = _method(
    "focus.release",
    Params,
    cast("type[HoldReport | Disengaged]", Released),
    "End the hold; the stage rests where it is.",
)
SCORE = _method(
    "focus.score",
    asked.ScoreParams,
    Scores,
    "Scores of frames that the client sends as raw pixels.",
    (BusyError,),
)
ASK = _method(
    "focus.ask",
    AskParams,
    RunAnswer,
    "Begin a run with your own camera and stage; the answer says where to expose first.",
    _SOUGHT_BY_CLIENTS,
)
TELL = _method(
    "focus.tell",
    TellParams,
    RunAnswer,
    "Tell a run what you have exposed, as raw pixels; the answer says where to expose next, or holds the result.",
    _SOUGHT_BY_CLIENTS,
)
DROP = _method("focus.drop", RunParams, RunDropped, "Give a run up.")
MOVE = _method(
    "stage.move", asked.MoveParams, MoveResult, "Move the stage to an absolute z, within its limits.", _JOB
)
BACKLASH = _method(
    "stage.backlash",
    asked.BacklashParams,
    BacklashResult,
    "Measure the backlash of the stage by the frames of a sample that is nearly in focus.",
    _SOUGHT,
)
CANCEL = _method("job.cancel", asked.JobParams, JobStatus, "Ask a job to end; does not wait for it.")
JOB = _method("job.status", asked.JobParams, JobStatus, "State of a job, and its result or error.")
ACQUIRE_LEASE = _method(
    "lease.acquire",
    asked.LeaseParams,
    Lease,
    "Keep all jobs and moves of others off while the client exposes.",
    (BusyError,),
)
RELEASE_LEASE = _method("lease.release", asked.LeaseIdParams, LeaseReleased, "Give the lease back.")
SINCE = _method(
    "events.since", asked.SinceParams, EventPage, "Remembered events after a number, oldest first."
)
MAP_ADD = _method(
    "map.add",
    asked.MapAddParams,
    MapAdded,
    "Put the last refocus, or a focus given, on the slide's focus map, in place of one measured there before.",
    (MapError, BusyError),
)
MAP_PREDICT = _method(
    "map.predict",
    asked.MapPredictParams,
    MapPredictions,
    "Where the focus is at positions, and whether a refocus there is worth its dose.",
    (MapError, CalibrationError, BusyError),
)
MAP_GET = _method(
    "map.get", Params, FocusMapResult, "Positions, offsets and the surface through them.", (MapError,)
)
MAP_OFFSET = _method(
    "map.offset",
    asked.MapOffsetParams,
    MapOffsets,
    "Set how far a channel's focus lies above the reference.",
    (MapError,),
)
MAP_CLEAR = _method(
    "map.clear", Params, MapCleared, "Forget the positions, for a new slide; offsets stay.", (MapError,)
)
CALIBRATIONS = _method(
    "calibrations.list",
    Params,
    KeptCalibrations,
    "All calibrations that are kept of the objective, the latest first.",
)
SHOW_CALIBRATION = _method(
    "calibrations.show", asked.CalibrationParams, ShownCalibration, "One of them, with its curve."
)
USE_CALIBRATION = _method(
    "calibrations.use",
    asked.CalibrationParams,
    KeptCalibration,
    "Put one of them in force; the one that was in force is kept.",
    (CalibrationError,),
)
REMOVE_CALIBRATION = _method(
    "calibrations.remove",
    asked.CalibrationParams,
    CalibrationRemoved,
    "Remove one of them that is not in force, for good.",
)
DISCOVER = _method("rpc.discover", Params, Discovery, "The OpenRPC document of this protocol.")
