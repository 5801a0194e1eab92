"""One microscope in front of one sample, its focus hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bench.realism.camera import Camera, Light, Sensor
from bench.realism.imaging import Incoherent
from bench.realism.optics import Optics
from bench.realism.partial import Transmitted
from bench.realism.samples import FIELD_PX, Layers, Sample
from bench.realism.stage import Mechanics, Stage, heights
from focusd.focus.frame import Frame
from focusd.focus.refocus import BEYOND_DOF, RefocusRun

COLOURS_UM = (0.61, 0.0, 0.46)
"""Wavelengths of red and blue; green is the instrument's own."""

_PLANES_PER_DOF = 3


@dataclass(frozen=True)
class Conditions:
    """All that a frame depends on besides z, sample and chance.

    Attributes:
        coloured: the sample looks different in red, green and blue; else all of them show the same.
    """

    optics: Optics
    sample: Sample = field(default_factory=Sample)
    camera: Camera = field(default_factory=Camera)
    mechanics: Mechanics = field(default_factory=Mechanics)
    coloured: bool = False


class Rig:
    """A microscope that stands at 0.

    Args:
        layers: the sample.
        focus_um: of its mean depth at the field's mean, where the way of the focal plane counts.
        sensor_seed: of what is wrong with the camera for good.
        rng: of all that is different in each exposure.
    """

    def __init__(
        self,
        conditions: Conditions,
        layers: Layers,
        focus_um: float,
        sensor_seed: int,
        rng: np.random.Generator,
    ) -> None:
        self._conditions = conditions
        self._focus_um = focus_um
        self._rng = rng
        self._stage = Stage(conditions.mechanics, 0.0, rng)
        self._sensor = Sensor(conditions.camera, (FIELD_PX, FIELD_PX), sensor_seed, rng)
        self._images = _images_of(conditions, layers)
        self._heights = torch.from_numpy(heights(conditions.mechanics, FIELD_PX))
        self._exposures = 0

    def frame(self, z_um: float) -> Frame:
        """Go to a z and expose."""
        self._stage.move(z_um)
        mechanics = self._conditions.mechanics
        self._focus_um += mechanics.drift_um if self._exposures else 0.0
        self._exposures += 1
        defocus_um = self._stage.exposed_um() - self._focus_um
        shift, smear = (
            (scale * float(self._rng.standard_normal()), scale * float(self._rng.standard_normal()))
            for scale in (mechanics.vibration_px, mechanics.smear_px)
        )
        offsets_um = (mechanics.red_um, 0.0, mechanics.blue_um) if len(self._images) == 3 else (0.0,)
        images: Sequence[Incoherent | Transmitted] = self._images
        light = [
            self._level_or_not(image, defocus_um - offset_um, shift, smear)
            for image, offset_um in zip(images, offsets_um, strict=True)
        ]
        channels = self._conditions.camera.channels
        return Frame(self._sensor.expose(light * (channels // len(light))), z_um)

    def search_frame(self, run: RefocusRun, z_um: float) -> Frame:
        """Expose for a search; its first plane is approached as the daemon approaches it."""
        if not self._exposures and (before_um := run.before_um) is not None:
            self._stage.move(before_um)
        return self.frame(z_um)

    def true_focus_um(self, run: RefocusRun) -> float:
        """Return the z to command for the sample's best plane, as the stage would come to the answer now.

        With an ideal stage that is where the sample is; with backlash the way to it counts.
        """
        believed = run.believed
        if believed is None:
            return self._focus_um / self._conditions.mechanics.scale
        landing_um = self._stage.landing_um(believed[0], BEYOND_DOF * run.field.dof_um)
        return believed[0] - (landing_um - self._focus_um)

    def _level_or_not(
        self,
        image: Incoherent | Transmitted,
        defocus_um: float,
        shift: tuple[float, float],
        smear: tuple[float, float],
    ) -> Light:
        """Return a field whose focus varies, interpolated between images of level ones."""
        low_um, high_um = float(self._heights.min()), float(self._heights.max())
        if low_um == high_um:
            return image.image(defocus_um, shift, smear).numpy()
        dof_um = self._conditions.optics.configured.depth_of_field_um
        planes_um = np.linspace(low_um, high_um, math.ceil(_PLANES_PER_DOF * (high_um - low_um) / dof_um) + 2)
        step_um = float(planes_um[1] - planes_um[0])
        total: Tensor = torch.zeros(FIELD_PX, FIELD_PX)
        for height_um in planes_um:
            share = (1 - (self._heights - float(height_um)).abs() / step_um).clamp(min=0)
            total += share * image.image(defocus_um - float(height_um), shift, smear)
        return total.numpy()


def _images_of(conditions: Conditions, layers: Layers) -> list[Incoherent] | list[Transmitted]:
    """Return the optics in front of the sample: of one colour, or of three where they differ."""
    optics = conditions.optics
    if optics.condenser is not None:
        return [Transmitted(optics, layers[0][1])]
    if not conditions.coloured:
        return [Incoherent(optics, layers)]
    scenes = [_tinted(layers, of) for of in range(3)]
    waves = [COLOURS_UM[of] or optics.wavelength_um for of in range(3)]
    return [
        Incoherent(replace(optics, wavelength_um=wave), scene)
        for wave, scene in zip(waves, scenes, strict=True)
    ]


def _tinted(layers: Layers, of: int) -> Layers:
    """Return the sample as one colour shows it: strongly, as it is, or weakly."""
    exponent = (0.6, 1.0, 1.8)[of]
    return [(z_um, np.maximum(image, 0) ** np.float32(exponent)) for z_um, image in layers]
