"""The simulated world: a sample at a hidden focus, and the light that the optics make of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from focusd.config import CameraConfig, ObjectiveConfig, SceneConfig
from focusd.errors import ConfigError
from focusd.microscope.samples import SAMPLES
from focusd.optics.imaging import Camera, kernel_transfer, vignette
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf
from focusd.optics.zernike import SPHERICAL

_MARGIN_PX = 64
"""Rendered around the frame and cut off: convolution is circular, and no frame shows its opposite edge."""

_MAX_TILT_PLANES = 16
_FULL_WELL_ELECTRONS = 30000.0
_OFFSET_SHARE = 1 / 500
"""Counts of a dark pixel, as a share of the full scale."""


@dataclass(frozen=True)
class _Scene:
    """What lies on the slide: its spectrum, where it is in focus, and since when it drifts."""

    spectrum: Tensor
    focus_z_um: float
    since_s: float


class World:
    """The truth about the sample. The daemon sees only images of it; tests, bench and demo may ask."""

    def __init__(self, settings: SceneConfig, instrument: Instrument, shape: tuple[int, int]) -> None:
        """Lay the configured sample on the slide.

        Args:
            instrument: with the pitch of the sensor's own pixels, before binning.
            shape: (y, x) of the sensor, in its own pixels.

        Raises:
            ConfigError: there is no such sample.
        """
        self._settings = settings
        self._instrument = instrument
        self._shape = shape
        self._vignette = vignette(self._shape, settings.vignetting, torch.empty(0, dtype=torch.float32))
        self._tilt_um = _plane(self._shape, settings.tilt_y_um, settings.tilt_x_um)
        self.set_scene(settings.sample, settings.seed, settings.focus_z_um)

    def set_scene(self, sample: str, seed: int, focus_z_um: float) -> None:
        """Put another sample on the slide; its drift starts now. Safe from any thread.

        Raises:
            ConfigError: there is no such sample.
        """
        if sample not in SAMPLES:
            raise ConfigError(
                f"microscope.sample: there is no {sample!r}; choose one of {', '.join(SAMPLES)}"
            )
        height, width = self._shape
        texture = SAMPLES[sample]((height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX), seed)
        # One assignment: an exposure under way keeps the scene it began with.
        self._scene = _Scene(torch.fft.rfft2(torch.from_numpy(texture)), focus_z_um, time.perf_counter())

    def focus_z_um(self, time_s: float | None = None) -> float:
        """The z at which the field's centre is in focus, at a `time.perf_counter()` (None: now)."""
        return self._focus_z_um(self._scene, time.perf_counter() if time_s is None else time_s)

    def _focus_z_um(self, scene: _Scene, time_s: float) -> float:
        return scene.focus_z_um + self._settings.drift_um_per_min * (time_s - scene.since_s) / 60

    def light(self, z_um: float, time_s: float) -> Tensor:
        """Light on the sensor, (y, x) float32: 1 from an even, bright sample at the field's centre.

        Args:
            z_um: of the focal plane.
            time_s: `time.perf_counter()`.
        """
        scene = self._scene
        defocus_um = z_um - self._focus_z_um(scene, time_s)
        return self._vignette * self._tilted(scene, defocus_um)

    def _tilted(self, scene: _Scene, defocus_um: float) -> Tensor:
        """The image of a tilted sample, interpolated between images of level ones."""
        half_um = float(self._tilt_um.max())
        if half_um == 0:
            return self._level(scene, defocus_um)
        fine = math.ceil(4 * half_um / self._instrument.depth_of_field_um) + 1
        planes = max(2, min(_MAX_TILT_PLANES, fine))
        offsets_um = torch.linspace(-half_um, half_um, planes).tolist()
        images = torch.stack([self._level(scene, defocus_um - offset_um) for offset_um in offsets_um])
        place = (self._tilt_um + half_um) * ((planes - 1) / (2 * half_um))
        lower = place.floor().clamp(0, planes - 2)
        index = lower.long()[None]
        return torch.lerp(images.gather(0, index)[0], images.gather(0, index + 1)[0], place - lower)

    def _level(self, scene: _Scene, defocus_um: float) -> Tensor:
        height, width = self._shape
        full = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
        aberrations = {SPHERICAL: self._settings.spherical_waves} if self._settings.spherical_waves else None
        psf = camera_psf(self._instrument, defocus_um, self._kernel_px(defocus_um), aberrations)
        kernel = torch.fft.ifftshift(psf).to(torch.float32)
        image: Tensor = torch.fft.irfft2(scene.spectrum * kernel_transfer(kernel, full), s=full)
        return image[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]

    def _kernel_px(self, defocus_um: float) -> int:
        """Even width of a kernel that holds the blur and some rings; a blur wider than the field wraps."""
        radius_px = self._instrument.blur_radius_um(defocus_um) / self._instrument.pixel_um
        field_px = 2 * ((min(self._shape) + 2 * _MARGIN_PX) // 2)
        return min(2 * math.ceil(1.4 * radius_px + 12), field_px)


class Sensor:
    """What a camera makes of the light: noise, wells that grow with the binning, counts.

    Args:
        configured_ms: the exposure at which the scene's electrons are counted.
        bit_depth: of the counts.
    """

    def __init__(self, scene: SceneConfig, configured_ms: float, bit_depth: int) -> None:
        self._scene = scene
        self._configured_ms = configured_ms
        self._bit_depth = bit_depth
        self.seed_noise(scene.seed)

    def seed_noise(self, seed: int) -> None:
        """Begin the noise of all further frames anew."""
        self._random = torch.Generator().manual_seed(seed)

    def expose(self, light: Tensor, exposure_ms: float, binning: int) -> Tensor:
        """Counts of the binned pixels, (y, x); they are as bright as unbinned ones."""
        scene, full_scale = self._scene, 2**self._bit_depth - 1
        electrons = scene.electrons * light + scene.background_electrons
        electrons = electrons * (exposure_ms / self._configured_ms)
        camera = Camera(
            bit_depth=self._bit_depth,
            full_well=_FULL_WELL_ELECTRONS * binning**2,
            read_noise=scene.read_noise_electrons,
            offset=full_scale * _OFFSET_SHARE,
        )
        binned = torch.nn.functional.avg_pool2d(electrons[None], binning)[0] * binning**2
        return camera.expose(binned, self._random)


def instrument_of(objective: ObjectiveConfig, camera: CameraConfig) -> Instrument:
    """The optics in front of the sensor's own pixels; binning comes after.

    Raises:
        ConfigError: the optics are not given.
    """
    instrument = Instrument.from_config(objective, camera.model_copy(update={"binning": 1}))
    if instrument is None:
        raise ConfigError("a simulated picture needs objective.na and objective.magnification")
    return instrument


def _plane(shape: tuple[int, int], rise_y: float, rise_x: float) -> Tensor:
    """A plane through 0 in the centre that rises by so much from the first row, or column, to the last."""
    y = torch.linspace(-0.5, 0.5, shape[0])
    x = torch.linspace(-0.5, 0.5, shape[1])
    return rise_y * y[:, None] + rise_x * x[None, :]
