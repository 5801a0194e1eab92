"""Cameras with the faults of real ones: from light on the pixels to the numbers that a program receives."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage

Light = NDArray[np.float32]
Pixels = NDArray[np.unsignedinteger]

RED, GREEN, BLUE = range(3)
SENSITIVITY = (0.6, 1.0, 0.5)
"""Of the coloured pixels, for white light."""

_BRIGHT = 2.5
"""Full scale over the electrons of the brightest usual place."""
_READ_NOISE, _OFFSET = 1.5, 0.002
_CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_SQUARE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4

_AT_GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
)
_ALONG = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
)
_ACROSS = np.array(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
)


@dataclass(frozen=True)
class Camera:
    """What a camera does to an image, besides noise of photons and readout.

    Attributes:
        electrons: where the light is 1.
        colour: `` for a grey camera, `raw` for the mosaic itself, `bilinear` or `malvar` for what is made of it.
        channel: of a colour image what the program is given: `green`, `grey`, or `all` of it.
        bits: 8 or 16.
        gamma: exponent of the counts; 1: linear.
        jpeg: quality; 0: not compressed.
        smooth_px: σ of a smoothing filter.
        median: side of a median filter; 0: none.
        sharpen: strength of an unsharp mask.
        pattern: standard deviation of the pixels' gain; their offsets differ by as many thousand electrons.
        specks, speck_depth: of dust on the sensor, and the light that a speck takes.
        dirt: soft dust all over, as a share of the light.
        bands: amplitude of the light that flickers as rows are read.
        shading: by which the corners are darker; a part of it wanders from frame to frame.
        hot: pixels that are always bright.
    """

    electrons: float = 8000.0
    colour: str = ""
    channel: str = "green"
    bits: int = 16
    gamma: float = 1.0
    jpeg: int = 0
    smooth_px: float = 0.0
    median: int = 0
    sharpen: float = 0.0
    pattern: float = 0.0
    specks: int = 0
    speck_depth: float = 0.5
    dirt: float = 0.0
    bands: float = 0.0
    shading: float = 0.0
    hot: int = 0

    @property
    def channels(self) -> int:
        """How many colours of light it needs."""
        return 3 if self.colour else 1


class Sensor:
    """One camera, whose dust and pixels stay as they are.

    Args:
        seed: of its faults.
        noise: of its frames.
    """

    def __init__(self, camera: Camera, shape: tuple[int, int], seed: int, noise: np.random.Generator) -> None:
        self._camera = camera
        self._noise = noise
        rng = np.random.default_rng((seed, 77))
        self._gain = 1 + camera.pattern * rng.standard_normal(shape).astype(np.float32)
        offsets = rng.standard_normal(shape) + rng.standard_normal((1, shape[1]))
        self._offset = (1000 * camera.pattern * offsets).astype(np.float32)
        self._dust = _dust(camera, shape, rng)
        self._hot = rng.integers(0, shape, (camera.hot, 2))
        self._hot_light = rng.uniform(0.2, 1.0, camera.hot) * camera.electrons

    def expose(self, light: list[Light]) -> Pixels:
        """Return what the program receives of one exposure; one light a channel."""
        camera = self._camera
        shade = self._dust * self._shade(light[0].shape)
        if not camera.colour:
            return self._written(self._developed(self._read(light[0] * shade)))
        mosaic = self._read(_mosaic(light) * shade)
        if camera.colour == "raw":
            return self._written(mosaic)
        colours = demosaiced(mosaic, camera.colour)
        white = [colours[of] / SENSITIVITY[of] for of in range(3)]
        written = self._written_colours(np.stack([self._developed(each) for each in white], -1))
        if camera.channel == "all":
            return written
        if camera.channel == "green":
            return np.asarray(np.ascontiguousarray(written[..., GREEN]))
        weighed = written.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.asarray((weighed + 0.5).astype(written.dtype))

    def _read(self, light: Light) -> Light:
        """Return electrons, noise and the sensor's pattern with them, over the full scale."""
        camera = self._camera
        electrons = self._noise.poisson(np.maximum(light * camera.electrons * self._gain, 0))
        noisy = electrons + self._offset + _READ_NOISE * self._noise.standard_normal(light.shape, np.float32)
        noisy[tuple(self._hot.T)] += self._hot_light
        return np.asarray(noisy / (_BRIGHT * camera.electrons) + _OFFSET, np.float32)

    def _developed(self, image: Light) -> Light:
        """Return what the filters in the camera make of it."""
        camera = self._camera
        if camera.median:
            image = ndimage.median_filter(image, camera.median)
        if camera.smooth_px:
            image = ndimage.gaussian_filter(image, camera.smooth_px)
        if camera.sharpen:
            image = image + camera.sharpen * (image - ndimage.gaussian_filter(image, 1.0))
        return image.clip(0, 1) ** np.float32(camera.gamma) if camera.gamma != 1 else image

    def _shade(self, shape: tuple[int, ...]) -> Light:
        """Return what reaches the sensor in this exposure, as a share."""
        camera = self._camera
        shade = np.ones(shape, np.float32)
        if camera.bands:
            rows = np.arange(shape[0]) / self._noise.uniform(60, 120) + self._noise.uniform()
            shade *= (1 + camera.bands * np.sin(2 * np.pi * rows))[:, None].astype(np.float32)
        if camera.shading:
            centre = np.array(shape) * (0.5 + self._noise.uniform(-0.15, 0.15, 2))
            y, x = (np.arange(n) - c for n, c in zip(shape, centre, strict=True))
            square = (y[:, None] ** 2 + x**2) / (math.hypot(*shape) / 2) ** 2
            shade *= (1 - camera.shading * square).astype(np.float32)
        return shade

    def _written(self, image: Light) -> Pixels:
        levels = 2**self._camera.bits - 1
        counts = (image * levels + 0.5).clip(0, levels)
        if self._camera.bits > 8:
            return np.asarray(counts.astype(np.uint16))
        return _compressed(counts.astype(np.uint8), self._camera.jpeg)

    def _written_colours(self, image: Light) -> Pixels:
        return self._written(image)


