"""The main job: calibrate once, restart, and bring a sample that the daemon has never seen into focus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from focusd.errors import CalibrationError
from focusd.protocol.states import Unusable
from focusd.storage.files import sealed, unsealed, write_atomically
from tests.documents import DOCS, blocks
from tests.system.conftest import Bench


def test_the_calibration_is_that_of_the_slide(bench: Bench) -> None:
    calibration = bench.calibration

    assert calibration.planes == 51, "what the objective asks for: ±98 µm in steps of 3.9 µm"
    assert calibration.r2 > 0.9
    assert abs(calibration.z_focus_um) < calibration.dof_um
    assert bench.calibration_file.is_file()


def test_the_calibration_survives_the_restart(bench: Bench) -> None:
    state = bench.daemon.client.state()

    assert state.calibration.usable is True
    assert state.calibration.fwhm_um == bench.calibration.fwhm_um
    assert (state.fault, state.job) == (None, None)


def test_an_unseen_sample_is_brought_into_focus(bench: Bench) -> None:
    result = bench.daemon.client.refocus()

    assert abs(result.z_found_um - bench.true_focus_um) <= result.dof_um
    assert bench.daemon.client.state().z_um == result.z_found_um
    assert result.exposures == len(result.probes) >= 3
    assert result.outcome == "focused"
    assert 0 < result.sigma_um < bench.calibration.fwhm_um / 4
    assert result.shift_um == pytest.approx(result.z_found_um - bench.home_um)


def test_a_region_of_interest_is_brought_into_focus(bench: Bench) -> None:
    result = bench.daemon.client.refocus(roi=(64, 0, 128, 256))

    assert abs(result.z_found_um - bench.true_focus_um) <= result.dof_um
    assert len(result.geometry.focus_um) == 1, "one row of blocks is looked at"


def test_the_plain_client_of_the_documents_works_as_written(bench: Bench, tmp_path: Path) -> None:
    (code,) = (block for block in blocks(DOCS / "howto" / "programs.md", "python") if "zmq.REQ" in block)
    assert "127.0.0.1:5570" in code
    script = tmp_path / "client.py"
    port = bench.daemon.control.rpartition(":")[2]
    script.write_text(code.replace("127.0.0.1:5570", f"127.0.0.1:{port}"), encoding="utf-8")

    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)

    assert (ran.returncode, ran.stderr) == (0, "")
    hello, run = ran.stdout.splitlines()
    assert hello.startswith("system.hello {")
    assert '"protocols": ["focusd/1"]' in hello
    assert re.match(r'focus\.run \{.*"exposures": \d', run)


def test_a_client_is_light() -> None:
    code = "import json, sys, focusd.client; print(json.dumps([*sys.modules]))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert "zmq" in loaded
    assert not loaded & {"torch", "pymmcore", "pymmcore_plus", "scipy", "skimage", "numpy"}


@pytest.mark.parametrize(
    ("field", "value"), [("objective", "20x/0.5"), ("pixel_um", 3.45), ("model_sha256", "0" * 64)]
)
def test_a_calibration_of_something_else_is_refused_by_name(bench: Bench, field: str, value: object) -> None:
    values = unsealed(bench.calibration_file.read_text(encoding="utf-8"))
    values["fingerprint"][field] = value
    write_atomically(bench.calibration_file, sealed(values))

    with pytest.raises(CalibrationError, match=f"{field} was {value!r}, is .*; calibrate anew") as refused:
        bench.daemon.client.refocus()

    assert refused.value.data["field"] == field
    state = bench.daemon.client.state()
    assert state.z_um == bench.home_um
    assert state.calibration == Unusable(usable=False, reason=refused.value.message)


def test_without_a_calibration_the_error_says_how_to_make_one(bench: Bench) -> None:
    bench.calibration_file.unlink()

    with pytest.raises(CalibrationError, match="focus by eye, then run `focusctl calibrate`") as refused:
        bench.daemon.client.refocus()

    assert refused.value.code == -32016
    assert refused.value.data["retryable"] is False
    assert bench.daemon.client.state().z_um == bench.home_um
