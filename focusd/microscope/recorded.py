"""A through-focus stack on disk plays the microscope: try focusd on your own data before it moves a stage."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from focusd.config import CameraConfig, RecordedConfig, RigConfig
from focusd.errors import StackError, TravelLimitError
from focusd.focus.frame import Frame
from focusd.microscope.pixels import full_scale

_UM = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}
"""OME's units of length that a microscope's z comes in, in µm."""

_EDGE_UM = 1e-6
"""Rounding allowed at the ends of a stack."""


@dataclass(frozen=True)
class Stack:
    """A through-focus stack.

    Attributes:
        pixels: (z, y, x), uint8 or uint16.
        z_um: (z,), strictly increasing.
        pixel_um: size of a pixel in the sample, where the file says.
    """

    pixels: NDArray[np.unsignedinteger]
    z_um: NDArray[np.float64]
    pixel_um: float | None


def stack_files(folder: Path) -> list[Path]:
    """The TIFF files in a folder, by name."""
    return sorted([*folder.glob("*.tif"), *folder.glob("*.tiff")])


def read_stack(path: Path, z_step_um: float | None = None) -> Stack:
    """Read a TIFF stack; its planes are sorted by z, and of planes at the same z the first is kept.

    Args:
        z_step_um: distance of the planes; it overrules what the file says. None: the file's own PositionZ of
            each plane (OME), or else its PhysicalSizeZ.

    Raises:
        StackError: unreadable, not one stack of grey 8 or 16 bit planes, or without z positions.
    """
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            pixels, axes, ome = series.asarray(), series.axes, file.ome_metadata
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
        raise StackError(f"{path}: cannot be read as a TIFF stack: {error}") from error
    if pixels.ndim != 3 or axes[1:] != "YX" or axes[0] == "S":
        raise StackError(
            f"{path}: has the axes {axes}; save one grey channel and one time as a stack of planes"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise StackError(f"{path}: has {pixels.dtype} pixels; save it as unsigned 8 or 16 bit")
    image = _ome_image(path, ome)
    return _sorted(
        path, pixels, _z_um(path, len(pixels), image, z_step_um), _length_um(image, "PhysicalSizeX")
    )


def _sorted(
    path: Path, pixels: NDArray[np.unsignedinteger], z_um: NDArray[np.float64], pixel_um: float | None
) -> Stack:
    if not np.isfinite(z_um).all():
        raise StackError(f"{path}: the z of some planes is no number; give z_step_um, their distance in µm")
    z_um, order = np.unique(z_um, return_index=True)
    if len(z_um) < 2:
        raise StackError(
            f"{path}: all its planes are at one z; give z_step_um, their distance in µm, if that is wrong"
        )
    return Stack(pixels[order], z_um, pixel_um)


def _z_um(
    path: Path, planes: int, image: ElementTree.Element, z_step_um: float | None
) -> NDArray[np.float64]:
    """The z of each plane in the file's order."""
    if z_step_um is not None:
        return np.arange(planes, dtype=np.float64) * z_step_um
    positions = _plane_positions_um(image)
    if len(positions) == planes:
        return np.array(positions)
    step_um = _length_um(image, "PhysicalSizeZ")
    if step_um is None:
        raise StackError(f"{path}: does not say the z of its planes; give z_step_um, their distance in µm")
    return np.arange(planes, dtype=np.float64) * step_um


def _plane_positions_um(image: ElementTree.Element) -> list[float]:
    """PositionZ of the planes, ordered along the one axis on which they differ; empty if one is missing."""
    found = []
    for plane in image.iterfind(".//{*}Plane"):
        unit = _UM.get(plane.get("PositionZUnit", "µm"))
        if plane.get("PositionZ") is None or unit is None:
            return []
        index = sum(int(plane.get(axis, "0")) for axis in ("TheZ", "TheT", "TheC"))
        found.append((index, float(plane.attrib["PositionZ"]) * unit))
    return [z_um for _, z_um in sorted(found)]


