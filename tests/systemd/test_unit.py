"""The units as shipped: hardened as far as torch and drivers allow, and without what they cannot bear."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from focusd.standalone import DESCRIPTORS
from tests.systemd.unit import SYSTEMD, UNIT, directives

WITH_SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
USER_UNIT = SYSTEMD / "user" / "focusd.service"


@WITH_SYSTEMD
def test_the_exposure_score_is_2_at_most() -> None:
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT)],
        capture_output=True,
        text=True,
    )
    level = re.search(r"Overall exposure level for focusd.service: ([\d.]+)", told.stdout)
    assert level, told.stderr
    assert told.returncode == 0, level[0]
    assert float(level[1]) <= 2.0


@WITH_SYSTEMD
@pytest.mark.parametrize(
    "unit", [UNIT, USER_UNIT, *SYSTEMD.glob("focusd.service.d/*.conf")], ids=lambda u: u.name
)
def test_systemd_knows_every_directive(tmp_path: Path, unit: Path) -> None:
    copy = tmp_path / "focusd.service"
    text = re.sub("ExecStart=.*", "", unit.read_text(encoding="utf-8"))
    copy.write_text(text.replace("[Service]", "[Service]\nExecStart=/bin/true", 1), encoding="utf-8")
    told = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert "focusd.service:" not in told.stderr, told.stderr


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT])
def test_a_service_that_is_watched_and_not_restarted_for_ever(unit: Path) -> None:
    said = directives(unit)
    assert (said["Type"], said["Restart"]) == (["notify"], ["on-failure"])
    assert int(said["WatchdogSec"][0]) > 0
    assert int(said["StartLimitBurst"][0]) * int(said["RestartSec"][0]) < int(
        said["StartLimitIntervalSec"][0]
    )


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT])
def test_clients_do_not_use_up_the_descriptors_and_a_fault_outlives_a_broken_disk(unit: Path) -> None:
    said = directives(unit)
    assert said["LimitNOFILE"] == [str(DESCRIPTORS)]
    assert said["RuntimeDirectoryPreserve"] == ["yes"]


@pytest.mark.parametrize("name", ["MemoryDenyWriteExecute", "PrivateDevices", "ProcSubset"])
def test_what_breaks_torch_or_hides_the_gpu_is_left_out(name: str) -> None:
    assert name not in directives()


def test_each_drop_in_opens_what_it_is_for_and_no_more() -> None:
    opened = {path.stem: set(directives(path)) for path in SYSTEMD.glob("focusd.service.d/*.conf")}
    assert opened == {
        "gpu": {"DeviceAllow", "MemoryMax"},
        "usb": {"DeviceAllow", "SupplementaryGroups", "PrivateUsers"},
        "network": {"IPAddressAllow"},
    }
