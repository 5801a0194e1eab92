"""A held sample that drifts, real daemons: it stays in focus, a lease keeps all still, a kill loses no record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from focusd.errors import BusyError
from focusd.protocol.events import DriftEvent
from focusd.protocol.states import Disengaged, Holding
from tests.documents import DOCS, blocks
from tests.system.daemon import Daemon, rig, running

SILENCE_S = 30.0
DRIFT_UM_PER_MIN = 60.0
"""A day's drift in minutes; the hold is told, and allowed to look as often as that takes."""
HOLD = {"min_interval_s": 0.5, "max_interval_s": 5.0, "drift_um_per_min": DRIFT_UM_PER_MIN}
CTL = [sys.executable, "-m", "focusd.ctl"]


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A calibrated daemon whose sample drifts upwards from the start."""
    folder = tmp_path_factory.mktemp("hold")
    with running(folder / "slide", rig(folder / "state")) as slide:
        slide.client.calibrate()
    sample: dict[str, Any] = {"sample": "cells", "drift_um_per_min": DRIFT_UM_PER_MIN, "focus_z_um": -40.0}
    values = rig(folder / "state", microscope=sample, hold=HOLD, stage={"min_um": -1000.0, "max_um": 1000.0})
    with running(folder / "sample", values) as daemon:
        yield daemon


def estimates(daemon: Daemon, source: str, count: int) -> list[DriftEvent]:
    """The next estimates of a locked hold from one source."""
    found: list[DriftEvent] = []
    with daemon.client.events(DriftEvent, silence_s=SILENCE_S) as events:
        for event in events:
            if event.data.source == source and event.data.state == "locked":
                found.append(event)
                if len(found) == count:
                    return found
    raise AssertionError("the stream has ended")


def test_a_drifting_sample_is_held_in_focus_between_checks_too(drifting: Daemon) -> None:
    drifting.client.refocus()
    drifting.client.hold(position="A1", tags={"celsius": 36.8})
    checks = estimates(drifting, "check", 8)
    moves = estimates(drifting, "follow", 3)

    dof_um = checks[-1].data.dof_um
    minutes = [event.monotonic_s / 60 for event in checks]
    slope, start_um = np.polyfit(minutes, [event.data.focus_um or np.nan for event in checks], 1)
    assert slope == pytest.approx(DRIFT_UM_PER_MIN, rel=0.35), "it finds the drift that there is"
    residuals_um = [(e.data.z_um or np.nan) - (start_um + slope * e.monotonic_s / 60) for e in moves]
    assert np.abs(residuals_um).max() < 2 * dof_um
    assert checks[-1].data.tags == {"celsius": 36.8}
    assert checks[-1].data.exposures > checks[0].data.exposures


def test_while_a_lease_is_held_nothing_moves_and_then_it_goes_on(drifting: Daemon) -> None:
    drifting.client.hold(position="A1", tags={"celsius": 36.8})
    estimates(drifting, "check", 1)
    with drifting.connect("acquisition") as acquisition:
        lease_id = acquisition.acquire_lease(20.0).lease_id
        before = acquisition.state()
        with pytest.raises(BusyError, match="leased by acquisition"):
            drifting.client.refocus()
        with acquisition.events("heartbeat", silence_s=SILENCE_S) as beats:
            for _ in range(4):
                next(beats)
        after = acquisition.state()
        assert before.lease is not None
        assert before.lease.client == "acquisition"
        assert isinstance(before.hold, Holding)
        assert isinstance(after.hold, Holding)
        assert (after.z_um, after.hold.exposures) == (before.z_um, before.hold.exposures)
        assert after.job is None
        assert acquisition.release_lease(lease_id).released
    assert (estimates(drifting, "check", 2)[-1].data.z_um or 0.0) > (after.z_um or 0.0) + 1


def test_a_client_that_dies_with_the_lease_keeps_nobody_out_for_long(drifting: Daemon) -> None:
    code = (
        "import sys; from focusd.client import Client; "
        "Client(sys.argv[1]).acquire_lease(2.0); sys.stdin.read()"
    )
    with (
        drifting.client.events("state", silence_s=SILENCE_S) as states,
        subprocess.Popen([sys.executable, "-c", code, drifting.control], stdin=subprocess.PIPE) as victim,
    ):
        assert next(event for event in states if event.data.lease)
        victim.kill()
        assert next(event for event in states if not event.data.lease)
    drifting.client.move(drifting.client.state().z_um or 0.0)


def test_frames_of_the_acquisition_are_scored_and_learnt_from(drifting: Daemon) -> None:
    drifting.client.hold(position="A1", tags={"celsius": 36.8})
    estimates(drifting, "check", 2)
    coarse = np.random.default_rng(1).integers(200, 60_000, (64, 64)).astype(np.uint16)
    textured = np.kron(
        coarse, np.ones((4, 4), np.uint16)
    )  # of single pixels it would be noise, which is no sharpness
    blank = np.full((256, 256), 300, np.uint16)
    with drifting.connect("acquisition") as acquisition:
        scored = [acquisition.score([textured, blank], track=True).scores for _ in range(20)]
    assert {score[1].outcome for score in scored} == {"no_sample"}
    assert not any(score[1].tracked for score in scored)
    assert all(score[0].sharpness > 10 * score[1].sharpness for score in scored)


def test_release_ends_it_and_the_log_of_a_monitor_gives_the_drift(drifting: Daemon, tmp_path: Path) -> None:
    drifting.client.hold(position="A1", tags={"celsius": 36.8})
    log, picture = tmp_path / "events.jsonl", tmp_path / "drift.svg"
    where = ["--endpoint", drifting.control, "--events", drifting.events]
    with subprocess.Popen(
        [*CTL, "monitor", "--log", str(log), *where], stdout=subprocess.PIPE, text=True
    ) as monitor:
        assert monitor.stdout
        drifts = 0
        while drifts < 6:
            drifts += " drift " in monitor.stdout.readline()
        monitor.send_signal(signal.SIGINT)
        monitor.wait(30)
    released = drifting.client.release()
    z_um = drifting.client.state().z_um
    summed = subprocess.run(
        [*CTL, "drift", str(log), "--out", str(picture), "--json"], capture_output=True, text=True, check=True
    )
    figures = json.loads(summed.stdout)
    assert figures["estimates"] >= 6
    assert figures["rate_um_per_min"] > 0
    assert released.state == "disengaged"
    assert "<svg" in picture.read_text(encoding="utf-8")
    assert drifting.client.state().z_um == z_um


def test_the_timelapse_of_the_documents_works_as_written(drifting: Daemon, tmp_path: Path) -> None:
    drifting.client.release()
    (code,) = (block for block in blocks(DOCS / "howto" / "timelapse.md", "python") if "focus.hold" in block)
    tifffile.imwrite(tmp_path / "frame.tif", np.full((256, 256), 300, np.uint16))
    there = code.replace('Client(name="', f'Client("{drifting.control}", name="')
    ran = subprocess.run(
        [sys.executable, "-c", there], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "state='disengaged'" in ran.stdout


def test_a_monitor_catches_up_over_a_kill_and_a_restart(tmp_path: Path) -> None:
    values = rig(tmp_path / "state")
    with running(tmp_path / "first", values) as first:
        first.client.move(5.0)
        session = first.client.hello().session
        seen = first.client.since(0, session=session).events
        acknowledged = [event for event in seen if event.topic == "job"]
        on_record = first.client.since(0, session="none of these").events
        first.process.kill()
        first.process.wait()
    assert [event.data.state for event in acknowledged] == ["running", "succeeded"]
    with running(tmp_path / "second", values) as second:
        second.client.move(6.0)
        caught = second.client.since(acknowledged[0].seq, session=session).events
        everything = second.client.since(0, session="none of these").events
        now = second.client.hello().session
    jobs = [(event.session, event.data.state) for event in caught if event.topic == "job"]
    assert jobs == [(session, "succeeded"), (now, "running"), (now, "succeeded")]
    assert everything[: len(on_record)] == on_record, "what was answered survives the kill"


def test_a_corrupt_record_is_set_aside_and_the_daemon_starts(tmp_path: Path) -> None:
    record = tmp_path / "state" / "bench" / "events.sqlite"
    record.parent.mkdir(parents=True)
    record.write_bytes(b"\xa5" * 100_000)
    with running(tmp_path, rig(tmp_path / "state")) as daemon:
        daemon.client.move(5.0)
        events = daemon.client.since(0, session="none of these").events
        log = daemon.log.read_text(encoding="utf-8")
    assert "a corrupt record of events was set aside" in log
    assert any(event.topic == "job" for event in events)
    assert len(list(record.parent.glob("events.sqlite.corrupt-*"))) == 1


def test_a_restart_tells_of_the_hold_that_it_ended_and_moves_nothing(tmp_path: Path) -> None:
    values = rig(tmp_path / "state")
    with running(tmp_path / "first", values) as first:
        first.client.calibrate()
        with first.client.events("drift") as drift:
            first.client.hold(position="A1")
            next(drift)
        first.process.kill()
        first.process.wait()
    for folder in ("second", "third"):
        with running(tmp_path / folder, values) as later:
            state = later.client.state()
            assert state.hold.state == "disengaged"
            assert "a hold of test at A1 ended with the last run of focusd" in (state.hold.reason or "")
            events = later.client.since(0).events
            assert not [event for event in events if event.topic in ("job", "drift")]
            assert later.end() == 0
    with running(tmp_path / "fourth", values) as last:
        with last.client.events("state") as states:
            last.client.release()
            while next(states).data.hold != Disengaged(state="disengaged"):
                pass
        assert last.end() == 0
    with running(tmp_path / "fifth", values) as daemon:
        assert daemon.client.state().hold == Disengaged(state="disengaged")