def _length_um(image: ElementTree.Element, name: str) -> float | None:
    for pixels in image.iterfind(".//{*}Pixels"):
        unit = _UM.get(pixels.get(f"{name}Unit", "µm"))
        if pixels.get(name) is not None and unit is not None:
            return float(pixels.attrib[name]) * unit
    return None


def _ome_image(path: Path, ome: str | None) -> ElementTree.Element:
    """The file's first image, whatever the version of the OME namespace; an empty one if it has no OME-XML."""
    try:
        image = None if ome is None else ElementTree.fromstring(ome).find("{*}Image")
    except ElementTree.ParseError as error:
        raise StackError(f"{path}: its OME-XML is damaged ({error}); save the stack anew") from error
    return ElementTree.Element("Image") if image is None else image


class RecordedMicroscope:
    """Plays a stack: an image between two planes is interpolated linearly. Nothing takes time."""

    def __init__(self, config: RecordedConfig, camera: CameraConfig) -> None:
        """Read the stack that a configuration names.

        Raises:
            StackError: as `read_stack`, or start_z_um lies outside the stack.
            ConfigError: camera.bit_depth is more than the stack's pixels have.
        """
        self.camera_name = camera.name
        self._stack = read_stack(config.stack, config.z_step_um)
        dtype = self._stack.pixels.dtype
        self._full_scale = full_scale(dtype, camera.bit_depth or 8 * dtype.itemsize)
        self._exposure_ms = camera.exposure_ms
        self._sequence = 0
        self._z_um = self._start_um(config)

    def _start_um(self, config: RecordedConfig) -> float:
        low, high = float(self._stack.z_um[0]), float(self._stack.z_um[-1])
        start_um = (low + high) / 2 if config.start_z_um is None else config.start_z_um
        if not low <= start_um <= high:
            raise StackError(
                f"{config.stack}: start_z_um {start_um:g} lies outside the stack, {low:g} … {high:g} µm"
            )
        return start_um

    def snap(self) -> Frame:
        """The image at the present z."""
        self._sequence += 1
        return Frame(
            self._image(self._z_um),
            self._z_um,
            self._exposure_ms,
            time.perf_counter(),
            self._sequence,
            self._full_scale,
        )

    def end_sequence(self) -> None:
        """A stack does not stream."""

    def _image(self, z_um: float) -> NDArray[np.unsignedinteger]:
        """(y, x) pixels between the two nearest planes, in the stack's own type."""
        planes, z = self._stack.pixels, self._stack.z_um
        above = int(np.clip(np.searchsorted(z, z_um), 1, len(z) - 1))
        share = np.float32((z_um - z[above - 1]) / (z[above] - z[above - 1]))
        mixed = (1 - share) * planes[above - 1] + share * planes[above]
        pixels: NDArray[np.unsignedinteger] = np.rint(mixed).astype(planes.dtype)
        return pixels

    def position_um(self) -> float:
        """Where the last move went."""
        return self._z_um

    def move_to(self, z_um: float) -> None:
        """Go to a z inside the stack.

        Raises:
            TravelLimitError: the stack does not reach there.
        """
        low, high = float(self._stack.z_um[0]), float(self._stack.z_um[-1])
        if not low - _EDGE_UM <= z_um <= high + _EDGE_UM:
            raise TravelLimitError(
                f"z = {z_um:.3f} µm is outside the recorded stack, which spans {low:.3f} … {high:.3f} µm",
                z_um=z_um,
                min_um=low,
                max_um=high,
            )
        self._z_um = min(max(z_um, low), high)

    def stop(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing to release."""


def open_recorded(config: RigConfig) -> RecordedMicroscope:
    """Read the stack that a configuration names.

    Raises:
        ConfigError, StackError: as `RecordedMicroscope`.
    """
    assert isinstance(config.microscope, RecordedConfig), "the factory chose by kind"
    return RecordedMicroscope(config.microscope, config.camera)
