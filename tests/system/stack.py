"""A through-focus stack as a microscope would save it: OME-TIFF with the z of each plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

from focusd.optics.imaging import Camera, blur
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf

SIZE_PX = 256
_MARGIN_PX = 64
_TILES = 500


TEN = Instrument(magnification=10.0, na=0.3)


def write_stack(
    path: Path, z_um: list[float], focus_um: float = 0.0, seed: int = 1, instrument: Instrument = TEN
) -> Path:
    """Write a stack of paper tiles, in focus at `focus_um`."""
    noise = torch.Generator().manual_seed(seed)
    scene = 8000 * paper_tiles(SIZE_PX + 2 * _MARGIN_PX, seed) + 300
    planes = [Camera().expose(_image(scene, instrument, z - focus_um), noise).numpy() for z in z_um]
    positions = {"PositionZ": z_um, "PositionZUnit": ["µm"] * len(z_um)}
    metadata = {"axes": "ZYX", "Plane": positions, "PhysicalSizeX": instrument.pixel_um}
    tifffile.imwrite(path, np.stack(planes).astype(np.uint16), ome=True, metadata=metadata)
    return path


def paper_tiles(size_px: int, seed: int) -> Tensor:
    """Overlapping rectangles of every size and brightness, 0 … 1."""
    random = np.random.default_rng(seed)
    image = np.zeros((size_px, size_px), np.float32)
    for y, x in random.integers(0, size_px, (_TILES, 2)):
        height, width = (3 * 2 ** random.uniform(0, 4, 2)).astype(int)
        image[y : y + height, x : x + width] = random.uniform()
    return torch.from_numpy(image)


def _image(scene: Tensor, instrument: Instrument, defocus_um: float) -> Tensor:
    kernel_px = 2 * int(1.4 * instrument.blur_radius_um(defocus_um) / instrument.pixel_um + 12)
    psf = torch.fft.ifftshift(camera_psf(instrument, defocus_um, kernel_px)).to(torch.float32)
    image: Tensor = blur(scene[None], psf[None])[0]
    return image[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
