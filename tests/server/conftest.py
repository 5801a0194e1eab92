"""A daemon in the test's own event loop, and one in a thread for tests that block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from focusd.server.sockets import LOOP
from tests.server.daemon import Daemon, running_daemon


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", LOOP


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with running_daemon() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def threaded_daemon() -> Iterator[Daemon]:
    with (
        start_blocking_portal("asyncio", LOOP) as portal,
        portal.wrap_async_context_manager(running_daemon()) as daemon,
    ):
        yield daemon
