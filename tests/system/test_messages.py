"""Whatever a client sends to a running daemon, it gets an answer, and so does the next one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from focusd.protocol.messages import MAX_FRAME_BYTES, MAX_JSON_BYTES
from tests.system.conftest import Bench
from tests.system.daemon import dealer, exchange

PING = b'{"jsonrpc": "2.0", "id": 7, "method": "system.ping"}'


def call(method: str, params: Any) -> list[bytes]:
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return [b"", json.dumps(request).encode()]


@pytest.mark.parametrize(
    ("frames", "code", "says"),
    [
        pytest.param([b"", b'{"jsonrpc": '], -32700, "not JSON", id="malformed JSON"),
        pytest.param([b"", b"\xff\xfe\x00"], -32700, "UTF-8", id="not UTF-8"),
        pytest.param([b"", b""], -32700, "not JSON", id="empty JSON frame"),
        pytest.param([b""], -32600, "one JSON frame", id="empty frame alone"),
        pytest.param([PING], -32600, "empty frame", id="no empty frame"),
        pytest.param([b"", PING, b"\0" * 512], -32600, "one JSON frame", id="extra frame"),
        pytest.param([b"", b"[" + PING + b"]"], -32600, "batches", id="batch"),
        pytest.param([b"", b"{}"], -32600, "jsonrpc", id="no request"),
        pytest.param(call("focus.guess", {}), -32601, "focus.guess", id="unknown method"),
        pytest.param(call("focus.run", [1]), -32602, "by name", id="params by position"),
        pytest.param(
            call("focus.run", {"max_exposures": "8"}), -32602, "max_exposures", id="text for number"
        ),
        pytest.param(
            call("focus.run", {"max_exposures": 1}), -32602, "max_exposures", id="too few exposures"
        ),
        pytest.param(call("focus.run", {"roi": [0, 0, -1, 5]}), -32602, "roi", id="negative extent"),
        pytest.param(call("focus.run", {"zoom": 1}), -32602, "zoom", id="unknown param"),
        pytest.param(
            call("focus.calibrate", {"step_um": None, "range_um": "far"}), -32602, "range_um", id="text"
        ),
        pytest.param(call("focus.calibrate", {"planes_um": [1.0]}), -32602, "planes_um", id="too few planes"),
        pytest.param(call("stage.move", {"z_um": True}), -32602, "z_um", id="truth for number"),
        pytest.param(call("stage.move", {}), -32602, "z_um", id="param left out"),
        pytest.param(call("job.status", {"job_id": "none"}), -32602, "none", id="unknown job"),
    ],
)
def test_bad_messages_get_an_error(bench: Bench, frames: list[bytes], code: int, says: str) -> None:
    reply = exchange(bench.daemon.control, frames)

    assert "result" not in reply
    assert reply["error"]["code"] == code
    assert says in reply["error"]["message"]
    assert reply["error"]["data"]["retryable"] is False
    assert bench.daemon.answers()
    assert bench.daemon.client.state().job is None


@pytest.mark.parametrize(
    ("method", "params", "code", "says"),
    [
        ("stage.move", {"z_um": 150.5}, -32011, "stage.max_um"),
        ("focus.run", {"roi": [200, 0, 100, 100]}, -32602, "not inside the frame"),
        ("focus.run", {"strategy": "guess"}, -32602, "published"),
        ("focus.calibrate", {"range_um": 5.0, "step_um": 4.0}, -32602, "3 to 500 steps"),
        ("focus.calibrate", {"range_um": 200.0}, -32011, "stage.min_um"),
    ],
)
def test_what_the_rig_cannot_do_is_an_error_and_moves_nothing(
    bench: Bench, method: str, params: dict[str, Any], code: int, says: str
) -> None:
    error = exchange(bench.daemon.control, call(method, params | {"wait": True}))["error"]

    assert error["code"] == code
    assert says in error["message"]
    assert bench.daemon.client.job(error["data"]["job_id"]).state == "failed"
    assert bench.daemon.client.state().z_um == bench.home_um


def test_a_huge_frame_costs_its_sender_the_connection_and_nobody_else(bench: Bench) -> None:
    with dealer(bench.daemon.control) as raw:
        raw.send_multipart([b"", PING])
        assert raw.poll(10_000)
        raw.recv_multipart()
        with raw.get_monitor_socket(zmq.EVENT_DISCONNECTED) as watch:
            raw.send_multipart([b"", b" " * (MAX_FRAME_BYTES + 1)])
            assert watch.poll(10_000), "it is still connected"
            assert recv_monitor_message(watch)["event"] == zmq.EVENT_DISCONNECTED
            raw.disable_monitor()
    assert bench.daemon.answers()
    assert exchange(bench.daemon.control, [b"", b" " * (MAX_JSON_BYTES - len(PING)) + PING])["id"] == 7
