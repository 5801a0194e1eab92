"""examples/bluesky_triggerable.py in a RunEngine, with a daemon that owns the simulated microscope."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator

import pytest

from tests.integrations.rig import EXAMPLES, asked_daemon
from tests.ways.walk import Walker

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("bluesky"), reason="needs bluesky: pip install -e '.[integrations]'"
)


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    with asked_daemon(tmp_path_factory.mktemp("bluesky"), "simulated-10x.toml") as (walker, _):
        text = (EXAMPLES / "bluesky_triggerable.py").read_text(encoding="utf-8")
        assert "Client()" in text
        program = text.replace("Client()", f"Client({walker.control!r})")
        (walker.folder / "bluesky_triggerable.py").write_text(program, encoding="utf-8")
        yield walker


def test_a_plan_refocuses_and_records_what_was_found(walker: Walker) -> None:
    walker.ctl("calibrate")
    done = walker.run([sys.executable, "bluesky_triggerable.py"])
    assert done.returncode == 0, done.stderr
    found = [float(focus_um) for focus_um in re.findall(r"'focus_focus_um': ([^,]+)", done.stdout)]
    assert len(found) == 3, done.stdout
    assert max(found) - min(found) < 0.5
    assert walker.state()["z_um"] == pytest.approx(found[-1], abs=0.01)


def test_a_refocus_that_fails_ends_the_plan(walker: Walker) -> None:
    file = walker.folder / "bluesky_triggerable.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(walker.control, "tcp://127.0.0.1:9"), encoding="utf-8")
    done = walker.run([sys.executable, file.name])
    assert done.returncode != 0
    assert "UnreachableError" in done.stderr
