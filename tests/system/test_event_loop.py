"""No step of the daemon keeps its event loop from the others for long."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from bench.serving import serving
from focusd.client import Client
from focusd.config import RigConfig
from focusd.daemon.opening import opened_rig
from focusd.scoring.choice import open_scorer
from tests.system.daemon import rig

pytestmark = pytest.mark.anyio

LONGEST_S = 0.05


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def timed_callbacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """The most CPU time of the loop's own thread that each callback took: what else the machine does is not ours."""
    longest: dict[str, float] = {}
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began_s = time.thread_time()
        run(handle)
        took_s = time.thread_time() - began_s  # without the time that the name of a handle takes
        name = repr(handle)[:300]
        longest[name] = max(longest.get(name, 0.0), took_s)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        yield longest


def of_ours(longest: dict[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in longest.items() if seconds > LONGEST_S}


@pytest.fixture
def as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)
    gc.unfreeze()


@pytest.mark.usefixtures("as_before")
async def test_no_step_of_calibrating_and_refocusing_takes_50_ms_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anywhere = {"control": "tcp://127.0.0.1:*", "events": "tcp://127.0.0.1:*"}
    microscope = {"width": 1024, "height": 1024}
    values = rig(
        tmp_path, server=anywhere, microscope=microscope, calibration={"range_um": 60.0, "step_um": 6.0}
    )
    config = RigConfig.model_validate(values)
    async with opened_rig(config) as (ours, _), serving(config, ours, open_scorer(config)) as (endpoints, _):
        with Client(endpoints.control, endpoints.events) as client, timed_callbacks(monkeypatch) as longest:
            await to_thread.run_sync(client.calibrate)
            await to_thread.run_sync(client.move, 20.0)
            result = await to_thread.run_sync(client.refocus)
            await to_thread.run_sync(client.state)
    assert result.outcome == "focused"
    assert len(longest) > 10
    assert of_ours(longest) == {}


async def test_a_step_that_takes_longer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> None:
        until_s = time.thread_time() + 1.2 * LONGEST_S
        while time.thread_time() < until_s:
            pass

    with timed_callbacks(monkeypatch) as longest:
        asyncio.get_running_loop().call_soon(compute)
        await anyio.sleep(0.01)
    assert len(of_ours(longest)) == 1
