"""The microscope of somebody who drives focusd, in focus at z = 12.5 µm, and the daemon that they ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from focusd.config import load_config
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from tests.system.daemon import Daemon
from tests.ways.walk import CONFIGS, ROOT, Walker

FOCUS_UM = 12.5
TENTH_UM = 0.8
"""A tenth of the depth of field of configs/simulated-10x.toml."""
INTEGRATIONS = ROOT / "integrations"
EXAMPLES = ROOT / "examples"


@contextmanager
def own_microscope() -> Iterator[SimulatedMicroscope]:
    """The simulated one, which the daemon does not know."""
    microscope = open_simulated(load_config(CONFIGS / "simulated-10x.toml"))
    microscope.set_scene("gravel", 1, FOCUS_UM)
    try:
        yield microscope
    finally:
        microscope.close()


@contextmanager
def asked_daemon(folder: Path, config: str = "client.toml") -> Iterator[tuple[Walker, Daemon]]:
    """`focusd run --config configs/client.toml`, scoring as many tiles however busy the machine is."""
    walker = Walker.in_folder(folder)
    with (walker.folder / "configs" / config).open("a", encoding="utf-8") as file:
        file.write("\n[scorer]\nbudget_ms = 100000\n")
    with walker.daemon("run", "--config", f"configs/{config}") as daemon:
        yield walker, daemon
