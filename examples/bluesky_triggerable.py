"""focusd as a device of bluesky: `bps.trigger_and_read([focus])` refocuses, and stores what was found.

focusd owns camera and stage here: it runs with a configuration of your microscope, and is calibrated.
"""

import time

from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from ophyd import DeviceStatus  # noqa: F401
