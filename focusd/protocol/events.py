"""Events as subscribers and `events.since` get them: one model for each topic."""

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, TypeAdapter

from focusd.protocol.failure import Failure
from focusd.protocol.model import Result, if_any
from focusd.protocol.results import BacklashResult, CalibrationResult, Progress, RefocusResult
from focusd.protocol.states import HoldReport, JobState, Session, State

Source = Literal["check", "follow", "refocus", "frame", "failed"]
"""What a hold has learnt from."""


class StateUnknown(Result):
    """The state cannot be told."""

    fault: str


class JobChange(Result):
    """A job has begun or ended."""

    kind: str
    client: str
    state: JobState
    error: Failure | None = if_any


class Refocused(RefocusResult):
    """A refocus has succeeded."""

    run: str | None = if_any
    """The run that a client drives."""
    kind: Literal["refocus"]


class Calibrated(CalibrationResult):
    """A calibration has succeeded."""

    run: str | None = if_any
    """The run that a client drives."""
    kind: Literal["calibrate"]


class BacklashMeasured(BacklashResult):
    """The backlash has been measured."""

    kind: Literal["backlash"]


class Failed(Result):
    """A refocus, a calibration or a measurement of the backlash has failed."""

    run: str | None = if_any
    """The run that a client drives."""
    kind: str
    outcome: str
    reason: str


class Drift(HoldReport):
    """The estimate of a hold, after something that it has learnt from."""

    source: Source
    tags: dict[str, float | str]
    sharpness: float | None = if_any
    """Of a frame."""
    dropped: bool | None = if_any
    """Whether the frame was less sharp than those before it."""
    outcome: str | None = if_any
    """Of a check or a move that has failed."""


class LogRecord(Result):
    """A warning or an error of the daemon's log, with all that it says."""

    event: str
    level: str


class Heartbeat(Result):
    """The daemon is alive; once a second."""

    uptime_s: float


class Event(Result):
    """Something that has happened. Each topic has a model of its own; one that this client does not know is this."""

    session: str
    """The run of the daemon in which `seq` counts."""
    seq: int
    """Number over all topics, from 1."""
    time: str
    """Wall clock, ISO 8601 in UTC."""
    monotonic_s: float
    """A clock that measures intervals."""
    job_id: str | None
    """None: it belongs to no job."""
    retold: bool | None = if_any
    """The state, told to a new subscriber: it has the number of the event before it, and is not on record."""
    topic: str
    data: Any
    """What has happened: a model for each topic."""


class StateEvent(Event):
    """The state has changed, or somebody has subscribed."""

    topic: Literal["state"]
    data: State | StateUnknown


class JobEvent(Event):
    """A job has begun or ended."""

    job_id: str
    topic: Literal["job"]
    data: JobChange


class ProgressEvent(Event):
    """An exposure has been scored."""

    topic: Literal["focus.progress"]
    data: Progress


class DoneEvent(Event):
    """A refocus, a calibration or a measurement of the backlash has succeeded."""

    topic: Literal["focus.done"]
    data: Annotated[Refocused | Calibrated | BacklashMeasured, Field(discriminator="kind")]


class FailedEvent(Event):
    """A refocus, a calibration or a measurement of the backlash has failed."""

    topic: Literal["focus.failed"]
    data: Failed


class DriftEvent(Event):
    """A hold has learnt something."""

    topic: Literal["drift"]
    data: Drift


class LogEvent(Event):
    """The daemon's log has a warning or an error."""

    topic: Literal["log"]
    data: LogRecord


class HeartbeatEvent(Event):
    """The daemon is alive."""

    topic: Literal["heartbeat"]
    data: Heartbeat


AnyEvent = Annotated[
    StateEvent
    | JobEvent
    | ProgressEvent
    | DoneEvent
    | FailedEvent
    | DriftEvent
    | LogEvent
    | HeartbeatEvent
    | Event,
    Field(union_mode="left_to_right"),
]
E = TypeVar("E", bound=Event)


def topic_of(kind: type[Event]) -> str:
    """The topic of an event's model."""
    (topic,) = get_args(kind.model_fields["topic"].annotation)
    return str(topic)


Listed = list[Event]
if not TYPE_CHECKING:  # for a type checker, what is in `data` depends on `isinstance`, as in a stream
    Listed = list[AnyEvent]


class EventPage(Session):
    """Events, oldest first; who wants those that come after asks again."""

    events: Listed


def read_event(value: object) -> Event:
    """An event from its JSON.

    Raises:
        ValidationError: it is no event.
    """
    return _events().validate_python(value)


@cache
def _events() -> TypeAdapter[AnyEvent]:
    return TypeAdapter(AnyEvent)
