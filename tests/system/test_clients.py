"""Several clients at once: one job runs, the others are told, a monitor sees all of it, and death is survived."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
import zmq

from focusd.errors import BusyError, CancelledJobError
from focusd.protocol.events import Event, JobEvent, ProgressEvent, read_event
from focusd.protocol.states import RunningJob
from tests.system.conftest import Bench

SILENCE_S = 30.0
LONG: dict[str, Any] = {"range_um": 100.0, "step_um": 0.5}
"""A calibration of 401 planes: it runs until it is cancelled."""
VICTIM = """
import sys
from focusd.client import Client
Client(*sys.argv[1:], name="victim").calibrate(planes_um=[z / 2 for z in range(-160, -40)])
"""
"""A client that waits for a stack of 120 planes, all on one side of the focus."""


def until(events: Iterable[Event], ends: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first for which `ends` is true, all of them."""
    seen = []
    for event in events:
        seen.append(event)
        if ends(event):
            return seen
    raise AssertionError("the stream has ended")


def is_end(event: Event) -> bool:
    return isinstance(event, JobEvent) and event.data.state not in ("queued", "running")


def is_third_exposure(event: Event) -> bool:
    return isinstance(event, ProgressEvent) and event.data.exposure == 3


def topics_of(events: list[Event], job_id: str) -> list[str]:
    """What happened to a job, each topic once where it repeats."""
    topics = [event.topic for event in events if event.job_id == job_id]
    return [topic for topic, _ in groupby(topics)]


def test_of_two_clients_one_runs_and_the_other_is_told_busy(bench: Bench) -> None:
    first = bench.daemon.client
    with bench.daemon.connect("second") as second, second.events(silence_s=SILENCE_S) as monitor:
        job_id = first.calibrate(**LONG, wait=False).job_id
        with pytest.raises(BusyError, match=f"a calibrate job of test is running \\({job_id}\\)") as busy:
            second.refocus()
        assert second.state().job == RunningJob(job_id=job_id, kind="calibrate", client="test")
        seen = until(monitor, is_third_exposure)
        first.cancel(job_id)
        seen += until(monitor, is_end)
        assert second.move(1.0).z_um == 1.0, "once it has ended, the other may run"

    assert busy.value.code == -32050
    assert busy.value.data["retryable"] is True
    assert topics_of(seen, job_id) == ["job", "focus.progress", "focus.failed", "job"]
    changes = [event.data for event in seen if isinstance(event, JobEvent)]
    assert not [change for change in changes if change.client == "second"], "the refused one left no trace"


def test_a_monitor_sees_every_event_in_order(bench: Bench) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as raw:
        raw.linger = 0
        raw.connect(bench.daemon.events)
        raw.subscribe(b"focusd/1/")
        frames = received(raw)
        while next(frames)[1]["topic"] != "state":
            pass
        job_id = bench.daemon.client.refocus(wait=False).job_id
        seen: list[tuple[bytes, dict[str, Any]]] = []
        while not seen or not is_end(read_event(seen[-1][1])) or seen[-1][1]["job_id"] != job_id:
            seen.append(next(frames))  # the end of the job before may still be on its way

    events = [event for _, event in seen]
    first = next(n for n, event in enumerate(events) if event["job_id"] == job_id)
    numbers = [event["seq"] for event in events]
    assert events[first]["data"]["state"] == "running"
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert topics_of(list(map(read_event, events)), job_id)[:2] == ["job", "focus.progress"]
    assert topics_of(list(map(read_event, events)), job_id)[-1] == "job"
    for topic, event in seen:
        assert topic.decode() == f"focusd/1/{event['topic']}"
        assert set(event) == {"session", "seq", "time", "monotonic_s", "job_id", "topic", "data"}
        assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
    assert len({event["session"] for event in events}) == 1


def received(socket: zmq.Socket[bytes]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Topic and event of each message."""
    while socket.poll(round(SILENCE_S * 1000)):
        topic, body = socket.recv_multipart()
        yield topic, json.loads(body)


def test_cancelling_ends_a_calibration_with_the_stage_at_its_start(bench: Bench) -> None:
    bench.daemon.client.move(7.0)
    with (
        ThreadPoolExecutor() as pool,
        bench.daemon.connect("waiting") as waiting,
        bench.daemon.client.events(silence_s=SILENCE_S) as monitor,
    ):
        answer = pool.submit(waiting.calibrate, **LONG)
        away = until(monitor, is_third_exposure)[-1]
        assert away.job_id is not None
        bench.daemon.client.cancel(away.job_id)
        error = answer.exception(SILENCE_S)

    assert isinstance(error, CancelledJobError)
    assert (error.code, error.data["retryable"], error.data["job_id"]) == (-32014, True, away.job_id)
    assert away.data.z_um < -90
    assert bench.daemon.client.state().z_um == 7.0
    assert bench.daemon.client.job(away.job_id).state == "cancelled"


def test_a_client_killed_in_mid_request_leaves_the_daemon_serving_and_the_stage_at_its_start(
    bench: Bench,
) -> None:
    command = [sys.executable, "-c", VICTIM, bench.daemon.control, bench.daemon.events]
    with bench.daemon.client.events("focus.progress", "job", silence_s=SILENCE_S) as events:
        with subprocess.Popen(command) as victim:
            job_id = until(events, is_third_exposure)[-1].job_id
            victim.kill()
            assert victim.wait() == -signal.SIGKILL, "it was still waiting for its answer"
        assert bench.daemon.answers()
        end = until(events, is_end)[-1]

    assert end.job_id == job_id
    assert job_id is not None
    assert bench.daemon.client.job(job_id).client == "victim"
    state = bench.daemon.client.state()
    assert (state.job, state.z_um) == (None, bench.home_um)
