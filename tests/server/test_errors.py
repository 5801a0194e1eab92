"""An error keeps its class, code, outcome and data from where it is raised to whoever catches it, on every way."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest
from anyio import to_thread

import focusd
from focusd.client import AsyncClient, Client
from focusd.errors import FocusdError
from focusd.protocol.events import JobEvent
from tests.server.daemon import Daemon

pytestmark = pytest.mark.anyio
ELSEWHERE = ("focusd.__main__", "focusd._models", "focusd.training", "focusd.scoring.tensorrt")


def kinds(kind: type[FocusdError] = FocusdError) -> Iterator[type[FocusdError]]:
    """All errors of focusd, however far they derive."""
    yield kind
    for derived in kind.__subclasses__():
        yield from kinds(derived)


for module in pkgutil.walk_packages(focusd.__path__, "focusd."):
    if not module.name.startswith(ELSEWHERE) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
KINDS = sorted(
    {kind for kind in kinds() if kind.__module__.startswith("focusd.")}, key=lambda kind: kind.__name__
)


def raised(kind: type[FocusdError]) -> FocusdError:
    return kind("what happened and what to do", z_um=3.0, probes=[{"b": 0.4}])


def assert_same(caught: FocusdError, kind: type[FocusdError]) -> None:
    assert type(caught) is kind
    assert (caught.code, caught.outcome, caught.retryable) == (kind.code, kind.outcome, kind.retryable)
    assert caught.message == "what happened and what to do"
    assert caught.data["z_um"] == 3.0
    assert caught.data["probes"] == [{"b": 0.4}]
    assert caught.data["outcome"] == kind.outcome


def test_there_are_all_of_them_and_no_two_have_one_name() -> None:
    names = Counter(kind.__name__ for kind in KINDS)
    assert {"AmbiguousError", "OutOfRangeError", "KeyFileError", "RigTakenError", "ParseError"} < set(names)
    assert max(names.values()) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_error_is_the_same_on_every_way(daemon: Daemon, kind: type[FocusdError]) -> None:
    daemon.operations.fails = raised(kind)
    endpoints = (daemon.endpoints.control, daemon.endpoints.events)
    async with AsyncClient(*endpoints) as client, client.events(JobEvent) as events:
        with pytest.raises(FocusdError) as waited:
            await client.refocus()
        assert_same(waited.value, kind)

        job = await client.job(waited.value.data["job_id"])
        assert job.error is not None
        assert job.error.code == kind.code
        assert job.error.data.error_class == kind.__name__
        assert job.error.data.outcome == kind.outcome
        event = await anext(events)
        while event.data.state == "running":
            event = await anext(events)
        assert event.data.error == job.error

        with pytest.raises(FocusdError) as at_once:
            await client.score([memoryview(bytes(16)).cast("B", (4, 4))])
        assert_same(at_once.value, kind)
    with Client(*endpoints) as blocking, pytest.raises(FocusdError) as blocked:
        await to_thread.run_sync(blocking.refocus)
    assert_same(blocked.value, kind)
