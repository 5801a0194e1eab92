"""A timelapse that is in focus at each time point. Micro-Manager runs already, or a headless core does.

python timelapse.py calibrate    # once per objective: focused by eye on a flat sample with texture
python timelapse.py              # then, on any sample
"""

import sys

from focusd_hook import FocusHook
from pycromanager import Acquisition, Core, multi_d_acquisition_events

from focusd import Client

LIMITS_UM = (-150, 150)  # the z that is safe for your objective

with Client() as focusd:
    hook = FocusHook(Core(), focusd, LIMITS_UM)
    if "calibrate" in sys.argv:
        print("calibrated; the sample is in focus at", hook.calibrate().z_focus_um, "µm")
    else:
        with Acquisition(directory=".", name="focused", post_hardware_hook_fn=hook) as acquisition:
            acquisition.acquire(multi_d_acquisition_events(num_time_points=3, time_interval_s=1))
        for (time, _), found in hook.found.items():
            print(
                f"time {time}: in focus at {found.focus_um:.2f} ± {found.sigma_um:.2f} µm, {found.exposures} images"
            )
