"""What both clients can ask: one `Call` for each method of `protocol.methods`, whether it is waited for or awaited."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from inspect import Parameter, Signature
from inspect import signature as signature_of
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from focusd.client.exchange import Exchange
from focusd.errors import RequestError
from focusd.protocol import methods, requests
from focusd.protocol.methods import Method
from focusd.protocol.requests import LongParams, Params, Roi, Tags
from focusd.protocol.runs import AskParams, RunParams

if TYPE_CHECKING:
    from focusd.client.client import AsyncClient, Client

SHORT_S = 5.0
"""Time for an answer that needs no work."""
MAP_S = 15.0
"""Time for a surface through hundreds of positions, on a busy machine."""
SETTLED_S = 30.0
"""Time for a move, and for a job that has to give way."""
SCORE_S = 60.0

P = ParamSpec("P")
R = TypeVar("R")


class Waiting(LongParams):
    """What a call of a long method takes besides the params of its operation."""

    wait: bool = True
    """Return at the end of the job; False: at once, with its `job_id` alone."""
    timeout_s: float = 120.0
    """How long to wait for the end, in seconds."""


class Refocus(Waiting, requests.RefocusParams):
    """Arguments of `refocus`."""


class Calibrate(Waiting, requests.CalibrateParams):
    """Arguments of `calibrate`."""

    timeout_s: float = 600.0


class Move(Waiting, requests.MoveParams):
    """Arguments of `move`."""

    timeout_s: float = SETTLED_S


class Backlash(Waiting, requests.BacklashParams):
    """Arguments of `measure_backlash`."""

    timeout_s: float = 600.0


def score(
    frames: Sequence[Any],
    *,
    z_um: float | None = None,
    roi: Roi | None = None,
    track: bool = False,
    tags: Tags | None = None,
) -> tuple[dict[str, object], list[bytes]]:
    """The params of `focus.score` and the pixels that follow them.

    Args:
        frames: (y, x) or (y, x, 3) arrays of uint8 or uint16, or whatever shows such memory.
        z_um: where the stage stood, in µm; None: where it stands.
        roi, track, tags: as in `ScoreParams`.

    Raises:
        RequestError: these are no such frames.
    """
    views = [memoryview(frame) for frame in frames]
    described = [_described(view, z_um) for view in views]
    return {"frames": described, "roi": roi, "track": track, "tags": tags}, [v.tobytes() for v in views]


def tell(
    run: str, frames: Sequence[Any], z_um: Sequence[float], full_scale: int | None = None
) -> tuple[dict[str, object], list[bytes]]:
    """The params of `focus.tell` and the pixels that follow them.

    Args:
        run: as `focus.ask` answered it.
        frames: (y, x) or (y, x, 3) arrays of uint8 or uint16, or whatever shows such memory.
        z_um: of each, where the stage stood, in µm.
        full_scale: largest value that a pixel can have; None: that of its type.

    Raises:
        RequestError: these are no such frames.
    """
    views = [memoryview(frame) for frame in frames]
    scale = {} if full_scale is None else {"full_scale": full_scale}
    described = [_described(view, z) | scale for view, z in zip(views, z_um, strict=True)]
    return {"run": run, "frames": described}, [view.tobytes() for view in views]


def _described(view: memoryview, z_um: float | None) -> dict[str, object]:
    dtype = {"B": "uint8", "H": "uint16"}.get(view.format.lstrip("<=@"))
    is_colour = view.ndim == 3 and (view.shape or ())[2] in (3, 4)
    if dtype is None or not (view.ndim == 2 or is_colour):
        raise RequestError(
            f"a frame is (y, x), or (y, x, 3) in colour, of uint8 or uint16, not {view.shape} of format {view.format!r}"
        )
    return {"dtype": dtype, "shape": view.shape, "z_um": z_um}


class Call(Generic[P, R]):
    """A method of both clients: a `Client`'s returns the result, an `AsyncClient`'s an awaitable of it.

    It raises the daemon's error as its class in `focusd.errors`, RequestError where an argument is wrong, and
    UnreachableError where no answer comes; of a job, `error.data["request_key"]` lets the caller ask for the same job
    again.

    Args:
        takes: the model of its arguments, which has the method's params, or the function that makes params of them.
        timeout_s: how long to wait for the answer; None: as the arguments say, else `SHORT_S`.
    """

    def __init__(
        self, method: Method[..., R], takes: Callable[P, object], timeout_s: float | None = None
    ) -> None:
        self.method = method
        self._takes: Any = takes
        self._model = takes if isinstance(takes, type) and issubclass(takes, Params) else None
        self._timeout_s = timeout_s
        self.__doc__ = f"{method.summary} Its arguments are those of `{takes.__module__}.{takes.__name__}`."

    def __set_name__(self, owner: type[object], name: str) -> None:
        self.__name__ = name

    @overload
    def __get__(self, client: Client, owner: type[object]) -> Callable[P, R]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type[object]) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __get__(self, client: None, owner: type[object]) -> Call[P, R]: ...
    def __get__(self, client: Calls | None, owner: type[object]) -> Any:
        return self if client is None else MethodType(self, client)

    def __call__(self, client: Calls, *args: Any, **kwargs: Any) -> Any:
        """Ask the daemon; None stands for an argument that is not given."""
        given = self.__signature__.bind(client, *args, **kwargs).arguments
        given = {name: value for name, value in given.items() if name != "self" and value is not None}
        timeout_s = given.pop("timeout_s", self._timeout_s or self._usual_s)
        params, pixels = self._params(given, client.name)
        if params.get("wait") is False:
            timeout_s = SHORT_S
        return client._call(Exchange(client.endpoint, self.method, params, timeout_s, pixels))

    @property
    def _usual_s(self) -> float:
        """As the arguments say; `SHORT_S` where they say nothing."""
        field = self._model.model_fields.get("timeout_s") if self._model else None
        return float(field.default) if field else SHORT_S

    def _params(self, given: dict[str, Any], client: str) -> tuple[dict[str, object], Sequence[bytes]]:
        """The request's params, with what the client says by itself, and the pixels that follow them."""
        if self._model is None:
            return cast("tuple[dict[str, object], list[bytes]]", self._takes(**given))
        own: dict[str, object] = {"client": client} if "client" in self._model.model_fields else {}
        if issubclass(self._model, Waiting):
            own |= {"wait": True, "request_key": str(uuid.uuid4())}
        return own | given, ()

    @cached_property
    def __signature__(self) -> Signature:
        """For `help`, and for the completion of an interactive Python."""
        own = signature_of(self._takes).parameters.values() if self._model is None else _fields(self._model)
        return Signature([Parameter("self", Parameter.POSITIONAL_ONLY), *own])


