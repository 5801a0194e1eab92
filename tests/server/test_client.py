"""The clients: when they give up, what they raise, and how little they import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import zmq

from focusd import errors
from focusd.client import Client, calls, streams
from focusd.client.exchange import PATIENCE_S, Exchange
from focusd.errors import FocusdError, RequestError, UnreachableError
from focusd.protocol.failure import Failure
from focusd.protocol.messages import encode
from focusd.protocol.methods import MOVE, PING
from focusd.protocol.results import MoveResult
from tests.server.daemon import Daemon


class Clock:
    """A clock that the test winds on."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def pong(session: str) -> list[bytes]:
    return [b"", encode({"jsonrpc": "2.0", "id": "ping", "result": {"session": session}})]


def long_exchange(clock: Clock) -> Exchange[MoveResult]:
    params = {"wait": True, "request_key": "key"}
    return Exchange("tcp://here", MOVE, params, 12.0, clock=clock)


def test_a_long_request_pings_first_and_after_each_silence() -> None:
    clock = Clock()
    exchange = long_exchange(clock)
    assert [json.loads(frames[-1])["method"] for frames in exchange.to_send()] == [
        "system.ping",
        "stage.move",
    ]
    exchange.receive(pong("a"))
    clock.now_s += PATIENCE_S
    exchange.silence()
    assert [json.loads(frames[-1])["method"] for frames in exchange.to_send()] == ["system.ping"]
    exchange.receive([b"", encode({"id": "request", "result": {"z_start_um": 0, "z_um": 1, "newer": 2}})])
    assert [result.model_dump() for result in exchange.results] == [
        {"z_start_um": 0, "z_um": 1, "newer": 2}
    ], "what a newer daemon adds is kept"


def test_a_daemon_that_dies_or_restarts_is_noticed_before_the_timeout() -> None:
    died, restarted = long_exchange(Clock()), long_exchange(Clock())
    died.receive(pong("a"))
    died.silence()
    with pytest.raises(UnreachableError, match=r"no answer.*focusd run"):
        died.silence()
    restarted.receive(pong("a"))
    with pytest.raises(UnreachableError, match="restarted"):
        restarted.receive(pong("b"))


def test_a_timeout_says_that_the_daemon_is_alive_and_gives_the_key_back() -> None:
    clock = Clock()
    exchange = long_exchange(clock)
    exchange.receive(pong("a"))
    clock.now_s += 12.0
    assert exchange.listen_ms == 0
    with pytest.raises(UnreachableError, match="alive") as late:
        exchange.silence()
    assert late.value.data == {"endpoint": "tcp://here", "request_key": "key"}


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"[]", b'{"id": "request"}', b'{"id": 1, "result": 3}'])
def test_another_program_on_the_port_is_told_apart(answer: bytes) -> None:
    with pytest.raises(UnreachableError, match="not a focusd"):
        Exchange("tcp://here", PING, {}, 1.0).receive([answer])


def test_an_error_of_a_newer_daemon_keeps_what_can_be_kept() -> None:
    class NewerError(errors.BudgetError):
        outcome = "newer"

    sent = json.loads(encode(Failure.of(NewerError("what to do", z_um=3.0))))
    told = sent | {"data": sent["data"] | {"class": "UnheardOfError"}}

    known = Failure.model_validate(told).error()
    unknown = Failure.model_validate(told | {"code": -32999}).error()

    assert isinstance(known, errors.BudgetError)
    assert (known.outcome, known.retryable, known.data["z_um"]) == ("newer", True, 3.0)
    assert type(unknown) is FocusdError
    assert Failure.of(unknown).model_dump() == told | {"code": -32999}


def test_an_absent_daemon_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SHORT_S", 0.1)
    monkeypatch.setattr(streams, "SUBSCRIBED_S", 0.1)
    with Client("tcp://127.0.0.1:9", "tcp://127.0.0.1:9") as client:
        with pytest.raises(UnreachableError, match=r"127.0.0.1:9.*server\.control"):
            client.ping()
        with pytest.raises(UnreachableError, match=r"127.0.0.1:9.*server\.events"), client.events():
            pass
    with Client("nonsense") as client, pytest.raises(RequestError, match="nonsense"):
        client.ping()


def test_the_blocking_client_does_it_all(threaded_daemon: Daemon) -> None:
    endpoints = threaded_daemon.endpoints
    with Client(endpoints.control, endpoints.events) as client:
        assert client.hello().session == client.ping().session
        with client.events("job", "focus.done") as events:
            low_um, high_um = client.calibrate(range_um=80.0).range_um
            assert high_um - low_um == pytest.approx(160)
            job_id = client.refocus(wait=False).job_id
            seen = [next(events) for _ in range(6)]
        assert [event.topic for event in seen] == ["job", "focus.done", "job"] * 2
        assert client.job(job_id).state == "succeeded"
        assert client.cancel(job_id).state == "succeeded"
        assert client.state().job is None
        with pytest.raises(RequestError, match="no topic"):
            client.events("focus")


def test_a_plain_subscriber_gets_events(threaded_daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(threaded_daemon.endpoints.events)
        socket.subscribe(b"focusd/1/heartbeat")
        topic, body = socket.recv_multipart()
    assert topic == b"focusd/1/heartbeat"
    assert json.loads(body).keys() == {"session", "seq", "time", "monotonic_s", "job_id", "topic", "data"}


DAEMONS = {
    "torch",
    "pymmcore",
    "pymmcore_plus",
    "numpy",
    "scipy",
    "typer",
    "rich",
    "platformdirs",
    "focusd.daemon",
}


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("focusd", DAEMONS | {"pydantic", "zmq", "focusd.client", "focusd.errors"}),
        ("focusd.client", DAEMONS | {"asyncio", "zmq.asyncio", "zmq.auth", "click"}),
        ("focusd.ctl", DAEMONS | {"asyncio", "zmq.asyncio", "zmq.auth", "matplotlib"}),
    ],
)
def test_an_import_brings_only_what_is_used(module: str, unneeded: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert unneeded & set(done.stdout.split()) == set()
