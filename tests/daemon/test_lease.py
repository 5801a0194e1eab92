"""The lease: exclusive, limited in time, and with background jobs out of its way before it is given."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import pytest

from focusd.daemon.events import EventBus
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.lease import Lease
from focusd.errors import BusyError, RequestError
from focusd.protocol.results import MoveResult

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


MOVED = MoveResult(z_start_um=0.0, z_um=1.0)


async def nothing(_report: Report) -> MoveResult:
    return MOVED


async def for_ever(_report: Report) -> MoveResult:
    await anyio.sleep_forever()
    return MOVED


def test_it_ends_by_itself_and_only_its_holder_prolongs_it() -> None:
    clock = Clock()
    lease = Lease(clock)
    mine = lease.acquire("ann", 60.0).lease_id
    clock.now_s = 30.0
    with pytest.raises(BusyError, match="leased by ann until"):
        lease.acquire("bob", 60.0)
    with pytest.raises(BusyError):
        lease.acquire("bob", 60.0, "a guess")
    lease.acquire("ann", 60.0, mine)
    clock.now_s = 89.9
    with pytest.raises(BusyError):
        lease.check(None)
    clock.now_s = 90.0
    lease.check(None)
    with pytest.raises(RequestError, match="has ended"):
        lease.acquire("ann", 60.0, mine)
    assert lease.acquire("bob", 1.0).lease_id != mine


def test_only_its_id_releases_it() -> None:
    lease = Lease()
    mine = lease.acquire("ann", 60.0).lease_id
    assert not lease.release("a guess")
    assert lease.holder is not None
    assert mine not in str(lease.holder), "the id stays its holder's"
    assert lease.release(mine)
    assert not lease.release(mine)
    assert lease.holder is None


async def test_under_a_lease_nothing_starts_but_its_holders_jobs() -> None:
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks, clock)
        granted = await jobs.acquire_lease("ann", 60.0, None)
        for background in (False, True):
            with pytest.raises(BusyError, match="leased by ann"):
                jobs.start("refocus", nothing, "bob", background=background)
        job = jobs.start("refocus", nothing, "ann", lease_id=granted.lease_id)
        await job.wait()
        assert job.state == "succeeded"
        clock.now_s = 60.0
        assert jobs.start("refocus", nothing, "bob").client == "bob"


async def test_a_job_of_a_client_keeps_the_lease_away() -> None:
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks)
        job = jobs.start("calibrate", for_ever, "bob")
        with pytest.raises(BusyError, match="a calibrate job of bob"):
            await jobs.acquire_lease("ann", 60.0, None)
        job.scope.cancel()


async def test_a_lease_is_given_when_the_background_job_has_ended_and_no_other_begins() -> None:
    at_rest = anyio.Event()

    async def check(_report: Report) -> MoveResult:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    with pytest.raises(BusyError):
                        jobs.start("hold-check", nothing, background=True)
                    await anyio.lowlevel.checkpoint()
                at_rest.set()
        return MOVED

    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks)
        job = jobs.start("hold-check", check, background=True)
        await anyio.wait_all_tasks_blocked()
        await jobs.acquire_lease("ann", 60.0, None)
        assert at_rest.is_set()
        assert job.state == "cancelled"


async def test_a_background_job_gives_way_and_the_other_begins_when_it_has_ended() -> None:
    order: list[str] = []

    async def check(_report: Report) -> MoveResult:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                order.append("stage at rest")
        return MOVED

    async def refocus(_report: Report) -> MoveResult:
        order.append("refocus")
        return MOVED

    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks)
        check_job = jobs.start("hold-check", check, background=True)
        await anyio.wait_all_tasks_blocked()
        job = jobs.start("refocus", refocus, "ann")
        with pytest.raises(BusyError, match="a refocus job of ann"):
            jobs.start("move", nothing, "bob")
        await job.wait()
    assert order == ["stage at rest", "refocus"]
    assert (check_job.state, job.state) == ("cancelled", "succeeded")


async def test_a_job_cancelled_while_it_waits_for_the_background_one_lets_nothing_overtake() -> None:
    released = anyio.Event()

    async def check(_report: Report) -> MoveResult:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await released.wait()
        return MOVED

    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks)
        jobs.start("hold-check", check, background=True)
        await anyio.wait_all_tasks_blocked()
        job = jobs.start("refocus", nothing, "ann")
        jobs.cancel(job.id)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BusyError):
            jobs.start("move", nothing, "bob")
        released.set()
        await job.wait()
        assert job.state == "cancelled"
