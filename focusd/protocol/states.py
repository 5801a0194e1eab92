"""What the daemon answers about itself: session, state of the rig, hold, jobs, lease."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from focusd.protocol.failure import Failure
from focusd.protocol.model import Result, if_any
from focusd.protocol.results import (
    BacklashResult,
    CalibrationFigures,
    CalibrationResult,
    Ends,
    MoveResult,
    RefocusResult,
)

HoldStanding = Literal["disengaged", "acquiring", "locked", "lost"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Ended = Annotated[
    RefocusResult | CalibrationResult | BacklashResult | MoveResult, Field(union_mode="left_to_right")
]
"""What a job has found, by its kind."""


class Session(Result):
    """The daemon is alive."""

    session: str
    """One run of the daemon: another one after a restart."""


class Hello(Session):
    """What the daemon speaks."""

    protocols: list[str]
    version: str
    methods: list[str]
    topics: list[str]
    """Of events."""


class Usable(CalibrationFigures):
    """The calibration that searches use."""

    usable: Literal[True]


class Unusable(Result):
    """No search can be made."""

    usable: Literal[False]
    reason: str


class LastCheck(Result):
    """A hold's last check."""

    time: str
    """When it ended, ISO 8601 in UTC."""
    outcome: str


class Disengaged(Result):
    """Nobody holds the focus."""

    state: Literal["disengaged"]
    reason: str | None = if_any
    interrupted: str | None = if_any
    """The hold that the last run of the daemon ended with."""


class Holding(Result):
    """How the hold stands: what stays the same until something happens."""

    state: HoldStanding
    reason: str
    """Why it is not locked; empty: it is."""
    client: str
    position: str | None
    checks: int
    """Checks that have ended, well or not."""
    last_check: LastCheck | None
    next_check: str | None
    """When it is due, ISO 8601 in UTC; None: there will be none."""
    moves: int
    """Moves of the stage to another place, those of the checks included."""
    exposures: int
    dose_ms: float
    """Time for which the hold has exposed the sample."""


class HoldReport(Holding):
    """A hold with its estimate as it is now; None: not known yet."""

    z_um: float | None
    """Where the stage stands."""
    dof_um: float
    """Depth of field."""
    next_check_s: float | None
    """Seconds until a check is due."""
    focus_um: float | None
    """Where the focus is expected."""
    dz_um: float | None
    """From the stage to the focus."""
    sigma_um: float | None
    """Standard uncertainty of the focus."""
    velocity_um_per_min: float | None
    """Of the focus: the drift."""
    velocity_sigma_um_per_min: float | None


HoldState = Annotated[Holding | Disengaged, Field(union_mode="left_to_right")]
Released = Annotated[HoldReport | Disengaged, Field(union_mode="left_to_right")]


class RunningJob(Result):
    """The job that runs."""

    job_id: str
    kind: str
    """`refocus`, `calibrate`, `move`, `backlash`, `hold-check` or `hold-follow`."""
    client: str
    """Who has asked for it."""


class JobStatus(RunningJob):
    """A job from its request to its end."""

    state: JobState
    result: Ended | None
    error: Failure | None


class LeaseHolder(Result):
    """Who has the lease."""

    client: str
    until: str
    """When it ends at the latest, ISO 8601 in UTC."""


class Lease(Result):
    """The client's own lease."""

    lease_id: str
    seconds: float
    until: str
    """When it ends by itself, ISO 8601 in UTC."""


class LeaseReleased(Result):
    """The lease is given back."""

    released: bool
    """False: it had ended before."""


class RigState(Result):
    """Where the rig stands."""

    rig: str
    microscope: str
    """Kind of the hardware layer."""
    note: str | None = if_any
    objective: str
    camera: str
    z_um: float | None
    """The last z read back; None: none yet."""
    limits_um: Ends
    """The stage goes nowhere else."""
    fault: str | None
    """What is wrong with the hardware, until an operator reconnects it."""
    unrecorded: str | None
    """Why the state cannot be written to the disk; None: it is written."""
    model: str
    """The network."""
    backend: str
    """What computes it."""
    calibration: Usable | Unusable


class State(RigState):
    """Where the rig stands, and who uses it."""

    job: RunningJob | None
    lease: LeaseHolder | None
    hold: HoldState


class Discovery(Result):
    """The OpenRPC document."""

    openrpc: str
    info: dict[str, str]
    methods: list[JsonValue]
    components: dict[str, JsonValue]
    """The schemas that the methods name."""
