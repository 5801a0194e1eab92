"""The focus map over real sockets, with both clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from focusd.client import AsyncClient, Client
from focusd.errors import RequestError
from tests.server.daemon import Daemon
from tests.server.test_holding import call
from tests.server.test_server import exchange

CORNERS = [(x, y) for x in (-4000.0, 0.0, 4000.0) for y in (-4000.0, 0.0, 4000.0)]


@pytest.fixture
def client(threaded_daemon: Daemon) -> Iterator[Client]:
    """A client of a daemon with nothing on its map."""
    with Client(threaded_daemon.endpoints.control, threaded_daemon.endpoints.events) as client:
        client.map_clear()
        yield client


def test_the_last_refocus_goes_onto_the_map(client: Client) -> None:
    found = client.refocus()

    assert client.map_add(100, -200).model_dump() == {
        "x_um": 100, "y_um": -200, "z_um": found.z_found_um, "sigma_um": found.sigma_um, "positions": 1
    }  # fmt: skip
    with pytest.raises(RequestError, match="refocus here first"):
        client.map_add(5000, 0)


def test_a_scan_asks_the_map_before_it_refocuses(client: Client) -> None:
    assert client.map_predict(CORNERS).next == 4, "the middle, of an empty map"
    for x, y in CORNERS:
        client.map_add(x, y, z_um=50 + 0.001 * x, sigma_um=0.2)

    answer = client.map_predict([(2000, 1000), (300_000, 0)], tolerance=0.5)

    near, far = answer.predictions
    assert near.z_um == pytest.approx(52, abs=0.5)
    assert (near.advice, far.advice, answer.next) == ("trust", "refocus", 1)
    assert answer.dof_um == pytest.approx(8.28, abs=0.01)


def test_channels_have_offsets(client: Client) -> None:
    client.map_add(0, 0, z_um=50, sigma_um=0.2)
    assert client.map_offset("DAPI", 1.2).offsets_um == {"DAPI": 1.2}

    predicted = client.map_predict([(0, 0)], channel="DAPI").predictions[0]

    assert predicted.z_um == pytest.approx(51.2, abs=0.01)
    assert client.map_get().positions[0].z_um == 50
    assert client.map_offset("DAPI", None).offsets_um == {}
    with pytest.raises(RequestError, match="'DAPI' has no offset"):
        client.map_add(0, 0, z_um=50, sigma_um=0.2, channel="DAPI")


def test_the_map_is_told_and_cleared(client: Client) -> None:
    client.map_add(0, 0, z_um=50, sigma_um=0.2)

    surface = client.map_get().surface
    assert surface is not None
    assert len(surface.z_um) == len(surface.y_um)
    assert client.map_clear().cleared == 1
    assert client.map_get().surface is None


@pytest.mark.anyio
async def test_the_map_answers_while_a_job_runs(daemon: Daemon) -> None:
    async with AsyncClient(daemon.endpoints.control, daemon.endpoints.events) as client:
        job = await client.refocus(strategy="wait", wait=False)
        await client.map_add(0, 0, z_um=50, sigma_um=0.2)

        predicted = await client.map_predict([(0, 0)])

        assert predicted.predictions[0].z_um == pytest.approx(50)
        assert (await client.job(job.job_id)).state == "running"
        await client.cancel(job.job_id)


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        ("map.add", {"x_um": 0}, "y_um"),
        ("map.add", {"x_um": 1e300, "y_um": 0}, "x_um"),
        ("map.add", {"x_um": 0, "y_um": 0, "z_um": 1, "sigma_um": 0}, "sigma_um"),
        ("map.add", {"x_um": 0, "y_um": 0, "z_um": 1}, "give z_um and sigma_um"),
        ("map.predict", {"positions": []}, "positions"),
        ("map.predict", {"positions": [[0, 0, 0]]}, "positions"),
        ("map.predict", {"positions": [["0", 0]]}, "positions"),
        ("map.predict", {"positions": [[0, 0]] * 1001}, "positions"),
        ("map.predict", {"positions": [[0, 0]], "tolerance": 0}, "tolerance"),
        ("map.offset", {"offset_um": 1}, "channel"),
        ("map.offset", {"channel": "", "offset_um": 1}, "channel"),
        ("map.clear", {"all": True}, "all"),
    ],
)
def test_bad_params_are_named_and_change_nothing(
    client: Client, method: str, params: dict[str, Any], says: str
) -> None:
    before = client.map_get()

    error = exchange(client.endpoint, [b"", call(method, **params)])["error"]
    assert (error["code"], says in error["message"]) == (RequestError.code, True)

    assert client.map_get() == before
