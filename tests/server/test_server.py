"""The server against real sockets: whatever comes in, it answers once and lives."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import zmq
import zmq.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from focusd.client import AsyncClient, Client
from focusd.config import ServerConfig
from focusd.errors import BusyError, CancelledJobError, InternalError, NoSampleError, RequestError
from focusd.protocol.events import JobEvent
from focusd.protocol.messages import MAX_FRAME_BYTES, MAX_JSON_BYTES, MAX_PAGE_BYTES
from focusd.protocol.methods import METHODS
from focusd.protocol.openrpc import openrpc
from focusd.protocol.results import RefocusResult, Score
from focusd.server import server
from focusd.server.admission import Load
from focusd.server.sockets import EndpointError
from tests.server.daemon import FOCUS_UM, Daemon, running_daemon
from tests.told import told

pytestmark = pytest.mark.anyio

PING = b'{"jsonrpc": "2.0", "id": "still there", "method": "system.ping"}'


def client_of(daemon: Daemon) -> AsyncClient:
    return AsyncClient(daemon.endpoints.control, daemon.endpoints.events, name="test")


def exchange(endpoint: str, frames: list[bytes], kind: int = zmq.DEALER, **options: int) -> dict[str, Any]:
    """Send frames as they are, return the reply's JSON."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.connect(endpoint)
        socket.send_multipart(frames)
        assert socket.poll(10_000), "no reply"
        reply: dict[str, Any] = json.loads(socket.recv_multipart()[-1])
        return reply


@pytest.mark.parametrize("options", [{}, {"REQ_CORRELATE": 1, "REQ_RELAXED": 1}])
def test_plain_req_clients_are_served(threaded_daemon: Daemon, options: dict[str, int]) -> None:
    reply = exchange(threaded_daemon.endpoints.control, [PING], zmq.REQ, **options)
    assert reply["id"] == "still there"
    assert reply["result"] == {"session": threaded_daemon.bus.session}


def test_proxied_envelopes_come_back_whole(threaded_daemon: Daemon) -> None:
    assert "result" in exchange(threaded_daemon.endpoints.control, [b"hop 1", b"hop 2", b"", PING])


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([PING], -32600),  # no empty frame
        ([b""], -32600),
        ([b"", PING, b"pixels"], -32600),
        ([b"", b""], -32700),
        ([b"", b"\xff\xfe"], -32700),
        ([b"", b'{"jsonrpc": "2.0"'], -32700),
        ([b"", b"[" * 100_000], -32700),
        ([b"", b'{"id": NaN}'], -32700),
        ([b"", b"9" * 100_000], -32700),
        ([b"", b"7"], -32600),
        ([b"", b"null"], -32600),
        ([b"", b"[" + PING + b"]"], -32600),
        ([b"", b'{"id": 1, "method": "system.ping"}'], -32600),
        ([b"", b'{"jsonrpc": "1.0", "id": 1, "method": "system.ping"}'], -32600),
        ([b"", b'{"jsonrpc": "2.0", "id": {}, "method": "system.ping"}'], -32600),
        ([b"", b'{"jsonrpc": "2.0", "id": 1e999, "method": "system.ping"}'], -32600),
        ([b"", b'{"jsonrpc": "2.0", "id": 1, "method": 3}'], -32600),
        ([b"", b'{"jsonrpc": "2.0", "id": 1, "method": "rm -rf"}'], -32601),
        ([b"", b'{"jsonrpc": "2.0", "id": 1, "method": "system.ping", "params": [1]}'], -32602),
        ([b"", b'{"jsonrpc": "2.0", "id": 1, "method": "job.status"}'], -32602),
        ([b"", b'{"jsonrpc": "2.0", "id": 1, "method": "job.status", "params": {"job_id": "none"}}'], -32602),
    ],
)
def test_malformed_messages_get_their_code(threaded_daemon: Daemon, frames: list[bytes], code: int) -> None:
    reply = exchange(threaded_daemon.endpoints.control, frames)
    assert reply["error"]["code"] == code
    assert reply["error"]["message"]
    assert "result" in exchange(threaded_daemon.endpoints.control, [b"", PING])


