"""A simulated microscope in a core of the test's own, and the rig that is attached to it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from focusd.config import RigConfig
from focusd.demo.core import OwnedMicroscope, embedded_rig, owned_microscope
from focusd.embedded import Attached, attach
from focusd.microscope.micromanager import close_core

SIDE = 256
ANYWHERE = "tcp://127.0.0.1:*"


@dataclass(frozen=True)
class Bench:
    """A program's microscope with focusd attached."""

    owned: OwnedMicroscope
    focusd: Attached

    @property
    def core(self) -> Any:
        return self.owned.core


def config_of(state: Path, **sections: dict[str, Any]) -> RigConfig:
    """A simulated 10×/0.3 rig; sections overrule single values."""
    values: dict[str, Any] = {
        "name": "embedded",
        "state_dir": state,
        "objective": {"name": "10x/0.3", "magnification": 10, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 5},
        "stage": {"min_um": -150, "max_um": 150, "towards_sample": "increasing"},
        "microscope": {"kind": "simulated", "width": SIDE, "height": SIDE, "focus_z_um": 8, "settling_ms": 1},
        "calibration": {"range_um": 60, "step_um": 3},
        "server": {"control": ANYWHERE, "events": ANYWHERE},
        "scorer": {"budget_ms": 1e5},  # as many tiles, however busy the machine is
    }
    return RigConfig.model_validate(
        values | {name: {**values.get(name, {}), **section} for name, section in sections.items()}
    )


@contextmanager
def opened(
    config: RigConfig, tilt: tuple[float, float] = (0.0, 0.0)
) -> Iterator[tuple[OwnedMicroscope, RigConfig]]:
    """A program's microscope, and the configuration that attaches to it."""
    rig, scene = embedded_rig(config)
    owned = owned_microscope(config, scene, tilt)
    try:
        yield owned, rig
    finally:
        close_core(owned.core)


@contextmanager
def attached(
    state: Path,
    tilt: tuple[float, float] = (0.0, 0.0),
    *,
    calibrated: bool = True,
    **sections: dict[str, Any],
) -> Iterator[Bench]:
    """A program's microscope with focusd attached, calibrated unless that is what is tested."""
    config = config_of(state, **sections)
    if calibrated:
        folder = config.state_folder / "calibrations"
        folder.mkdir(parents=True)
        shutil.copy(calibration(), folder)
    with opened(config, tilt) as (owned, rig), attach(owned.core, rig) as focusd:
        yield Bench(owned, focusd)


@cache
def calibration() -> Path:
    """A calibration of this rig, made once: it takes seconds."""
    state = Path(mkdtemp())
    with opened(config_of(state)) as (owned, rig), attach(owned.core, rig) as focusd:
        owned.focus_by_eye()
        return Path(focusd.calibrate().path)


def core_state(core: Any) -> dict[str, Any]:
    """All that a program can see of its core and its process, but for where the stages stand."""
    devices = [label for label in core.getLoadedDevices() if label != "Core"]
    properties = {
        (label, name): str(core.getProperty(label, name))
        for label in (*devices, "Core")
        for name in core.getDevicePropertyNames(label)
        if not moves_by_itself(core, label, name)
    }
    groups = {group: core.getCurrentConfig(group) for group in core.getAvailableConfigGroups()}
    return {
        "class": type(core),
        "attributes": set(vars(core))
        - {"_current_image_buffer"},  # of the core's last image, whoever took it
        "runner": type(core.mda),
        "runner's attributes": set(vars(core.mda)) - {"_n_cameras"},  # its own, from the first run on
        "engine": (core.mda.engine, type(core.mda.engine)),
        "devices": devices,
        "properties": properties,
        "groups": groups,
        "exposure": core.getExposure(),
        "region": tuple(core.getROI()),
        "shutter": (
            core.getShutterDevice(),
            core.getAutoShutter(),
            core.getShutterDevice() and core.getShutterOpen(),
        ),
        "live": core.isSequenceRunning(),
        "autofocus": core.getAutoFocusDevice(),
        "timeout": core.getTimeoutMs(),
    }


def moves_by_itself(core: Any, label: str, name: str) -> bool:
    """Whether a property is where a stage stands, or what a device measures."""
    return name == "Position" or (label, name) == ("Camera", "CCDTemperature")


def own_threads() -> set[str]:
    """The names of the threads that Python knows."""
    return {thread.name for thread in threading.enumerate() if thread.is_alive()}
