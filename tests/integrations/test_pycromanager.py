"""integrations/pycromanager on pycro-manager's Python backend: Micro-Manager's demo devices, a simulated sample."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from focusd.addresses import CONTROL
from tests.integrations.rig import FOCUS_UM, INTEGRATIONS, TENTH_UM, asked_daemon
from tests.ways.walk import Done

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("pycromanager"),
    reason="needs pycro-manager: pip install -e '.[integrations]'",
)

HEADLESS = Path(__file__).parent / "headless.py"
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs timelapse.py, calibrated, with what its user may change and the drift of the sample per image."""
    with asked_daemon(tmp_path_factory.mktemp("pycromanager")) as (walker, _):
        hook = (INTEGRATIONS / "pycromanager" / "focusd_hook.py").read_text(encoding="utf-8")
        (walker.folder / "focusd_hook.py").write_text(hook, encoding="utf-8")
        script = (INTEGRATIONS / "pycromanager" / "timelapse.py").read_text(encoding="utf-8")
        script = script.replace("Client()", f"Client({walker.control!r})")
        assert CONTROL not in script

        def run(*arguments: str, drift_um: float = 0.0, changed: tuple[str, str] = ("", "")) -> Done:
            assert changed[0] in script
            file = walker.folder / "timelapse.py"
            file.write_text(script.replace(*changed) if changed[0] else script, encoding="utf-8")
            config = "configs/simulated-10x.toml"
            return walker.run([sys.executable, str(HEADLESS), file.name, config, str(drift_um), *arguments])

        calibrated = run("calibrate")
        assert calibrated.returncode == 0, calibrated.stderr
        told = re.search(r"in focus at (\S+) µm", calibrated.stdout)
        assert told
        assert float(told[1]) == pytest.approx(FOCUS_UM, abs=0.3)
        yield run


def off_um(done: Done) -> list[float]:
    """How far each saved image was from the focus."""
    assert done.returncode == 0, done.stderr
    told = re.search(r"saved images are off by(.*)", done.stdout)
    assert told, done.stdout + done.stderr
    return [float(off) for off in told[1].split()]


def test_a_timelapse_of_a_drifting_sample_stays_in_focus(run: Run) -> None:
    done = run(drift_um=6.0)
    assert off_um(done) == pytest.approx([0, 0, 0], abs=TENTH_UM)
    found = re.findall(r"time (\d): in focus at \S+ ± \S+ µm, (\d) images", done.stdout)
    assert [number for number, _ in found] == ["0", "1", "2"], done.stdout
    assert all(int(images) <= 4 for _, images in found)


def test_a_stack_goes_along_with_the_focus(run: Run) -> None:
    """Planned from −4 to +4 µm around where the stage stood."""
    stack = "multi_d_acquisition_events(num_time_points=1, z_start=-24, z_end=-16, z_step=4)"
    done = run(changed=("multi_d_acquisition_events(num_time_points=3, time_interval_s=1)", stack))
    assert off_um(done) == pytest.approx([-4, 0, 4], abs=TENTH_UM)


def test_a_place_without_focus_is_skipped(run: Run) -> None:
    done = run(changed=("(-150, 150)", "(-40, -10)"))
    assert off_um(done) == []
    assert "the stage ends at -20.0" in done.stdout
    assert done.stdout.count("are skipped: ") == 3
    assert "in focus at" not in done.stdout


def test_a_daemon_that_is_not_there_ends_the_acquisition(run: Run) -> None:
    done = run(changed=("as focusd:", "as focusd:\n    focusd.endpoint = 'tcp://127.0.0.1:9'"))
    assert "focusd run" in done.stderr
    assert "in focus at" not in done.stdout
