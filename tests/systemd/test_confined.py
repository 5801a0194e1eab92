"""The whole daemon, its CPU scorer at work, under what of the unit's restrictions this machine can apply."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.daemon import command, rig, running
from tests.systemd.unit import confined, why_not_confined

pytestmark = pytest.mark.skipif(
    bool(why_not_confined()), reason=f"cannot be confined here: {why_not_confined()}"
)


def test_a_confined_daemon_calibrates_and_refocuses(tmp_path: Path) -> None:
    values = rig(tmp_path / "state")
    with running(tmp_path, values, lambda path: confined(tmp_path, command(path))) as daemon:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
        assert daemon.client.calibrate().r2 > 0.9
        assert daemon.client.refocus().outcome == "focused"
    assert "\nSeccomp:\t2\n" in status
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        ("touch /usr/focusd-was-here", "Read-only file system"),
        ("chown 1 .", "Operation not permitted"),
        ("unshare --user true", "Operation not permitted"),
        ("mount -t tmpfs tmpfs /mnt", "permission denied|must be superuser|Operation not permitted"),
        ('python3 -c "import socket; socket.socket(socket.AF_PACKET)"', "Operation not permitted"),
    ],
)
def test_the_restrictions_bite(tmp_path: Path, attempt: str, refusal: str) -> None:
    tried = subprocess.run(
        confined(tmp_path, ["sh", "-c", attempt]),
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert tried.returncode != 0
    assert any(reason in tried.stderr for reason in refusal.split("|")), tried.stderr
