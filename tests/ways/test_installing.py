"""What is installed: the wheels of both distributions, and an environment that has the client alone."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from focusd import __version__
from focusd.scoring.weights import DEFAULT_NAME
from tests.system.daemon import Daemon, rig, running

ROOT = Path(__file__).parents[2]
PLAIN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""Without what shows the checkout to an environment that has another focusd installed."""
BUILD_S = 150

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command, run to its end, that does not see the checkout's modules."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        cwd=folder,
        env=PLAIN,
    )


def pip(*arguments: str | Path) -> None:
    """A pip command that succeeds."""
    done = run(sys.executable, "-m", "pip", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by the names of their distributions, built as `pip install` builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    asked = run(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder / "tools", "hatchling")
    if asked.returncode:
        pytest.skip(f"no package registry is reachable, so nothing can be built: {asked.stderr[-300:]}")
    pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT, ROOT / "packaging" / "client")
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def light(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the client and nothing else; the folder of its programs."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip("--python", programs / "python", "install", wheels["focusd_client"])
    return programs


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The daemon of the simulator, from this checkout."""
    folder = tmp_path_factory.mktemp("daemon")
    with running(folder, rig(folder / "state")) as daemon:
        yield daemon


def files(wheel: Path) -> dict[str, bytes]:
    """What a wheel installs of the package, by path."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("focusd/")}


def test_the_full_wheel_is_small_and_has_the_current_weights_alone(wheels: dict[str, Path]) -> None:
    assert wheels["focusd"].stat().st_size < 6e6
    assert {name for name in files(wheels["focusd"]) if not name.endswith(".py")} == {
        "focusd/py.typed",
        f"focusd/_models/{DEFAULT_NAME}.safetensors",
        f"focusd/_models/{DEFAULT_NAME}.safetensors.sha256",
    }


def test_the_client_is_a_part_of_the_full_distribution(wheels: dict[str, Path]) -> None:
    assert files(wheels["focusd_client"]).items() <= files(wheels["focusd"]).items()
    assert {path.name.split("-")[1] for path in wheels.values()} == {__version__}


def test_an_environment_that_only_talks_to_a_daemon_is_small(light: Path) -> None:
    (packages,) = light.parent.glob("[Ll]ib/**/site-packages")
    sizes = {path: path.stat().st_size for path in packages.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 20e6
    assert not {path.relative_to(packages).parts[0] for path in sizes} & {
        "torch", "pymmcore", "pymmcore_plus", "skimage", "matplotlib", "numpy", "scipy"
    }  # fmt: skip


def test_all_of_the_client_can_be_imported_but_for_the_pictures(light: Path) -> None:
    code = (
        "import focusd, pkgutil, importlib\n"
        "names = {found.name for found in pkgutil.walk_packages(focusd.__path__, 'focusd.')}\n"
        "for name in names - {'focusd.pictures', 'focusd.ctl.__main__'}: importlib.import_module(name)\n"
        "print(focusd.Client.__name__, focusd.UnreachableError.__name__)"
    )
    done = run(light / "python", "-c", code, folder=light)
    assert done.stdout.split() == ["Client", "UnreachableError"], done.stderr


def test_focusctl_of_a_light_environment_talks_to_a_daemon(light: Path, daemon: Daemon) -> None:
    state = run(light / "focusctl", "--endpoint", daemon.control, "status", folder=light)
    assert state.returncode == 0, state.stderr
    assert f"focusd {__version__} on {daemon.control}" in state.stdout


def test_a_light_environment_says_what_pictures_need(light: Path, daemon: Daemon) -> None:
    where = ["--endpoint", daemon.control, "--events", daemon.events]
    asked = run(light / "focusctl", *where, "refocus", "--map", "field.png", folder=light)
    assert asked.returncode == 1
    assert "run `pip install 'focusd-client[plots]'`" in asked.stderr


def test_focusd_refuses_to_share_an_environment_with_the_client(tmp_path: Path) -> None:
    metadata = tmp_path / "focusd_client-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: focusd-client\nVersion: 0.1.0\n", encoding="utf-8")
    beside = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-m", "focusd", "version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=beside)
    assert done.returncode == 1
    assert "run `pip uninstall focusd-client`" in done.stderr
