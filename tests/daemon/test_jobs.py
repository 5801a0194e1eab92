"""One job at a time, however it ends; a key starts one job only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog
from anyio import to_thread
from structlog.testing import capture_logs

from focusd.daemon.devices import Devices, DeviceThread
from focusd.daemon.events import EventBus
from focusd.daemon.jobs import KEY_LIFETIME_S, Jobs, Report
from focusd.errors import BusyError, CancelledJobError, NoSampleError, RequestError
from focusd.protocol.requests import RefocusParams
from focusd.protocol.results import MoveResult, RefocusResult
from tests.told import told

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def running_jobs() -> AsyncIterator[tuple[Jobs, EventBus]]:
    bus = EventBus()
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(bus, tasks)
        yield jobs, bus
        await jobs.shutdown()


MOVED = MoveResult(z_start_um=0.0, z_um=1.0)


async def quick(report: Report) -> MoveResult:
    report("focus.done", {"z_um": 1.0})
    return MOVED


async def endless(_report: Report) -> MoveResult:
    await anyio.sleep_forever()
    return MOVED


async def test_a_job_succeeds_and_its_events_carry_its_id() -> None:
    async with running_jobs() as (jobs, bus):
        job = jobs.start("refocus", quick, client="test")
        assert job.state == "queued"
        await job.wait()
        assert jobs.status(job.id).status().model_dump() == {
            "job_id": job.id,
            "kind": "refocus",
            "client": "test",
            "state": "succeeded",
            "result": {"z_start_um": 0.0, "z_um": 1.0},
            "error": None,
        }
        events = told(bus.since(0, 10))
    assert {event["job_id"] for event in events} == {job.id}
    assert [event["data"].get("state", event["topic"]) for event in events] == [
        "running",
        "focus.done",
        "succeeded",
    ]


async def test_only_one_runs_at_a_time() -> None:
    async with running_jobs() as (jobs, _):
        first = jobs.start("calibrate", endless)
        with pytest.raises(BusyError, match=first.id):
            jobs.start("refocus", quick)
        jobs.cancel(first.id)
        await first.wait()
        await jobs.start("refocus", quick).wait()


async def test_failures_are_kept_and_do_not_spread() -> None:
    async def empty(_report: Report) -> MoveResult:
        raise NoSampleError("nothing here", structure=0.1)

    async def broken(_report: Report) -> MoveResult:
        raise KeyError("z")

    async with running_jobs() as (jobs, _):
        failed = jobs.start("refocus", empty)
        await failed.wait()
        crashed = jobs.start("refocus", broken)
        await crashed.wait()
        await jobs.start("refocus", quick).wait()
    assert failed.error is not None
    assert failed.error.model_dump() == {
        "code": -32013,
        "message": "nothing here",
        "data": {
            "class": "NoSampleError",
            "structure": 0.1,
            "retryable": False,
            "outcome": "no_sample",
            "job_id": failed.id,
        },
    }
    assert crashed.error is not None
    assert crashed.error.code == -32603
    assert "KeyError" in crashed.error.message


async def test_cancelling_lets_the_work_end_cleanly_and_say_where() -> None:
    async def returns_home(_report: Report) -> MoveResult:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            raise CancelledJobError("cancelled; the stage is back at 3 µm", z_um=3.0) from None
        return MOVED

    async with running_jobs() as (jobs, bus):
        job = jobs.start("refocus", returns_home)
        await anyio.wait_all_tasks_blocked()
        assert jobs.cancel(job.id) is job
        await job.wait()
        await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left behind
        assert told(bus.since(0, 10))[-1]["data"]["state"] == job.state == "cancelled"
        assert job.error is not None
        assert job.error.data.model_dump()["z_um"] == 3.0
        assert jobs.cancel(job.id).state == "cancelled"


async def test_a_job_cancelled_before_it_starts_does_nothing() -> None:
    async with running_jobs() as (jobs, bus):
        job = jobs.start("refocus", quick)
        jobs.cancel(job.id)
        await job.wait()
        assert job.state == "cancelled"
        assert "focus.done" not in [event["topic"] for event in told(bus.since(0, 10))]


async def test_shutdown_ends_the_running_job_and_refuses_others() -> None:
    async with running_jobs() as (jobs, _):
        job = jobs.start("refocus", endless)
        await anyio.wait_all_tasks_blocked()
        await jobs.shutdown()
        assert job.state == "cancelled"
        with pytest.raises(BusyError, match="stopping"):
            jobs.start("refocus", quick)


async def test_the_end_of_the_daemon_ends_the_job() -> None:
    async with anyio.create_task_group() as tasks:
        job = Jobs(EventBus(), tasks).start("refocus", endless)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert job.state == "cancelled"
    await job.wait()


async def test_a_key_gives_the_same_job_for_ten_minutes() -> None:
    now_s = 0.0
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks, clock=lambda: now_s)
        first = jobs.start("refocus", quick, request_key="k", params=RefocusParams())
        await first.wait()
        now_s = KEY_LIFETIME_S
        assert jobs.start("refocus", quick, request_key="k", params=RefocusParams()) is first
        for kind, params in (("refocus", RefocusParams(roi=(0, 0, 1, 1))), ("calibrate", RefocusParams())):
            with pytest.raises(RequestError, match="request_key"):
                jobs.start(kind, quick, request_key="k", params=params)
        now_s = KEY_LIFETIME_S + 1
        assert jobs.start("refocus", quick, request_key="k") is not first


async def test_finished_jobs_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusd.daemon.jobs.REMEMBERED", 2)
    async with running_jobs() as (jobs, _):
        ids = []
        for _number in range(3):
            job = jobs.start("refocus", quick)
            await job.wait()
            ids.append(job.id)
        with pytest.raises(RequestError, match="no job"):
            jobs.status(ids[0])
        assert jobs.status(ids[1]).state == "succeeded"


async def test_every_log_line_of_a_job_says_whose_it_is_in_every_thread() -> None:
    seen: list[dict[str, Any]] = []

    def note() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    async def work(_report: Report) -> MoveResult:
        device = DeviceThread("camera", Devices(10.0))
        note()
        await to_thread.run_sync(note)
        await device.call(note)
        device.close()
        return MOVED

    async with anyio.create_task_group() as tasks:
        jobs = Jobs(EventBus(), tasks)
        job = jobs.start("refocus", work, "ada", "key-of-the-request")
        await job.wait()
        note()
    assert seen[:3] == [{"job_id": job.id, "request_key": "key-of-the-request", "client": "ada"}] * 3
    assert seen[3] == {}


async def focused(_report: Report) -> RefocusResult:
    return RefocusResult.model_construct(
        outcome="focused", focus_um=12.51472259, sigma_um=0.1435, exposures=3, probes=[]
    )


async def empty(_report: Report) -> RefocusResult:
    raise NoSampleError("the field is empty", exposures=2, stage_z_um=5.00004)


@pytest.mark.parametrize(
    ("work", "ended"),
    [
        (
            focused,
            {"state": "succeeded", "outcome": "focused", "focus_um": 12.51, "sigma_um": 0.14, "exposures": 3},
        ),
        (
            empty,
            {
                "state": "failed",
                "outcome": "no_sample",
                "message": "the field is empty",
                "stage_z_um": 5.0,
                "exposures": 2,
            },
        ),
    ],
)
async def test_the_log_tells_of_a_job_as_it_begins_and_how_it_ended(work: Any, ended: dict[str, Any]) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        async with running_jobs() as (jobs, _):
            job = jobs.start("refocus", work, client="ada")
            await job.wait()
    whose = {"job_id": job.id, "client": "ada", "kind": "refocus", "log_level": "info"}
    assert logs[0] == whose | {"event": "a job begins"}
    assert logs[1].pop("seconds") >= 0
    assert logs[1:] == [whose | ended | {"event": "a job has ended"}]


async def test_the_log_tells_of_a_job_that_was_cancelled_and_is_silent_on_a_hold_s_checks() -> None:
    with capture_logs() as logs:
        async with running_jobs() as (jobs, _):
            check = jobs.start("hold.check", quick, background=True)
            await check.wait()
            jobs.start("calibrate", endless)
    told = [
        (entry["event"], entry["kind"], entry.get("state")) for entry in logs if entry["log_level"] == "info"
    ]
    assert told == [("a job begins", "calibrate", None), ("a job has ended", "calibrate", "cancelled")]
    assert {entry["kind"] for entry in logs if entry["log_level"] == "debug"} == {"hold.check"}
