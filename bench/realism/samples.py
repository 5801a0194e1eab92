"""What lies under the microscope: textures on a grid finer than the pixels, beads, and both in depth.

Reporting and tuning take their textures from disjoint sources; the calibration's texture is none of those searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray

from bench.synthetic import DEFAULT_TEXTURES
from focusd.microscope.samples import SAMPLES
from focusd.training.pool import FIRST_SEED
from focusd.training.procedural import procedural
from focusd.training.textures import Role, periodic, role_of, sharpened

FIELD_PX = 512
PADDED_PX = 640
"""Side of the periodic field of which a frame is cut: no frame shows its own opposite edge."""
FINER = 2
"""Samples of the object along a pixel of the camera."""

_OBJECT_PX = PADDED_PX * FINER
_DRAWN = 24
"""Procedural textures, besides the real ones."""
_CALIBRATED_ON = ("gravel", "brick", "grass")
_LEAST_SD = 0.04
_TRIES = 6
_LAYERS_PER_DOF = 4
_LEAST_LAYERS = 5
_BEAD_DENSITY = 1 / 8000
"""Per pixel of the camera."""

Image = NDArray[np.float32]
Layers = list[tuple[float, Image]]
"""Depths in µm, and what emits there."""


@dataclass(frozen=True)
class Sample:
    """What is looked at.

    Attributes:
        kind: `texture` or `beads`.
        contrast: of the texture, peak to peak, over its mean; None: as it is, on a dark ground.
        background: light that comes from nothing in the field, 1 being the brightest place.
        depth_dof: over which it extends, in depths of field; 0: a plane.
        layers: so many, at both ends of the depth and between; None: as many as hide that they are layers.
    """

    kind: str = "texture"
    contrast: float | None = None
    background: float = 0.05
    depth_dof: float = 0.0
    layers: int | None = None


class Textures:
    """Objects to choose from.

    Args:
        is_tuning: those that the estimator may be tuned with, else those of the report.
    """

    def __init__(self, *, is_tuning: bool) -> None:
        self._searched, self._calibrated = _sources(is_tuning)

    def draw(self, rng: np.random.Generator, sample: Sample, *, for_calibration: bool = False) -> Image:
        """Return what one layer emits, (1536, 1536), periodic, about 0…1."""
        if sample.kind == "beads":
            return _beads(rng, 1.0)
        sources = self._calibrated if for_calibration else self._searched
        return self._one(sources[int(rng.integers(len(sources)))], rng, sample.contrast)

    def layers(
        self, rng: np.random.Generator, sample: Sample, dof_um: float, *, for_calibration: bool = False
    ) -> Layers:
        """Return a sample in depth; the mean depth of what emits is 0."""
        depth_um = sample.depth_dof * dof_um
        if not depth_um:
            return [(0.0, self.draw(rng, sample, for_calibration=for_calibration) + sample.background)]
        count = sample.layers or max(_LEAST_LAYERS, round(_LAYERS_PER_DOF * sample.depth_dof) + 1)
        z_um = np.linspace(-depth_um / 2, depth_um / 2, count)
        if sample.kind == "beads":
            images = [_beads(rng, 1 / count) for _ in z_um]
        else:
            source = self._searched[int(rng.integers(len(self._searched)))]
            images = [self._one(source, rng, sample.contrast) / np.float32(count) for _ in z_um]
        light = np.array([float(image.mean()) for image in images])
        z_um -= (light * z_um).sum() / light.sum()
        share = sample.background / count
        return [(float(z), image + np.float32(share)) for z, image in zip(z_um, images, strict=True)]

    def _one(self, source: Callable[[], Image], rng: np.random.Generator, contrast: float | None) -> Image:
        """Draw some pieces, most of which show something, and take the one of most contrast at least."""
        coarser = int(rng.integers(1, FINER + 1))
        image = periodic(source(), _OBJECT_PX // coarser, rng)
        for _ in range(_TRIES):
            if image.std() >= _LEAST_SD:
                break
            image = max(image, periodic(source(), _OBJECT_PX // coarser, rng), key=np.std)
        image = image * np.float32(max(1.0, _LEAST_SD / max(float(image.std()), 1e-3)))
        image = np.kron(image, np.ones((coarser, coarser), np.float32))
        if contrast is None:
            return image
        return np.asarray(0.5 * (1 + contrast * (image - image.mean())), np.float32)


def _beads(rng: np.random.Generator, share: float) -> Image:
    """Return points and discs up to 2 px wide, of various light; so large a share of the usual number."""
    image = np.zeros((_OBJECT_PX, _OBJECT_PX), np.float32)
    for _ in range(max(1, rng.poisson(PADDED_PX**2 * _BEAD_DENSITY * share))):
        radius, centre = rng.uniform(0.8, 2.0) * FINER / 2, rng.uniform(0, _OBJECT_PX, 2)
        reach = np.arange(-4, 5)
        rows, columns = (int(c) + reach for c in centre)
        distance = np.hypot(rows[:, None] - centre[0], columns - centre[1])
        disc = np.clip(radius - distance + 0.5, 0, 1) * rng.uniform(0.3, 1.0) * 4
        image[np.ix_(rows % _OBJECT_PX, columns % _OBJECT_PX)] += disc.astype(np.float32)
    return image


@cache
def _sources(is_tuning: bool) -> tuple[list[Callable[[], Image]], list[Callable[[], Image]]]:
    """Return what is searched, and what is calibrated on."""
    role: Role = "tune" if is_tuning else "report"
    first = FIRST_SEED[role] + 5000  # other benches take those before
    drawn: list[Callable[[], Image]] = [partial(_procedural, first + k) for k in range(_DRAWN)]
    real = [partial(_read, path) for path in _files(role)]
    if is_tuning:
        return [*drawn[3:], *real], drawn[:3]
    photographs = ["camera", "coins", "moon", "page", "stars", "tissue"]
    seen = [partial(_photograph, name) for name in photographs]
    return [*drawn, *real, *seen], [partial(_photograph, name) for name in _CALIBRATED_ON]


@cache
def _files(role: str) -> list[Path]:
    """Return the project's textures of a role that are sharp and large enough; none in a fresh clone."""
    folder = DEFAULT_TEXTURES
    if not folder.is_dir():
        return []
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif"})
    chosen = [p for p in paths if role_of(p.relative_to(folder).as_posix()) == role]
    chosen = [p for p in chosen if not any(name in p.name for name in _CALIBRATED_ON)]
    return [p for p in chosen if _readable(p) is not None]


def _read(path: Path) -> Image:
    image = _readable(path)
    assert image is not None
    return image


@cache
def _readable(path: Path) -> Image | None:
    if path.suffix.lower() == ".tif":
        pixels = np.asarray(tifffile.imread(path), np.float32)
        pixels = pixels.reshape(-1, *pixels.shape[-2:])[0]
    else:
        with PIL.Image.open(path) as opened:
            converted = opened.convert("RGB") if opened.mode in ("P", "RGBA", "RGB") else opened
            pixels = np.asarray(converted, np.float32)
        pixels = pixels.mean(-1) if pixels.ndim == 3 else pixels
    low, high = np.quantile(pixels, (0.0005, 0.9995))
    return sharpened(((pixels - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float32))


@cache
def _photograph(name: str) -> Image:
    return SAMPLES[name]((512, 512), 0)


@cache
def _procedural(seed: int) -> Image:
    return procedural(seed, PADDED_PX)