@pytest.mark.parametrize(
    "params",
    [
        {"roi": [0, 0, 10]},
        {"roi": [0, 0, 0, 10]},
        {"roi": [0.5, 0, 10, 10]},
        {"roi": "0,0,10,10"},
        {"max_exposures": "8"},
        {"max_exposures": 10**400},
        {"strategy": 1},
        {"wait": 1},
        {"stategy": "published"},
    ],
)
def test_wrong_params_are_named(threaded_daemon: Daemon, params: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "focus.run", "params": params}).encode()
    error = exchange(threaded_daemon.endpoints.control, [b"", body])["error"]
    assert error["code"] == -32602
    assert next(iter(params)) in error["message"]
    assert threaded_daemon.operations.runs == 0


def test_an_oversized_frame_costs_its_sender_the_connection(threaded_daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(threaded_daemon.endpoints.control)
        socket.send_multipart([b"", b" " * (MAX_FRAME_BYTES + 1)])
        assert not socket.poll(200)
    assert "result" in exchange(threaded_daemon.endpoints.control, [b"", PING])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
calls = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.sampled_from(sorted(METHODS)), "id": json_values},
    optional={"params": st.dictionaries(st.sampled_from(["job_id", "seq", "roi", "range_um"]), json_values)},
)
bodies = st.binary(max_size=200) | (json_values | calls).map(lambda value: json.dumps(value).encode())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.lists(bodies | st.just(b""), min_size=1, max_size=4), min_size=1, max_size=5))
def test_no_message_takes_the_server_down(threaded_daemon: Daemon, messages: list[list[bytes]]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(threaded_daemon.endpoints.control)
        for frames in [*messages, *([b"", frames[-1]] for frames in messages), [b"", PING]]:
            socket.send_multipart(frames)
        answered = False
        while not answered:
            assert socket.poll(10_000), "the server is gone"
            answered = json.loads(socket.recv_multipart()[-1])["id"] == "still there"


async def test_notifications_are_obeyed_without_a_reply(daemon: Daemon) -> None:
    note = b'{"jsonrpc": "2.0", "method": "focus.calibrate"}'
    unknown = b'{"jsonrpc": "2.0", "method": "no.such"}'
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(daemon.endpoints.control)
        for body in (note, unknown, PING):
            await socket.send_multipart([b"", body])
        assert json.loads((await socket.recv_multipart())[-1])["id"] == "still there"
    assert any(event["data"].get("kind") == "calibrate" for event in told(daemon.bus.since(0, 100)))


async def test_hello_and_discover_describe_the_protocol(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        hello = await client.hello()
        document = (await client.discover()).model_dump()
        with pytest.raises(RequestError, match="focusd/1"):
            await client.hello(protocol="focusd/9")
    assert hello.protocols == ["focusd/1"]
    assert hello.methods == [method["name"] for method in document["methods"]] == list(METHODS)
    run = next(method for method in document["methods"] if method["name"] == "focus.run")
    assert {"roi", "wait", "request_key"} < {param["name"] for param in run["params"]}


async def test_of_two_clients_one_runs_the_other_is_busy_and_a_monitor_sees_all(daemon: Daemon) -> None:
    async with client_of(daemon) as first, client_of(daemon) as second, second.events() as monitor:
        job_id = (await first.refocus(strategy="wait", wait=False)).job_id
        with pytest.raises(BusyError) as busy:
            await second.refocus()
        assert busy.value.data | {"job_id": job_id, "kind": "refocus", "retryable": True} == busy.value.data
        running = {"job_id": job_id, "kind": "refocus", "client": "test"}
        assert (await second.state()).model_dump()["job"] == running
        daemon.operations.release.set()
        seen = [await anext(monitor)]
        while not isinstance(seen[-1], JobEvent) or seen[-1].data.state != "succeeded":
            seen.append(await anext(monitor))
    numbers = [event.seq for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    of_job = [event.topic for event in seen if event.job_id == job_id]
    assert of_job == ["job", *["focus.progress"] * (len(of_job) - 3), "focus.done", "job"]
    assert len(of_job) > 4, "each exposure is told"


async def test_waiting_blocks_nobody_and_cancel_ends_it(daemon: Daemon) -> None:
    async with (
        client_of(daemon) as client,
        client.events(JobEvent) as events,
        anyio.create_task_group() as tasks,
    ):

        async def wait_for_it() -> None:
            with pytest.raises(CancelledJobError) as cancelled:
                await client.refocus(strategy="wait")
            assert cancelled.value.data["job_id"] == job_id

        tasks.start_soon(wait_for_it)
        job_id = (await anext(events)).job_id
        assert (await client.job(job_id)).state == "running"
        await client.cancel(job_id)
        assert (await anext(events)).data.state == "cancelled"


async def test_failures_come_back_as_what_they_are(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        with pytest.raises(NoSampleError, match="field") as empty:
            await client.refocus(strategy="fail")
        assert empty.value.data | {"stage_z_um": 0.0, "exposures": 3, "dose_ms": 3.0} == empty.value.data
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            await client.refocus(strategy="crash")
        assert (await client.job(empty.value.data["job_id"])).state == "failed"
        assert (await client.refocus(roi=(1, 2, 3, 4))).outcome == "focused"
        assert daemon.operations.scorer.regions[-1] == (1, 2, 3, 4)


async def test_a_request_key_runs_once(daemon: Daemon) -> None:
    key = "6a1b3c0e-0000-4000-8000-000000000000"
    async with client_of(daemon) as client:
        first = await client.refocus(request_key=key)
        assert await client.refocus(request_key=key) == first
        with pytest.raises(RequestError, match="request_key"):
            await client.refocus(request_key=key, max_exposures=5)
    assert daemon.operations.runs == 1


async def test_a_killed_client_leaves_its_job_to_end_and_the_server_serving(daemon: Daemon) -> None:
    script = "import sys; from focusd.client import Client; Client(*sys.argv[1:]).refocus(strategy='wait')"
    endpoints = (daemon.endpoints.control, daemon.endpoints.events)
    async with client_of(daemon) as client, client.events(JobEvent) as events:
        async with await anyio.open_process([sys.executable, "-c", script, *endpoints]) as victim:
            job_id = (await anext(events)).job_id
            victim.kill()
        daemon.operations.release.set()
        assert (await anext(events)).data.state == "succeeded"
        found = (await client.job(job_id)).result
        assert isinstance(found, RefocusResult)
        assert found.z_found_um == pytest.approx(FOCUS_UM, abs=0.5)


async def test_the_state_is_published_when_it_changes(daemon: Daemon) -> None:
    async with client_of(daemon) as client, client.events("state") as states:
        assert (await anext(states)).data.z_um == 0.0
        found = await client.refocus()
        with anyio.fail_after(10):
            while (state := (await anext(states)).data).job or state.z_um != found.z_found_um:
                pass
    idle = {"rig": "scripted", "fault": None, "lease": None, "hold": {"state": "disengaged"}}
    assert state.model_dump() | idle == state.model_dump()


async def test_a_slow_subscriber_loses_its_own_events_and_can_ask_for_them(daemon: Daemon) -> None:
    async with client_of(daemon) as client, client.events() as slow:
        for number in range(4000):
            daemon.bus.publish("log", {"number": number, "padding": "x" * 10_000})
        before = await anext(slow)
        while (event := await anext(slow)).seq == before.seq + 1:
            before = event
        missed = (await client.since(before.seq, limit=3)).events
    assert [event.seq for event in missed] == [before.seq + n for n in (1, 2, 3)]


async def test_the_end_answers_those_who_wait() -> None:
    ends: list[str] = []

    def wait_for_it(control: str) -> None:
        with Client(control) as client, pytest.raises(CancelledJobError) as cancelled:
            client.refocus(strategy="wait")
        ends.append(cancelled.value.message)

    async with (
        anyio.create_task_group() as tasks,
        running_daemon() as daemon,
        client_of(daemon) as client,
        client.events(JobEvent) as events,
    ):
        tasks.start_soon(anyio.to_thread.run_sync, wait_for_it, daemon.endpoints.control)
        assert (await anext(events)).data.state == "running"
    assert len(ends) == 1


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_a_second_daemon_is_refused_and_the_first_goes_on(tmp_path: Path, transport: str) -> None:
    asked = {
        "tcp": ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*"),
        "ipc": ServerConfig(control=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e"),
    }[transport]
    async with running_daemon(asked) as first:
        same = ServerConfig(control=first.endpoints.control, events=first.endpoints.events)
        with pytest.raises(ExceptionGroup) as refused:
            async with running_daemon(same):
                pass
        assert refused.group_contains(EndpointError, match="another focusd")
        async with client_of(first) as client:
            assert (await client.ping()).session == first.bus.session
    async with running_daemon(same):
        pass  # the address is free again


async def test_an_impossible_address_is_an_error_that_names_it(tmp_path: Path) -> None:
    nowhere = ServerConfig(control=f"ipc://{tmp_path}/no/such/folder/c", events="tcp://127.0.0.1:*")
    with pytest.raises(ExceptionGroup) as refused:
        async with running_daemon(nowhere):
            pass
    assert refused.group_contains(EndpointError, match="no/such/folder")


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([b"", PING, *[b"x"] * 100], "102 frames|103 frames"),
        ([b"hop" * 1000, b"", PING], "2048 bytes"),
        ([b"", b'{"jsonrpc": "2.0", "method": "system.ping", "id": "' + b"x" * 300 + b'"}'], "id"),
        ([b"", b'{"jsonrpc": "2.0", "method": "system.ping", "id": ' + b"9" * 4000 + b"}"], "id|not JSON"),
        ([b"", b'{"jsonrpc": "2.0", "method": "' + b"x" * 100_000 + b'", "id": 1}'], "method"),
        ([b"", b" " * MAX_JSON_BYTES + PING], "longer than"),
        (
            [b"", json.dumps(json.loads(PING) | {"params": dict.fromkeys(map(str, range(999)))}).encode()],
            "params",
        ),
        (
            [b"", json.dumps(json.loads(PING) | {"params": dict.fromkeys(map(str, range(9999)))}).encode()],
            "more than 4096 values",
        ),
        (
            [b"", json.dumps(json.loads(PING) | dict.fromkeys(map(str, range(999)))).encode()],
            "100[23] keys",
        ),
    ],
)
def test_what_is_too_much_for_one_message_is_refused(
    threaded_daemon: Daemon, frames: list[bytes], says: str
) -> None:
    error = exchange(threaded_daemon.endpoints.control, frames)["error"]
    assert re.search(says, error["message"])
    assert error["code"] in (-32600, -32700)
    assert "result" in exchange(threaded_daemon.endpoints.control, [b"", PING])


async def test_pixels_beyond_what_may_be_under_way_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        server, "UNDER_WAY", (Load(requests=9, bytes=1 << 20), Load(requests=9, bytes=1 << 21))
    )
    scoring = anyio.Event()

    async def score(**_: Any) -> Score:
        await scoring.wait()
        return Score(outcome="no_sample", b=None, sigma=1.0, structure=0.0, sharpness=0.0, tracked=False)

    params = {"frames": [{"dtype": "uint8", "shape": [512, 512]}]}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "focus.score", "params": params}).encode()
    async with running_daemon() as daemon, client_of(daemon) as client:
        monkeypatch.setattr(daemon.operations, "score", score)
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket, anyio.fail_after(30):
            socket.connect(daemon.endpoints.control)
            for _ in range(10):
                await socket.send_multipart([b"", body, bytes(512 * 512)])
            busy = [json.loads((await socket.recv_multipart())[-1])["error"] for _ in range(7)]
            assert (await client.ping()).session
            scoring.set()
            rest = [json.loads((await socket.recv_multipart())[-1]) for _ in range(3)]
    assert {error["code"] for error in busy} == {BusyError.code}
    assert all("result" in reply for reply in rest)


