"""Each fault once, a short fuzz, a few kills, the guard: `python -m bench faults` does the same at length."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.faults.faults import FAULTS, Fault
from bench.faults.fuzz import CORPUS, fuzz, mutated
from bench.faults.guard_machine import run_guard
from bench.faults.kills import run_kills
from bench.faults.run import _calibrated, _once
from bench.faults.service import config_of, running
from bench.faults.status import run_status
from focusd.microscope.guard import StageGuard
from focusd.protocol.methods import METHODS
from focusd.scoring.scorer import Scorer

FAR_S = 150.0


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scorer]:
    folder = tmp_path_factory.mktemp("matrix")
    return folder, _calibrated(folder / "calibrated")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_noticed_answered_once_and_survived(matrix: tuple[Path, Scorer], fault: Fault) -> None:
    folder, scorer = matrix
    seen = _once(fault, scorer, folder, Random(fault.name))
    assert seen.as_promised(fault), seen


@pytest.mark.parametrize("name", ["camera hangs", "stage hangs in a move", "stage hangs when read"])
def test_status_answers_while_the_hardware_hangs(
    matrix: tuple[Path, Scorer], tmp_path: Path, name: str
) -> None:
    """The deadline of the call is far, so that what is answered meanwhile has not waited for its end."""
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    shutil.copytree(matrix[0] / "calibrated", tmp_path / "state")
    config = config_of(tmp_path / "state", stage={"timeout_s": FAR_S})
    with running(config, matrix[1]) as service, service.connect() as client, fault.done(service, Random(1)):
        job_id = client.refocus(wait=False).job_id
        while service.microscope.fired_s is None:
            time.sleep(0.001)
        states = [client.state() for _ in range(20)]
    assert {(state.job and state.job.job_id, state.fault) for state in states} == {(job_id, None)}


def test_status_answers_in_another_process_too(tmp_path: Path) -> None:
    assert run_status(tmp_path, 200)["hung"], "after the last answer the call still hangs"


def test_a_promise_that_is_broken_is_seen(matrix: tuple[Path, Scorer]) -> None:
    folder, scorer = matrix
    raises, hangs = (next(f for f in FAULTS if f.name == name) for name in ("camera raises", "camera hangs"))
    wrong = replace(hangs, done=raises.done)
    seen = _once(wrong, scorer, folder, Random(1))
    assert (seen.outcome, seen.safe) == ("hardware_error", False), "the hardware is not left alone"
    assert not seen.as_promised(wrong)


def test_a_short_fuzz(tmp_path: Path, matrix: tuple[Path, Scorer]) -> None:
    config = config_of(tmp_path)
    with running(config, matrix[1]) as service, service.connect() as client:
        seen = fuzz(config.server.control, 5000, seed=2)
        assert client.ping()
    assert 4000 < seen["answers"] <= 5000


def test_the_corpus_has_a_message_of_each_method_that_may_be_fuzzed() -> None:
    assert {message["method"] for message in CORPUS} == set(METHODS) - {"rpc.discover", "system.reconnect"}
    assert mutated(Random(1)) == mutated(Random(1))


def test_daemons_killed_at_random_moments(tmp_path: Path) -> None:
    seen = run_kills(tmp_path, 3, seed=3)
    assert seen["wrong"] == []
    assert seen["serves_after"]


def test_the_guard_never_commands_what_is_outside() -> None:
    seen = run_guard(4000, same=True)
    assert seen["commanded"] > 200


def test_a_guard_that_forgets_the_backlash_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageGuard, "_way", lambda _self, from_um, to_um: (from_um, to_um))
    with pytest.raises(AssertionError, match="it came from away from the sample"):
        run_guard(100_000, shortest=False)


def test_a_guard_with_a_hole_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageGuard, "_require_reachable", lambda *_: None)
    monkeypatch.setattr(StageGuard, "_clip", lambda _self, z_um: z_um)
    with pytest.raises((AssertionError, ExceptionGroup, ValueError)):
        run_guard(2000)
