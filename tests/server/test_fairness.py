"""What one client sends costs the others little: parts without number, frames, long requests, slow questions."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import pytest
import zmq
import zmq.asyncio

from focusd.client.client import AsyncClient
from focusd.errors import BusyError
from focusd.server import drain, server
from focusd.storage.worker import MOST_WAITING
from tests.server.daemon import Daemon, running_daemon
from tests.server.test_holding import call, described
from tests.server.test_server import PING, client_of

pytestmark = pytest.mark.anyio
FRAME = call("focus.score", frames=[described(2, 2, dtype="uint8")])


class Scores:
    """Stands in for the scores of a daemon: one frame at a time, once they may begin.

    Attributes:
        begin: when they may.
        seen: first pixel of each frame that was scored.
    """

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begin, self.seen = anyio.Event(), []  # type: anyio.Event, list[int]
        self._turn = anyio.CapacityLimiter(1)
        monkeypatch.setattr(daemon.operations, "score", self._score)

    async def _score(self, *, pixels: Any, roi: object) -> dict[str, Any]:
        async with self._turn:
            await self.begin.wait()
            await anyio.sleep(0.001)
            self.seen.append(int(pixels[0, 0]))
        return {"b": None}


async def test_clients_take_turns_in_scoring(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(daemon, monkeypatch)
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.DEALER) as many,
        context.socket(zmq.DEALER) as one,
    ):
        for raw, frames in ((many, 9), (one, 1)):
            raw.connect(daemon.endpoints.control)
            for _ in range(frames):
                await raw.send_multipart([b"", FRAME, bytes([frames] * 4)])
            await raw.send_multipart([b"", PING])
            await raw.recv_multipart()  # the frames are there
        scores.begin.set()
        for raw, frames in ((many, 9), (one, 1)):
            for _ in range(frames):
                await raw.recv_multipart()
    assert len(scores.seen) == 10
    assert scores.seen.index(1) <= 2


@pytest.mark.skipif(sys.platform == "win32", reason="does not tell which connection has ended")
async def test_frames_of_a_client_that_has_gone_are_not_scored(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores(daemon, monkeypatch)
    with zmq.asyncio.Context() as context:
        with context.socket(zmq.DEALER) as gone:
            gone.linger = 0
            gone.connect(daemon.endpoints.control)
            for _ in range(30):
                await gone.send_multipart([b"", FRAME, bytes(4)])
            await gone.send_multipart([b"", PING])
            await gone.recv_multipart()
        with context.socket(zmq.DEALER) as here:
            here.connect(daemon.endpoints.control)
            await here.send_multipart([b"", FRAME, b"\7" * 4])
            await here.send_multipart([b"", PING])
            await here.recv_multipart()
            scores.begin.set()
            await here.recv_multipart()
            for _ in range(10):  # what had waited has been looked at by then
                await here.send_multipart([b"", PING])
                await here.recv_multipart()
    assert 7 in scores.seen
    assert len(scores.seen) <= 2


@pytest.mark.parametrize("drained", ["libzmq", "pyzmq"])
async def test_a_message_of_very_many_parts_costs_its_sender_the_connection_and_nobody_else_an_answer(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, drained: str
) -> None:
    if drained == "pyzmq":
        monkeypatch.setattr(drain, "_in_libzmq", None)
    elif sys.platform == "linux":
        assert drain._in_libzmq is not None
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(daemon.endpoints.control)
        ended = raw.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for parts in (3000, 1000):
            await raw.send_multipart([b"", PING, *[b"x"] * parts])
        with anyio.fail_after(10):
            await ended.recv_multipart()
        async with client_of(daemon) as client:
            assert (await client.ping()).session == daemon.bus.session
        await raw.send_multipart([b"", PING])  # who comes anew is answered
        with anyio.fail_after(10):
            assert "result" in json.loads((await raw.recv_multipart())[-1])
        raw.disable_monitor()
        ended.close()


async def test_long_requests_of_all_together_have_a_bound_and_short_ones_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "READING_PER_S", 1e-3)
    monkeypatch.setattr(server, "READING_AT_ONCE", 1.0)
    places = [(float(n), 0.0) for n in range(1000)]
    outcomes = []
    async with running_daemon() as daemon:
        for _ in range(4):
            async with AsyncClient(daemon.endpoints.control) as stranger:
                try:
                    await stranger.map_predict(places)
                    outcomes.append("predicted")
                except BusyError as busy:
                    outcomes.append("long" if "long requests" in busy.message else busy.message)
                assert (await stranger.ping()).session == daemon.bus.session
    assert outcomes[0] == "predicted"
    assert outcomes[-1] == "long"


async def test_slow_questions_are_answered_one_by_one_and_too_many_are_busy(daemon: Daemon) -> None:
    asked = MOST_WAITING + 20
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.connect(daemon.endpoints.control)
        for _ in range(asked):
            await raw.send_multipart([b"", call("calibrations.list")])
        replies = [json.loads((await raw.recv_multipart())[-1]) for _ in range(asked)]
    assert any("result" in reply for reply in replies)
    assert {reply["error"]["code"] for reply in replies if "error" in reply} <= {-32050}
