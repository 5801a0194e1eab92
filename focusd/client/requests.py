"""The requests of both clients: names and params of methods, whether their answer is waited for or awaited."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from focusd.addresses import CONTROL, EVENTS
from focusd.client.map_client import MapRequests
from focusd.errors import RequestError
from focusd.protocol.keys import ClientKeys
from focusd.protocol.messages import JsonObject

SHORT_S = 5.0
"""Timeout of requests that are answered at once."""
REFOCUS_S = 120.0
CALIBRATE_S = 600.0
MOVE_S = 30.0
SCORE_S = 60.0

Answer = TypeVar("Answer")
Roi = tuple[int, int, int, int]
Tags = dict[str, float | str]


class Requests(MapRequests[Answer], ABC, Generic[Answer]):
    """The methods of both clients. An answer is the JSON object that the daemon sends.

    All raise the daemon's error as its class in `focusd.errors`, and UnreachableError where no answer comes;
    its `data["request_key"]` lets the caller ask for the same job again.

    Args:
        name: who asks; shown to others while a job runs.
        keys: `ClientKeys.load(…)`, where the daemon answers known clients only.
    """

    def __init__(
        self,
        endpoint: str = CONTROL,
        events_endpoint: str = EVENTS,
        name: str = "python",
        keys: ClientKeys | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.events_endpoint = events_endpoint
        self.name = name
        self.keys = keys
        self._open_context()

    @abstractmethod
    def _open_context(self) -> None: ...

    @abstractmethod
    def _call(
        self, method: str, params: JsonObject, timeout_s: float, pixels: Sequence[bytes] = ()
    ) -> Answer: ...

    def hello(self) -> Answer:
        """Protocols, version, session, methods and topics of the daemon."""
        return self._call("system.hello", {}, SHORT_S)

    def ping(self) -> Answer:
        """`session` of the daemon, if it is alive."""
        return self._call("system.ping", {}, SHORT_S)

    def reconnect(self) -> Answer:
        """After a fault that an operator has looked into: the daemon starts anew and opens the hardware."""
        return self._call("system.reconnect", {}, SHORT_S)

    def state(self) -> Answer:
        """Where the rig stands; `job` is the running one or None."""
        return self._call("state.get", {}, SHORT_S)

    def job(self, job_id: str) -> Answer:
        """`state`, `result` and `error` of a job."""
        return self._call("job.status", {"job_id": job_id}, SHORT_S)

    def cancel(self, job_id: str) -> Answer:
        """Ask a job to end; does not wait for it."""
        return self._call("job.cancel", {"job_id": job_id}, SHORT_S)

    def since(self, seq: int, limit: int = 1000, session: str | None = None) -> Answer:
        """`events` remembered after number `seq`, for a subscriber that has missed some.

        Args:
            session: that of `seq`, where the daemon may have been restarted since; None: the present one.
        """
        return self._call("events.since", {"seq": seq, "limit": limit, "session": session}, SHORT_S)

    def hold(
        self, *, roi: Roi | None = None, position: str | None = None, tags: Tags | None = None
    ) -> Answer:
        """Keep the sample in focus from now on, until `release`.

        Args:
            roi: region of interest (y, x, height, width) in pixels.
            position, tags: go with each drift event.
        """
        params = {"client": self.name, "roi": roi, "position": position, "tags": tags}
        return self._call("focus.hold", params, SHORT_S)

    def release(self) -> Answer:
        """End the hold; what it has cost."""
        return self._call("focus.release", {}, MOVE_S)

    def score(
        self,
        frames: Sequence[Any],
        *,
        z_um: float | None = None,
        roi: Roi | None = None,
        track: bool = False,
        tags: Tags | None = None,
    ) -> Answer:
        """`scores` of frames that the caller has exposed.

        Args:
            frames: (y, x) arrays of uint8 or uint16, or whatever shows such memory.
            z_um: where the stage stood; None: where it stands.
            track: they show the held field as it is held, and the hold may learn from them.
            tags: go with the drift event.

        Raises:
            RequestError: not such frames.
        """
        views = [memoryview(frame) for frame in frames]
        described = [_described(view, z_um) for view in views]
        params = {"frames": described, "roi": roi, "track": track, "tags": tags}
        return self._call("focus.score", params, SCORE_S, [view.tobytes() for view in views])

    def acquire_lease(self, seconds: float = 60.0, lease_id: str | None = None) -> Answer:
        """`lease_id` of the right to expose undisturbed for so long: no job of others, no check, no move.

        Args:
            lease_id: of the lease held, to have it run so long from now.
        """
        params = {"client": self.name, "seconds": seconds, "lease_id": lease_id}
        return self._call("lease.acquire", params, MOVE_S)

    def release_lease(self, lease_id: str) -> Answer:
        """Give it back; `released` is false if it had ended before."""
        return self._call("lease.release", {"lease_id": lease_id}, SHORT_S)

    def calibrate(
        self,
        *,
        range_um: float | None = None,
        step_um: float | None = None,
        planes_um: list[float] | None = None,
        wait: bool = True,
        timeout_s: float = CALIBRATE_S,
        request_key: str | None = None,
        lease_id: str | None = None,
    ) -> Answer:
        """Calibrate around the focus that was set by eye; None: as configured.

        Without `wait` the answer is the `job_id` alone.

        Args:
            planes_um: the planes themselves, instead of range and step: for a recorded, irregular stack.
        """
        params = {"range_um": range_um, "step_um": step_um, "planes_um": planes_um}
        return self._start("focus.calibrate", params, wait, timeout_s, request_key, lease_id)

    def calibrations(self) -> Answer:
        """`calibrations` that are kept of the objective, the latest first; `in_force` is true of one."""
        return self._call("calibrations.list", {}, SHORT_S)

    def show_calibration(self, calibration_id: str) -> Answer:
        """One of them, with its `curve` and `profile`."""
        return self._call("calibrations.show", {"id": calibration_id}, SHORT_S)

    def use_calibration(self, calibration_id: str) -> Answer:
        """Put one of them in force; the one that was in force is kept."""
        return self._call("calibrations.use", {"id": calibration_id}, SHORT_S)

    def remove_calibration(self, calibration_id: str) -> Answer:
        """Remove one of them that is not in force, for good."""
        return self._call("calibrations.remove", {"id": calibration_id}, SHORT_S)

    def refocus(
        self,
        *,
        roi: Roi | None = None,
        strategy: str | None = None,
        max_exposures: int | None = None,
        max_seconds: float | None = None,
        max_dose_ms: float | None = None,
        target_um: float | None = None,
        prior: tuple[float, float] | None = None,
        surface: Literal["mean", "median", "nearest"] | None = None,
        wait: bool = True,
        timeout_s: float = REFOCUS_S,
        request_key: str | None = None,
        lease_id: str | None = None,
    ) -> Answer:
        """Bring the sample into focus; None: as configured.

        Without `wait` the answer is the `job_id` alone.

        Args:
            roi: region of interest (y, x, height, width) in pixels.
            strategy: `posterior` or `published`.
            max_exposures, max_seconds, max_dose_ms: the budget.
            target_um: standard uncertainty at which the posterior search ends.
            prior: z and σ of the focus as far as it is known, for a warm start.
            surface: what of a field that is not flat is brought into focus.
            request_key: that of an earlier request, to get its answer and not another run.
            lease_id: of the caller's own lease.
        """
        params = {
            "roi": roi,
            "strategy": strategy,
            "max_exposures": max_exposures,
            "max_seconds": max_seconds,
            "max_dose_ms": max_dose_ms,
            "target_um": target_um,
            "prior": prior,
            "surface": surface,
        }
        return self._start("focus.run", params, wait, timeout_s, request_key, lease_id)

    def move(
        self,
        z_um: float,
        *,
        timeout_s: float = MOVE_S,
        request_key: str | None = None,
        lease_id: str | None = None,
    ) -> Answer:
        """Move the stage to an absolute z; the daemon's guard refuses what is not safe."""
        return self._start("stage.move", {"z_um": z_um}, True, timeout_s, request_key, lease_id)

    def _start(
        self,
        method: str,
        params: JsonObject,
        wait: bool,
        timeout_s: float,
        request_key: str | None,
        lease_id: str | None,
    ) -> Answer:
        key = request_key or str(uuid.uuid4())
        envelope = {"client": self.name, "wait": wait, "request_key": key, "lease_id": lease_id}
        return self._call(method, params | envelope, timeout_s if wait else SHORT_S)


def _described(view: memoryview, z_um: float | None) -> JsonObject:
    """What the daemon is told of a frame's pixels."""
    dtype = {"B": "uint8", "H": "uint16"}.get(view.format.lstrip("<=@"))
    if dtype is None or view.ndim != 2:
        raise RequestError(
            f"a frame is (y, x) of uint8 or uint16, not {view.ndim}-D of format {view.format!r}"
        )
    described: JsonObject = {"dtype": dtype, "shape": view.shape}
    return described if z_um is None else described | {"z_um": z_um}
