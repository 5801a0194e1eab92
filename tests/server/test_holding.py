"""Hold, lease, frames of pixels and `events.since` through real sockets."""

from __future__ import annotations

import json
from typing import Any

import anyio
import numpy as np
import pytest

from focusd.client import AsyncClient
from focusd.errors import BusyError, RequestError
from focusd.focus.measurement import Measurement
from focusd.protocol.events import DriftEvent
from focusd.protocol.messages import MAX_JSON_BYTES
from focusd.protocol.states import Holding
from tests.focus.exposures import curve
from tests.server.daemon import FOCUS_UM, Daemon
from tests.server.test_server import PING, client_of, exchange

pytestmark = pytest.mark.anyio


def call(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def described(*shape: int, dtype: str = "uint16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape)}


def printed(pixels: np.ndarray, z_um: float) -> np.ndarray:
    """The frame with its z printed into it, where the scripted scorer reads it."""
    pixels.view(np.float64).flat[0] = z_um
    return pixels


async def test_frames_are_scored_as_they_were_sent(daemon: Daemon) -> None:
    strided = np.zeros((3, 16), np.uint16)[:, ::2]
    frames = [printed(np.zeros((3, 8), np.uint16), 40.0), printed(np.zeros((4, 8), np.uint8), -30.0), strided]
    async with client_of(daemon) as client:
        answer = await client.score(frames, roi=(0, 0, 2, 2), z_um=1.0)
        with pytest.raises(RequestError, match="uint8 or uint16"):
            await client.score([np.zeros((3, 3), np.int16)])
        with pytest.raises(RequestError, match="uint8 or uint16"):
            await client.score([np.zeros((3, 3, 2), np.uint8)])
    expected = curve(np.array([40.0, -30.0, 0.0]) - FOCUS_UM)
    assert [score.b for score in answer.scores] == pytest.approx(expected.tolist())
    assert daemon.operations.scorer.regions[-3:] == [(0, 0, 2, 2)] * 3
    assert {score.tracked for score in answer.scores} == {False}


async def test_colour_frames_are_scored_as_their_grey(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, score = [], daemon.operations.scorer.score

    def noted(pixels: np.ndarray, *more: Any) -> Measurement:
        seen.append(pixels)
        return score(pixels, *more)

    monkeypatch.setattr(daemon.operations.scorer, "score", noted)
    colours = np.random.default_rng(1).integers(0, 2, (4, 8, 3)).astype(np.uint8)
    async with client_of(daemon) as client:
        await client.score([colours])
    red, green, blue = np.moveaxis(colours.astype(np.uint16), -1, 0)
    assert (seen[0] == red + 2 * green + blue).all()


@pytest.mark.parametrize(
    ("frames", "pixels", "says"),
    [
        ([described(2, 2)], [b"1234567"], "7 bytes are not 2×2 pixels of uint16"),
        ([described(2, 2)], [], "1 frames are described, 0 came"),
        ([described(2, 2)], [b"12345678", b""], "1 frames are described, 2 came"),
        ([described(2, 2, dtype="float64")], [b"0" * 32], "dtype"),
        ([described(0, 2)], [b""], "shape"),
        ([described(2, 2, 2)], [b"0" * 16], "3 or 4 components, not 2"),
        ([described(2, 2, 3)], [b"0" * 16], "16 bytes are not 2×2×3 pixels of uint16"),
        ([described(100_000, 100_000)], [b""], "shape"),
        ([], [], "frames"),
    ],
)
def test_pixels_that_are_not_what_was_said_are_refused(
    threaded_daemon: Daemon, frames: list[dict[str, Any]], pixels: list[bytes], says: str
) -> None:
    reply = exchange(threaded_daemon.endpoints.control, [b"", call("focus.score", frames=frames), *pixels])
    assert reply["error"]["code"] == -32602
    assert says in reply["error"]["message"]


def test_a_long_json_frame_is_refused_though_pixels_may_be_long(threaded_daemon: Daemon) -> None:
    control = threaded_daemon.endpoints.control
    reply = exchange(control, [b"", PING + b" " * MAX_JSON_BYTES])
    assert reply["error"]["code"] == -32600
    large = np.zeros((1200, 1200), np.uint16).tobytes()
    scored = exchange(control, [b"", call("focus.score", frames=[described(1200, 1200)]), large])
    assert scored["result"]["scores"][0]["b"] == pytest.approx(float(curve(np.array([-FOCUS_UM]))[0]))


async def test_under_a_lease_others_are_told_busy_and_everybody_sees_it(daemon: Daemon) -> None:
    async with client_of(daemon) as holder, AsyncClient(daemon.endpoints.control, name="other") as other:
        lease_id = (await holder.acquire_lease(30.0)).lease_id
        with pytest.raises(BusyError, match="leased by test until") as busy:
            await other.refocus()
        assert (busy.value.code, busy.value.data["client"]) == (-32050, "test")
        with pytest.raises(BusyError):
            await other.acquire_lease(30.0)
        assert (lease := (await other.state()).lease) is not None
        assert lease.client == "test"
        assert (await holder.refocus(lease_id=lease_id)).outcome == "focused"
        assert (await holder.acquire_lease(30.0, lease_id)).lease_id == lease_id
        assert (await holder.release_lease(lease_id)).released
        assert (await other.refocus()).outcome == "focused"


async def test_a_lease_ends_by_itself_and_a_monitor_is_told(daemon: Daemon) -> None:
    async with client_of(daemon) as client, client.events("state") as states:
        await client.acquire_lease(0.2)
        with anyio.fail_after(10):
            while not (await anext(states)).data.lease:
                pass
            while (await anext(states)).data.lease:
                pass
        assert (await client.refocus()).outcome == "focused"


async def test_hold_publishes_drift_and_ends_on_release(daemon: Daemon) -> None:
    async with client_of(daemon) as client, client.events(DriftEvent) as drift:
        held = await client.hold(position="A1", tags={"celsius": 37.0})
        event = await anext(drift)
        assert isinstance(hold := (await client.state()).hold, Holding)
        assert hold.client == "test"
        released = await client.release()
        assert (await client.state()).hold.model_dump() == {"state": "disengaged"}
        with pytest.raises(RequestError, match="tags"):
            await client.hold(tags={"bad": [1]})  # type: ignore[dict-item]
    assert held.state == "acquiring"
    assert (event.data.position, event.data.tags) == ("A1", {"celsius": 37.0})
    assert event.data.focus_um == pytest.approx(FOCUS_UM, abs=0.5)
    assert isinstance(released, Holding)
    assert released.checks >= 1


async def test_events_older_than_memory_come_from_the_record(daemon: Daemon) -> None:
    for number in range(12_000):
        daemon.bus.publish("drift" if number % 10 == 0 else "heartbeat", {"number": number})
    async with client_of(daemon) as client:
        old = (await client.since(0, limit=3)).events
        recent = (await client.since(daemon.bus._seq - 2)).events
        elsewhere = (await client.since(5, limit=3, session="another run")).events
    numbers = [event.model_dump()["data"].get("number") for event in [*old, *elsewhere]]
    assert 10 in numbers
    assert all(event.topic != "heartbeat" for event in old)
    assert [event.seq for event in recent] == [daemon.bus._seq - 1, daemon.bus._seq][: len(recent)]
