"""The kinds of microscope: simulated, Micro-Manager's, recorded, a client's, another program's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from focusd.config.section import Finite, NonNegative, Positive, Section


class SceneConfig(Section):
    """A simulated sample at a hidden focus, and the light that reaches the camera from it."""

    sample: str = "cells"
    """One of the names in `focusd.microscope.samples.SAMPLES`."""
    seed: int = 0
    """The same seed gives the same sample and the same noise."""
    focus_z_um: Finite = 0.0
    """Where the sample is in focus; the daemon never looks at it."""
    electrons: Positive = 8000.0
    """Mean signal of the brightest parts of the sample at the configured exposure."""
    background_electrons: NonNegative = 200.0
    """Mean light between the objects, in electrons."""
    read_noise_electrons: NonNegative = 1.6
    """Standard deviation of the camera's own noise."""
    vignetting: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """Loss of light in the corners."""
    tilt_y_um: Finite = 0.0
    """Change of the focus from the first row to the last."""
    tilt_x_um: Finite = 0.0
    """Change of the focus from the first column to the last."""
    drift_um_per_min: Finite = 0.0
    """How fast the focus moves."""
    spherical_waves: Finite = 0.0
    """Primary spherical aberration, waves RMS."""


class SimulatedConfig(SceneConfig):
    """The simulated microscope: no hardware at all."""

    kind: Literal["simulated"] = "simulated"
    width: Annotated[int, Field(ge=32, le=4096)] = 512
    """Of a frame, in pixels."""
    height: Annotated[int, Field(ge=32, le=4096)] = 512
    """Of a frame, in pixels."""
    backlash_um: NonNegative = 0.0
    """Play between the motor of the stage, which is read back, and what it moves."""
    velocity_um_per_s: Positive = 1000.0
    """Of the stage."""
    settling_ms: NonNegative = 20.0
    """From the end of a move until the stage stands still."""


class CoreConfig(Section):
    """What Micro-Manager's core loads."""

    config_file: str
    """Path; `MMConfig_demo.cfg` is searched beside the adapters when it does not exist as given."""
    adapter_path: str | None = None
    """Folder of the device adapters; None: where pymmcore-plus finds them."""
    camera: str | None = None
    """Device label; None: the configuration file's default camera."""
    stage: str | None = None
    """Device label; None: the configuration file's default focus stage."""


class MicroManagerConfig(CoreConfig):
    """Any Micro-Manager configuration file."""

    kind: Literal["micromanager"]


class RehearsalConfig(CoreConfig, SceneConfig):
    """Micro-Manager's camera and stage, exposed and moved as ever, in front of a simulated sample."""

    kind: Literal["rehearsal"]

    @property
    def note(self) -> str:
        """What everybody has to know who sees a result of a rehearsal."""
        drifts = f", drifting by {self.drift_um_per_min:g} µm/min" if self.drift_um_per_min else ""
        return (
            "rehearsal: camera and stage are Micro-Manager's, the picture is simulated, in focus at "
            f"z = {self.focus_z_um:g} µm{drifts}"
        )


class RecordedConfig(Section):
    """A through-focus stack on disk plays the microscope."""

    kind: Literal["recorded"]
    stack: Path
    """An OME-TIFF with the z of each plane, or a TIFF stack."""
    z_step_um: Positive | None = None
    """Distance of the planes, for files that do not say."""
    start_z_um: Finite | None = None
    """Where the stage stands at first; None: the middle of the stack."""


class ClientConfig(Section):
    """The clients own camera and stage: they send frames and are told where to expose (`focus.ask`)."""

    kind: Literal["client"]


class EmbeddedConfig(Section):
    """The microscope of a program that has opened it already: `focusd.attach(core, "rig.toml")`."""

    kind: Literal["embedded"]
    channel: str | None = None
    """The preset to focus in; None: whatever the program has set at that moment."""
    channel_group: str | None = None
    """The preset's group; None: the core's channel group."""
    sockets: Literal["if_free", "required", "none"] = "if_free"
    """Whether clients and monitors are served. if_free: where another program has the ports, none are."""


MicroscopeConfig = Annotated[
    SimulatedConfig | MicroManagerConfig | RehearsalConfig | RecordedConfig | ClientConfig | EmbeddedConfig,
    Field(discriminator="kind"),
]
