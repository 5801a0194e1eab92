"""pycro-manager's Python backend on Micro-Manager's demo devices, whose camera shows focusd's simulated sample.

    python headless.py SCRIPT CONFIG DRIFT_UM [ARGUMENT]

Runs the script as it stands. The focus moves by DRIFT_UM after each saved image.
"""

import runpy
import sys
import time
from pathlib import Path
from typing import Any

import mm_test_adapters
import numpy as np
from pycromanager import Core, start_headless, stop_headless

from focusd.config import SimulatedConfig, load_config
from focusd.microscope.simulation import Sensor, World, instrument_of

FOCUS_UM = 12.5

script, config_file, drift_um = sys.argv[1:4]
config = load_config(Path(config_file))
assert isinstance(config.microscope, SimulatedConfig)
start_headless(str(mm_test_adapters.device_adapter_path()), python_backend=True, buffer_size_mb=64)
core = Core()
core.load_device("camera", "DemoCamera", "DCam")
core.load_device("z", "DemoCamera", "DStage")
core.initialize_all_devices()
core.set_camera_device("camera")
core.set_focus_device("z")
core.set_property("camera", "PixelType", "16bit")
core.set_property("camera", "OnCameraCCDXSize", 512)
core.set_property("camera", "OnCameraCCDYSize", 512)
core.set_exposure(10)
core.set_position(FOCUS_UM if "calibrate" in sys.argv else -20)

world = World(config.microscope, instrument_of(config.objective, config.camera), (512, 512))
world.set_scene("gravel", 1, FOCUS_UM)
sensor = Sensor(config.microscope, 10.0, 16)
off_um: list[float] = []
"""How far each saved image was from the focus."""
take = core.get_tagged_image


def defocus_um() -> float:
    return float(core.get_position()) - FOCUS_UM - float(drift_um) * len(off_um)


def get_image() -> np.ndarray:
    light = world.light(FOCUS_UM + defocus_um(), time.perf_counter())
    return sensor.expose(light, 10.0, 1).numpy().astype(np.uint16)


def get_tagged_image(*arguments: Any) -> Any:
    image = take(*arguments)
    off_um.append(defocus_um())
    return image


core.get_tagged_image = get_tagged_image
core.get_image = get_image
sys.argv = [script, *sys.argv[4:]]
sys.path.insert(0, str(Path(script).parent))
runpy.run_path(script, run_name="__main__")
print("saved images are off by", *off_um)
print("the stage ends at", core.get_position())
stop_headless()
