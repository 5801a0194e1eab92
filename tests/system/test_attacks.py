"""Whatever hostile clients do, the daemon answers the others, keeps its memory, and has it back when they leave."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.attacks import ATTACKS
from tests.system.daemon import ALONE, Daemon, command, rig, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads memory from /proc")
SECONDS = 2.0
MOST_MB = 1000
BACK_MB = 100
BACK_S = 30.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("attacked")
    with running(folder, rig(folder / "state")) as daemon:
        yield daemon


def memory_mb(daemon: Daemon, what: str) -> float:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


@contextmanager
def attacked(daemon: Daemon, name: str, seconds: float = SECONDS) -> Iterator[subprocess.Popen[bytes]]:
    attack = [sys.executable, "-m", "tests.system.attacks", name, daemon.control, daemon.events, str(seconds)]
    with subprocess.Popen(attack, env=ALONE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "name",
    [
        "many_parts",
        "tiny_parts",
        "many_senders",
        "big_scores",
        "unread_replies",
        "many_subscriptions",
        "same_subscriptions",
        "long_prefixes",
        "idle_connections",
        "map_flood",
        "long_requests",
        "wrong_values",
        "parts_of_strangers",
        "histories",
        "many_clients",
    ],
)
def test_an_attack_costs_nobody_else_an_answer_and_little_memory(daemon: Daemon, name: str) -> None:
    assert name in ATTACKS
    before_mb = memory_mb(daemon, "VmRSS")
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")  # the peak begins anew

    with attacked(daemon, name) as attack:
        while attack.poll() is None:
            assert daemon.client.state().fault is None
            time.sleep(0.02)
        assert attack.returncode == 0

    assert daemon.answers()
    assert memory_mb(daemon, "VmHWM") < MOST_MB
    until_s = time.perf_counter() + BACK_S
    while memory_mb(daemon, "VmRSS") > before_mb + BACK_MB and time.perf_counter() < until_s:
        time.sleep(0.2)
    assert memory_mb(daemon, "VmRSS") <= before_mb + BACK_MB


def few_descriptors(config: Path) -> list[str]:
    """A daemon that may have 1024 and no more, as systemd gives."""
    return ["bash", "-c", 'ulimit -n 1024 && exec "$@"', "bash", *command(config)]


def test_idle_connections_leave_descriptors_for_clients_and_for_a_calibration(tmp_path: Path) -> None:
    short = {"range_um": 60.0, "step_um": 6.0}
    with running(tmp_path, rig(tmp_path / "state", calibration=short), few_descriptors) as daemon:
        with attacked(daemon, "idle_connections", 12.0) as attack:
            time.sleep(4.0)  # more connections than there are descriptors
            assert attack.poll() is None
            calibration = daemon.client.calibrate()
        assert Path(calibration.path).is_file()
        assert daemon.client.state().calibration.usable