def _fields(model: type[Params]) -> list[Parameter]:
    """The fields of a model as parameters, those that may be given by position first."""
    parameters = [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD if field.kw_only is False else Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.is_required() else field.default,
            annotation=field.annotation,
        )
        for name, field in model.model_fields.items()
    ]
    return sorted(parameters, key=lambda parameter: parameter.kind)


class Calls(ABC):
    """The methods of both clients. z is in µm, times in seconds; an argument that is None is as good as left out."""

    name: str
    endpoint: str

    hello = Call(methods.HELLO, requests.HelloParams)
    ping = Call(methods.PING, Params)
    reconnect = Call(methods.RECONNECT, Params)
    state = Call(methods.STATE, Params)
    discover = Call(methods.DISCOVER, Params)
    calibrate = Call(methods.CALIBRATE, Calibrate)
    refocus = Call(methods.REFOCUS, Refocus)
    move = Call(methods.MOVE, Move)
    measure_backlash = Call(methods.BACKLASH, Backlash)
    score = Call(methods.SCORE, score, SCORE_S)
    _ask = Call(methods.ASK, AskParams)
    _tell = Call(methods.TELL, tell, SCORE_S)
    _drop = Call(methods.DROP, RunParams)
    hold = Call(methods.HOLD, requests.HoldParams)
    release = Call(methods.RELEASE, Params, SETTLED_S)
    job = Call(methods.JOB, requests.JobParams)
    cancel = Call(methods.CANCEL, requests.JobParams)
    acquire_lease = Call(methods.ACQUIRE_LEASE, requests.LeaseParams, SETTLED_S)
    release_lease = Call(methods.RELEASE_LEASE, requests.LeaseIdParams)
    since = Call(methods.SINCE, requests.SinceParams)
    map_add = Call(methods.MAP_ADD, requests.MapAddParams, MAP_S)
    map_predict = Call(methods.MAP_PREDICT, requests.MapPredictParams, MAP_S)
    map_get = Call(methods.MAP_GET, Params, MAP_S)
    map_offset = Call(methods.MAP_OFFSET, requests.MapOffsetParams, MAP_S)
    map_clear = Call(methods.MAP_CLEAR, Params, MAP_S)
    calibrations = Call(methods.CALIBRATIONS, Params)
    show_calibration = Call(methods.SHOW_CALIBRATION, requests.CalibrationParams)
    use_calibration = Call(methods.USE_CALIBRATION, requests.CalibrationParams)
    remove_calibration = Call(methods.REMOVE_CALIBRATION, requests.CalibrationParams)

    @abstractmethod
    def _call(self, exchange: Exchange[R]) -> Any:
        """Have the exchange; return its result, or an awaitable of it."""
