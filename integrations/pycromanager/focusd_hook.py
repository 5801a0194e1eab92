"""Focus a pycro-manager acquisition with focusd, which is sent the images and says where to expose next.

    hook = FocusHook(Core(), Client(), limits_um=(-150, 150))
    with Acquisition(directory, name, post_hardware_hook_fn=hook) as acquisition:
        acquisition.acquire(multi_d_acquisition_events(num_time_points=10, time_interval_s=60))

focusd runs beside it: `focusd run --config configs/client.toml`. Python backend and Java backend of pycro-manager.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from focusd import AmbiguousError, BudgetError, Client, NoConvergenceError, NoSampleError, SaturatedError

SAMPLE_ERRORS = (AmbiguousError, BudgetError, NoConvergenceError, NoSampleError, SaturatedError)
"""With these a place has no focus; all others concern the rig, and end the acquisition."""


class FocusHook:
    """Brings the sample into focus once for each time point and position, before its first image.

    A position without focus is skipped. A plan with z is moved along: its z counts from where the stage stood when the
    hook was made, which should be the focus that the plan was made at.

    Attributes:
        found: the result of each focusing, by (time, position).
        skipped: the error of each place that has no focus, by (time, position).
    """

    def __init__(self, core: Any, focusd: Client, limits_um: tuple[float, float]) -> None:
        """Take the stage's z as the reference.

        Args:
            core: pycro-manager's `Core()`.
            focusd: a client of the daemon.
            limits_um: the stage is never sent beyond these two.
        """
        self._core = core
        self._focusd = focusd
        self._limits_um = limits_um
        self._reference_um = core.get_position()
        self._focus_um = self._reference_um
        self.found: dict[tuple[Any, Any], Any] = {}
        self.skipped: dict[tuple[Any, Any], Exception] = {}

    def __call__(self, event: Any) -> Any:
        """pycro-manager calls this after the hardware has moved; None skips the image."""
        first = event[0] if isinstance(event, list) else event
        if "axes" not in first:
            return event  # the end of the acquisition, without image
        if isinstance(event, list) and len({each.get("z") for each in event}) > 1:
            raise RuntimeError(
                "the z of a hardware-sequenced stack cannot be corrected: turn sequencing of z off"
            )
        place = first["axes"].get("time"), first["axes"].get("position")
        if place not in self.found and place not in self.skipped:
            self._focus_at(place)
        if place in self.skipped:
            return None
        self.move_to(self._focus_um + first.get("z", self._reference_um) - self._reference_um)
        return event

    def _focus_at(self, place: tuple[Any, Any]) -> None:
        try:
            self.found[place] = self._run("refocus", self._focus_um)
        except SAMPLE_ERRORS as error:
            self.skipped[place] = error
            self.move_to(self._focus_um)  # back from where the search ended
            print(f"time and position {place} are skipped: {error}")
        else:
            self._focus_um = self.found[place].focus_um

    def calibrate(self) -> Any:
        """Once per objective: in focus by eye, on a flat sample with texture. The stage comes back."""
        start_um = self._core.get_position()
        try:
            return self._run("calibrate", start_um)
        finally:
            self.move_to(start_um)

    def _run(self, kind: Any, z_um: float) -> Any:
        run = self._focusd.ask(kind, z_um=z_um, limits_um=self._limits_um)
        try:
            for wanted_um in run:
                self.move_to(wanted_um)
                run.tell(self._snap(), z_um=self._core.get_position())
        finally:
            if run.expose_um:
                run.drop()
        return run.result

    def move_to(self, z_um: float) -> None:
        """Move the stage and wait for it; raises ValueError outside the limits."""
        low_um, high_um = self._limits_um
        if not low_um <= z_um <= high_um:
            raise ValueError(
                f"z = {z_um:.2f} µm is outside the limits {low_um} to {high_um} µm: nothing was moved"
            )
        self._core.set_position(z_um)
        self._core.wait_for_device(self._core.get_focus_device())

    def _snap(self) -> np.ndarray:
        """(y, x) of uint8 or uint16."""
        core = self._core
        core.snap_image()
        shape = core.get_image_height(), core.get_image_width()
        # The Java backend has no unsigned numbers, and gives one row.
        return (
            np.asarray(core.get_image()).astype(f"u{core.get_bytes_per_pixel()}", copy=False).reshape(shape)
        )
