"""Injects a fault at a random moment into a running service, and notes what is seen from outside."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from random import Random
from typing import Any

import zmq

from bench.faults.faults import Fault
from bench.faults.fuzz import PING
from bench.faults.service import FOCUS_UM, LIMITS_UM, Service
from focusd.client import Client
from focusd.errors import FocusdError

GIVE_UP_S = 30.0
AT_HOME_UM = 0.5
IN_FOCUS_UM = 5.0
DOUBLE_MS = 10
"""How long a second answer is waited for."""


@dataclass(frozen=True)
class Seen:
    """One injection from outside.

    Attributes:
        answers: to the one request; 1 is right.
        detection_s: from the fault to the answer.
        status_ms: of each answer to `state.get` meanwhile, asked by a client in the same process.
        violations: commanded z outside the limits.
        same: asking again with the same key gave the same answer and ran nothing.
    """

    outcome: str
    answers: int
    detection_s: float
    status_ms: tuple[float, ...]
    safe: bool
    serving: bool
    same: bool
    violations: int

    def as_promised(self, fault: Fault) -> bool:
        """Whether all is as it should be."""
        right = self.outcome in fault.outcomes and self.answers == 1 and self.same
        return right and self.safe and self.serving and not self.violations


def inject(fault: Fault, service: Service, random: Random) -> Seen:
    """Do the fault once to a fresh service at z = 0."""
    key = str(uuid.uuid4())
    microscope, asked_s = service.microscope, time.perf_counter()
    with service.connect() as client, fault.done(service, random):
        if fault.client_dies:
            _ask_and_die(service, fault, key)
        reply, answers, answered_s, status_ms = _ask(service, fault, key)
        again = _ask(service, fault, key)[0]
        if fault.latches:
            time.sleep(0.02)  # a move after the latch would come now
        fired_s = microscope.fired_s or asked_s
        return Seen(
            outcome=_outcome(reply),
            answers=answers,
            detection_s=answered_s - fired_s,
            status_ms=status_ms,
            safe=_safe(fault, service, fired_s, client, reply),
            serving=_serves(client),
            same=_job_id(again) == _job_id(reply) and _outcome(again) == _outcome(reply),
            violations=sum(not LIMITS_UM[0] <= z_um <= LIMITS_UM[1] for z_um, _ in microscope.moves),
        )


def _request(fault: Fault, key: str) -> list[bytes]:
    params = {"wait": True, "request_key": key}
    return [b"", json.dumps({"jsonrpc": "2.0", "id": 1, "method": fault.method, "params": params}).encode()]


def _ask_and_die(service: Service, fault: Fault, key: str) -> None:
    """A client that is gone before its answer comes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 1000
        raw.connect(service.config.server.control)
        raw.send_multipart(_request(fault, key))
        while service.microscope.fired_s is None:
            time.sleep(0.001)


def _ask(service: Service, fault: Fault, key: str) -> tuple[dict[str, Any], int, float, tuple[float, ...]]:
    """The reply, how many came, when, and how long each status took meanwhile in ms."""
    took_ms: list[float] = []
    deadline_s = time.perf_counter() + GIVE_UP_S
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw, context.socket(zmq.DEALER) as asking:
        raw.linger = asking.linger = 0
        for socket in (raw, asking):
            socket.connect(service.config.server.control)
        _status_ms(asking)  # it is connected before
        raw.send_multipart(_request(fault, key))
        while not raw.poll(2):
            if time.perf_counter() > deadline_s:
                return {}, 0, time.perf_counter(), tuple(took_ms)
            took_ms.append(_status_ms(asking))
        answered_s, reply, answers = time.perf_counter(), json.loads(raw.recv_multipart()[-1]), 1
        while raw.poll(DOUBLE_MS):
            raw.recv_multipart()
            answers += 1
    return reply, answers, answered_s, tuple(took_ms)


def _status_ms(asking: zmq.Socket[bytes]) -> float:
    began_s = time.perf_counter()
    asking.send_multipart([b"", PING.replace(b"system.ping", b"state.get")])
    asking.recv_multipart()
    return 1000 * (time.perf_counter() - began_s)


def _outcome(reply: dict[str, Any]) -> str:
    if "error" in reply:
        return str(reply["error"]["data"]["outcome"])
    return str(reply.get("result", {}).get("outcome", "none"))


def _job_id(reply: dict[str, Any]) -> str | None:
    told = reply["error"]["data"] if "error" in reply else reply.get("result", {})
    job_id: str | None = told.get("job_id")
    return job_id


def _safe(fault: Fault, service: Service, fired_s: float, client: Client, reply: dict[str, Any]) -> bool:
    """Whether the stage is where it should be, a fault is latched exactly if it should be, and no lost GPU serves."""
    latched = client.state().fault is not None
    moved_since = [z_um for z_um, when_s in service.microscope.moves if when_s > fired_s]
    z_um = service.microscope.true_z_um()
    ends = {
        "home": abs(z_um) <= AT_HOME_UM,
        "still": not moved_since,
        "stated": z_um == _stated_um(reply) == client.state().z_um,
        "focused": abs(z_um - FOCUS_UM) <= IN_FOCUS_UM,
    }
    within = LIMITS_UM[0] <= z_um <= LIMITS_UM[1]
    return ends[fault.end] and latched == fault.latches and within and service.scorer.backend == "cpu"


def _stated_um(reply: dict[str, Any]) -> float | None:
    """Where an error says that the stage stands."""
    told: float | None = reply.get("error", {}).get("data", {}).get("stage_z_um")
    return told


def _serves(client: Client) -> bool:
    try:
        return bool(client.ping().session) and client.state().job is None
    except FocusdError:
        return False
