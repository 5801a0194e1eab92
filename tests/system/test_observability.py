"""A real daemon's figures and log lines: they tell what was done, for whom."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest

from focusd.daemon.metrics import HOST
from focusd.demo.rigs import free_ports
from focusd.errors import FocusdError
from tests.system.daemon import rig, running

SCORER_FAILS = """
import sys
from pathlib import Path
from focusd import config, standalone
from focusd.scoring.scorer import Scorer

def fail(*_):
    raise ArithmeticError("a bug in the scorer")

Scorer.score = fail
standalone.run(config.load_config(Path(sys.argv[1])))
"""


def test_figures_of_a_calibration_and_a_refocus(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(tmp_path, rig(tmp_path / "state") | {"metrics": {"port": port}}) as daemon:
        exposed = daemon.client.calibrate().exposures
        exposures = daemon.client.refocus().exposures
        text = urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10).read().decode()
    assert f"focusd_exposures_total {exposed + exposures:.1f}" in text
    assert 'focusd_jobs_total{kind="refocus",outcome="succeeded"} 1.0' in text
    assert 'focusd_backend{backend="cpu"} 1.0' in text
    assert {"requests", "events", "disk"} <= set(re.findall(r'focusd_queue_depth{queue="(\w+)"} \d', text))
    assert re.search(r'focusd_stage_seconds_count{stage="score"} [1-9]', text)


def test_the_log_of_a_job_that_fails_names_it_its_key_and_its_client(tmp_path: Path) -> None:
    start = lambda path: [sys.executable, "-c", SCORER_FAILS, str(path)]  # noqa: E731
    key = "6a1b3c0e-0000-4000-8000-000000000006"
    with running(tmp_path, rig(tmp_path / "state"), start) as daemon:
        with pytest.raises(FocusdError, match="a bug in the scorer") as failed:
            daemon.client.calibrate(request_key=key)
        assert daemon.answers()
    records = [json.loads(line) for line in daemon.log.read_text(encoding="utf-8").splitlines()]
    (line,) = [record for record in records if record["level"] == "error"]
    assert line["job_id"] == failed.value.data["job_id"]
    assert (line["request_key"], line["client"]) == (key, "test")
    assert "ArithmeticError" in line["exception"]