async def test_requests_that_wait_for_one_job_are_bounded_and_it_can_be_cancelled(daemon: Daemon) -> None:
    params = {"strategy": "wait", "wait": True, "request_key": "one-and-the-same"}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "focus.run", "params": params}).encode()
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(daemon.endpoints.control)
        refused: list[str] = []
        with anyio.fail_after(30):
            while not refused:
                for _ in range(50):
                    await socket.send_multipart([b"", body])
                await anyio.sleep(0.3)
                while await socket.poll(0):
                    refused.append(json.loads((await socket.recv_multipart())[-1])["error"]["message"])
                refused = [message for message in refused if "under way" in message]
            running = daemon.jobs.running
            assert running
            async with client_of(daemon) as client:
                assert (await client.cancel(running.id)).job_id == running.id
            await running.wait()
            assert running.state == "cancelled"


async def test_pages_of_events_are_bounded_and_give_them_all(daemon: Daemon) -> None:
    async with client_of(daemon) as client:
        for number in range(300):
            daemon.bus.publish("log", {"number": number, "padding": "x" * 10_000})
        last, numbers = 0, []
        while page := (await client.since(last, limit=10_000)).events:
            assert sum(len(event.model_dump_json()) for event in page) < 2 * MAX_PAGE_BYTES
            numbers += [event.data["number"] for event in page if event.topic == "log"]
            last = page[-1].seq
    assert numbers == list(range(300))


def test_the_document_is_made_once() -> None:
    assert openrpc() is openrpc()