def _compressed(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    if not quality:
        return pixels
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


def _mosaic(light: list[Light]) -> Light:
    """Return what each pixel sees behind its filter: red, green; green, blue."""
    seen = light[GREEN] * np.float32(SENSITIVITY[GREEN])
    seen[::2, ::2] = light[RED][::2, ::2] * SENSITIVITY[RED]
    seen[1::2, 1::2] = light[BLUE][1::2, 1::2] * SENSITIVITY[BLUE]
    return seen


def demosaiced(mosaic: Light, method: str) -> list[Light]:
    """Return red, green and blue of a mosaic, `bilinear` or as Malvar, He and Cutler (2004) make them."""
    red, blue = np.zeros_like(mosaic), np.zeros_like(mosaic)
    red[::2, ::2], blue[1::2, 1::2] = mosaic[::2, ::2], mosaic[1::2, 1::2]
    green = mosaic - red - blue
    if method == "bilinear":
        return [_filtered(each, of) for each, of in ((red, _SQUARE), (green, _CROSS), (blue, _SQUARE))]
    at_green = _filtered(mosaic, _AT_GREEN / 8)
    along, across = _filtered(mosaic, _ALONG / 8), _filtered(mosaic, _ALONG.T / 8)
    opposite = _filtered(mosaic, _ACROSS / 8)
    green = mosaic.copy()
    green[::2, ::2], green[1::2, 1::2] = at_green[::2, ::2], at_green[1::2, 1::2]
    red, blue = mosaic.copy(), mosaic.copy()
    red[::2, 1::2], red[1::2, ::2], red[1::2, 1::2] = (
        along[::2, 1::2],
        across[1::2, ::2],
        opposite[1::2, 1::2],
    )
    blue[1::2, ::2], blue[::2, 1::2], blue[::2, ::2] = along[1::2, ::2], across[::2, 1::2], opposite[::2, ::2]
    return [red, green, blue]


def _filtered(image: Light, kernel: NDArray[np.floating]) -> Light:
    return np.asarray(ndimage.convolve(image, kernel.astype(np.float32), mode="mirror"))


def _dust(camera: Camera, shape: tuple[int, int], rng: np.random.Generator) -> Light:
    """Return the light that the dust on the sensor lets through."""
    through = np.ones(shape, np.float32)
    y, x = np.indices(shape, np.float32)
    for _ in range(camera.specks):
        centre, radius = rng.uniform((0, 0), shape), rng.uniform(1.5, 6.0)
        distance = np.hypot(y - centre[0], x - centre[1])
        depth = camera.speck_depth * rng.uniform(0.4, 1.0)
        through *= 1 - depth * np.clip((radius - distance) / 1.5 + 0.5, 0, 1).astype(np.float32)
    if camera.dirt:
        grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5, mode="wrap")
        through *= (1 + camera.dirt * grain / grain.std()).astype(np.float32)
    return through
