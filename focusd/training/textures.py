"""Real textures: read, judged by their measured sharpness, shrunk, split by source.

A soft texture cannot be told from a defocused one, so each image is shrunk until its finest detail reaches
the pixel, or left out. Shrinking by two also hides JPEG blocks and the blur of the camera that took it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import structlog
import tifffile
from numpy.typing import NDArray

log = structlog.get_logger(__name__)

Image = NDArray[np.float32]

Role = Literal["train", "tune", "report"]
"""What a texture serves: training, choices made by looking (σ's correction, early curves), or reported figures."""

TUNE_SOURCES = ("fluo_360x360",)
REPORT_SOURCES = ("skimage016", "AS_")
"""Sources (folders or prefixes of file names) that are never trained on."""
RELATIVES_OF_TRAINED = ("noisy", "nup")
"""In the mixed folder: variants of images that are trained on, under other names."""

MIN_EXTENT_PX = 80
SHARPNESS_FLOOR = 0.006
"""Least share of the variance above a quarter of the sampling frequency."""

_TIFF = {".tif", ".tiff"}
_SUFFIXES = {".png", ".jpg", ".jpeg", *_TIFF}


@dataclass(frozen=True)
class Texture:
    """An object to image: values 0…1, (y, x), and the file that it came from."""

    image: Image
    name: str
    role: Role


def read_textures(folder: Path) -> list[Texture]:
    """All usable textures below a folder, in the order of their names."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    return [texture for path in files for texture in _read(path, folder)]


def _read(path: Path, folder: Path) -> Iterator[Texture]:
    """The file's texture, unless it is soft or small, or no image."""
    try:
        pixels = _pixels(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        log.warning("a texture is left out: it cannot be read", file=str(path), why=str(error))
        return
    image = sharpened(_grey(pixels))
    if image is not None:
        name = path.relative_to(folder).as_posix()
        yield Texture(image, name, role_of(name))


def _pixels(path: Path) -> NDArray[np.generic]:
    """As the file has them."""
    if path.suffix.lower() in _TIFF:
        return np.asarray(tifffile.imread(path))
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)


def role_of(name: str) -> Role:
    """What a texture serves, by its source: whole sources, and the mixed folder by its files' names."""
    if name.startswith("neubias_xy/"):
        stem = Path(name).stem.split("__")[-1][:8]  # variants of one image share the start of the name
        if zlib.crc32(stem.encode()) % 2:
            return "train"
        return "tune" if any(word in name for word in RELATIVES_OF_TRAINED) else "report"
    if any(f"/{source}" in f"/{name}" for source in REPORT_SOURCES):
        return "report"
    return "tune" if any(f"/{source}" in f"/{name}" for source in TUNE_SOURCES) else "train"


def sharpened(image: Image) -> Image | None:
    """The image shrunk 2×, 3× or 4×, whichever first makes it sharp to the pixel; None if none does."""
    for factor in (2, 3, 4):
        small = _shrunk(image, factor)
        if min(small.shape) < MIN_EXTENT_PX:
            return None
        if fine_share(small) >= SHARPNESS_FLOOR:
            return small
    return None


def _shrunk(image: Image, factor: int) -> Image:
    """Averaged over blocks; incomplete ones at the edge are left out."""
    rows, columns = (n // factor for n in image.shape)
    blocks = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    return np.asarray(blocks.mean((1, 3), dtype=np.float32))


def fine_share(image: Image) -> float:
    """Share of the variance at frequencies above 0.25 of the sampling frequency."""
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])[None, :]
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :])
    return float(power[frequency > 0.25].sum() / max(power.sum(), 1e-12))


def periodic(image: Image, size: int, rng: np.random.Generator) -> Image:
    """A periodic (size, size) object: a random crop of a texture, turned at random, and its mirror images."""
    image = np.rot90(image, int(rng.integers(4)))
    image = image[:, ::-1] if rng.random() < 0.5 else image
    half = size // 2
    crop = image[_crop(image.shape[0], half, rng), _crop(image.shape[1], half, rng)]
    padded = np.pad(crop, [(0, half - crop.shape[0]), (0, half - crop.shape[1])], mode="symmetric")
    mirrored = np.block([[padded, padded[:, ::-1]], [padded[::-1], padded[::-1, ::-1]]])
    shift = rng.integers(0, size, 2)
    return np.roll(mirrored, tuple(shift), (0, 1)).astype(np.float32)


def _crop(extent: int, wanted: int, rng: np.random.Generator) -> slice:
    """A random stretch of the wanted length, or all there is."""
    start = int(rng.integers(0, max(0, extent - wanted) + 1))
    return slice(start, start + min(wanted, extent))


def _grey(image: NDArray[np.generic]) -> Image:
    """One channel, scaled to 0…1 between its extremes: the mean of three or four colours, or the first of many."""
    if image.ndim == 3 and image.shape[-1] not in (3, 4) and image.shape[0] in (3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        image = image[..., :3].mean(-1)
    while image.ndim > 2:
        image = image[0]
    grey = image.astype(np.float32)
    low, high = np.quantile(grey, [0.0005, 0.9995])
    scaled: Image = ((grey - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float32)
    return scaled
