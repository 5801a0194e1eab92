"""Messages as no client should send them: valid ones of each method, mutated in bytes, in JSON and in frames."""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import zmq

from focusd.protocol.methods import METHODS
from focusd.protocol.requests import LongParams

PING = b'{"jsonrpc": "2.0", "id": "still there", "method": "system.ping"}'
BATCH = 500
_PARAMS: dict[str, dict[str, Any]] = {
    "system.hello": {"protocol": "focusd/1"},
    "focus.calibrate": {"range_um": 1e-9, "step_um": 4.0},
    "focus.run": {"roi": [0, 0, 64, 64], "max_exposures": 3, "request_key": "6a1b3c0e-0000-4000"},
    "stage.move": {"z_um": 1e9},
    "job.status": {"job_id": "0123456789ab"},
    "job.cancel": {"job_id": "0123456789ab"},
    "events.since": {"seq": 0, "limit": 2},
}
CORPUS: list[dict[str, Any]] = [
    {"jsonrpc": "2.0", "id": 1, "method": method, "params": _PARAMS.get(method, {})}
    for method in METHODS
    if method not in ("rpc.discover", "system.reconnect")
]
HARMLESS = [
    message
    for message in CORPUS
    if not issubclass(METHODS[str(message["method"])].params, LongParams)
    and message["method"] not in ("focus.hold", "lease.acquire")
]
"""None of these starts a job, or keeps others from one."""
_VALUES: list[object] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1.5,
    "",
    "x" * 70,
    "\ud800",
    [],
    {},
    [[]],
    {"a": {}},
    "focusd/1",
    -0.0,
]


def mutated(random: Random, corpus: Sequence[dict[str, Any]] = CORPUS) -> list[bytes]:
    """The frames of one message."""
    body = random.choice((_other_bytes, _other_values))(random, corpus)
    frames = [b"", body]
    match random.randrange(12):
        case 0:
            frames.pop(0)
        case 1:
            frames.append(random.randbytes(random.randrange(40)))
        case 2:
            frames = [random.randbytes(random.randrange(9)) for _ in range(random.randrange(1, 6))] + frames
    return frames


def _other_bytes(random: Random, corpus: Sequence[dict[str, Any]]) -> bytes:
    body = bytearray(json.dumps(random.choice(corpus)).encode())
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(body))
        match random.randrange(4):
            case 0:
                body[at] = random.randrange(256)
            case 1:
                del body[at : at + random.randrange(1, 9)]
            case 2:
                body[at:at] = random.randbytes(random.randrange(1, 9))
            case _:
                body[at:at] = body[: random.randrange(1, 40)]
        body = body or bytearray(b"\0")
    return bytes(body)


def _other_values(random: Random, corpus: Sequence[dict[str, Any]]) -> bytes:
    message = json.loads(json.dumps(random.choice(corpus)))
    for _ in range(random.randint(1, 3)):
        place = random.choice([message, message.get("params")])
        if not isinstance(place, dict):
            continue
        key = random.choice([*place, "jsonrpc", "id", "params", "wait", "client", "z_um", "x"])
        if random.random() < 0.2:
            place.pop(key, None)
        else:
            place[key] = copy.deepcopy(random.choice(_VALUES))
    return json.dumps(message).encode()


def fuzz(endpoint: str, messages: int, seed: int) -> dict[str, Any]:
    """Send mutated messages and see whether the daemon goes on; endpoint's daemon is in this process.

    Returns: messages sent, answers, seconds, growth of memory in MB after a tenth of them, and whether it serves.
    """
    random, answers, began_s = Random(seed), 0, time.perf_counter()
    settled_mb = resident_mb()
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(endpoint)
        for sent in range(0, messages, BATCH):
            for _ in range(min(BATCH, messages - sent)):
                raw.send_multipart(mutated(random))
            raw.send_multipart([b"", PING])
            answers += _until_pong(raw)
            if sent <= messages // 10:
                settled_mb = resident_mb()
    return {
        "messages": messages,
        "answers": answers,
        "seconds": time.perf_counter() - began_s,
        "rss_growth_mb": resident_mb() - settled_mb,
        "serving": True,
    }


def _until_pong(raw: zmq.Socket[bytes]) -> int:
    answers = 0
    while True:
        if not raw.poll(30_000):
            raise RuntimeError("the daemon no longer answers")
        if json.loads(raw.recv_multipart()[-1])["id"] == "still there":
            return answers
        answers += 1


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6
