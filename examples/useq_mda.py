"""A multi-position timelapse of pymmcore-plus that refocuses before each position.

It runs as it is, on a simulated microscope. For a real one, replace `simulated_core` by the core that your program has.

    python examples/useq_mda.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import useq
from pymmcore_plus import CMMCorePlus

import focusd
from focusd.embedded import FocusdEngine

RIG = """
name = "useq-example"
state_dir = "state"
[objective]
name = "10x/0.3"
magnification = 10
na = 0.3
[camera]
pixel_um = 6.5
exposure_ms = 10
[stage]
min_um = -150
max_um = 150
towards_sample = "increasing"
[microscope]
kind = "embedded"
"""


def simulated_core() -> CMMCorePlus:
    """A core as a program has it: camera, z, xy and a channel group. The sample's focus is at z = 8 µm."""
    from focusd.config import RigConfig
    from focusd.demo.core import owned_microscope

    optics = {
        "objective": {"name": "10x/0.3", "magnification": 10, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 10},
        "stage": {"min_um": -150, "max_um": 150, "towards_sample": "increasing"},
        "microscope": {"kind": "simulated", "focus_z_um": 8.0},
    }
    config = RigConfig.model_validate(optics)
    return owned_microscope(config, config.microscope, tilt=(0.02, -0.01)).core


def report(_image: Any, event: useq.MDAEvent, meta: Any) -> None:
    """Print where a frame was exposed."""
    index = " ".join(f"{axis}={number}" for axis, number in event.index.items())
    print(f"{index}: z = {meta['position']['z']:.2f} µm")


def main() -> None:
    """Calibrate once, then acquire."""
    core = simulated_core()
    with TemporaryDirectory() as folder:
        rig = Path(folder) / "rig.toml"
        rig.write_text(RIG, encoding="utf-8")
        with focusd.attach(core, rig) as focus:
            core.setPosition(8.0)  # the sample is in focus by eye, once for each objective and light
            focus.calibrate()
            core.mda.set_engine(FocusdEngine(core, on_failure="skip"))
            core.mda.events.frameReady.connect(report)
            plan = useq.MDASequence.model_validate(
                {
                    "axis_order": "tpcz",
                    "stage_positions": [(100, 0, 0), (-200, 50, 0)],
                    "time_plan": {"interval": 2, "loops": 2},
                    "channels": ["green", "red"],
                    "z_plan": {"range": 4, "step": 2},
                    "autofocus_plan": {"axes": ("t", "p")},
                }
            )
            core.run_mda(plan, block=True)
            print(f"{focus.exposures} exposures by focusd")
    core.unloadAllDevices()


if __name__ == "__main__":
    main()
