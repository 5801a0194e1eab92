"""One client's haste is its own harm: requests beyond the rate are refused, its cancel and everybody else's are not."""

from __future__ import annotations

import json

import pytest
import zmq
import zmq.asyncio

from focusd.client import AsyncClient
from focusd.config import ServerConfig
from focusd.server.ratelimit import REMEMBERED, RateLimit
from tests.server.daemon import running_daemon


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_of_one_second_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(10.0, clock)
    assert [limit.allows("a") for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.allows("b")
    clock.now_s = 0.25
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]


def test_memory_is_bounded() -> None:
    limit = RateLimit(1.0, Clock())
    for number in range(3 * REMEMBERED):
        limit.allows(number)
    assert len(limit._buckets) == REMEMBERED


@pytest.mark.anyio
async def test_a_hasty_client_is_answered_busy_and_may_still_cancel() -> None:
    config = ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*", max_requests_per_s=5)
    async with running_daemon(config) as daemon, AsyncClient(daemon.endpoints.control) as calm:
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as hasty:
            hasty.linger = 0
            hasty.connect(daemon.endpoints.control)
            job_id = (await calm.refocus(strategy="wait", wait=False)).job_id
            methods: list[tuple[str, dict[str, str]]] = [("state.get", {})] * 20 + [
                ("job.cancel", {"job_id": job_id})
            ]
            for number, (method, params) in enumerate(methods):
                request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                await hasty.send_multipart([b"", json.dumps(request).encode()])
            replies = [json.loads((await hasty.recv_multipart())[-1]) for _ in methods]
        refused = [reply["error"] for reply in replies if "error" in reply]
        assert {reply["id"] for reply in replies} == set(range(len(methods)))
        assert 0 < len(refused) <= 15
        assert {(error["code"], error["data"]["retryable"]) for error in refused} == {(-32050, True)}
        assert next(reply for reply in replies if reply["id"] == 20)["result"]["job_id"] == job_id
        assert (await calm.ping()).session == daemon.bus.session
