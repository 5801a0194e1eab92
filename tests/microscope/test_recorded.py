"""Stacks on disk: what can be read, what is refused, and the images between the planes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from focusd.config import RigConfig
from focusd.errors import ConfigError, StackError, TravelLimitError
from focusd.microscope.factory import open_microscope
from focusd.microscope.guard import GuardedStage
from focusd.microscope.protocol import Microscope
from focusd.microscope.recorded import RecordedMicroscope, read_stack

STACKS = Path(__file__).parents[3] / "shared" / "data" / "stacks"


def planes(values: list[int], dtype: str = "uint16") -> NDArray[Any]:
    """One flat, non-square plane per value."""
    return np.stack([np.full((5, 7), value, dtype) for value in values])


def write_ome(path: Path, pixels: NDArray[Any], z_um: list[float], **metadata: Any) -> Path:
    positions = {"PositionZ": z_um, "PositionZUnit": ["µm"] * len(z_um)}
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZYX", "Plane": positions, **metadata})
    return path


def rig(stack: Path, camera: dict[str, Any] | None = None, **microscope: Any) -> RigConfig:
    return RigConfig.model_validate(
        {
            "objective": {"name": "10x", "magnification": 10, "na": 0.3},
            "camera": {"pixel_um": 6.5, **(camera or {})},
            "stage": {"min_um": -100, "max_um": 100, "towards_sample": "increasing"},
            "microscope": {"kind": "recorded", "stack": stack, **microscope},
        }
    )


def value_at(microscope: Microscope, z_um: float) -> int:
    microscope.move_to(z_um)
    frame = microscope.snap()
    assert frame.z_um == z_um
    return int(frame.pixels[2, 3])


def test_planes_are_sorted_and_interpolated_in_their_own_type(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([300, 100, 60000]), [4.0, -2.0, 10.0])
    microscope = open_microscope(rig(stack))

    assert [value_at(microscope, z) for z in (-2.0, 1.0, 4.0, 7.0, 10.0)] == [100, 200, 300, 30150, 60000]
    frame = microscope.snap()
    assert (str(frame.pixels.dtype), frame.pixels.shape, frame.full_scale) == ("uint16", (5, 7), 65535)
    assert frame.sequence == 6


def test_eight_bit_stays_eight_bit(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([200, 255], "uint8"), [0.0, 1.0])
    microscope = open_microscope(rig(stack))

    assert value_at(microscope, 1.0) == 255
    assert microscope.snap().full_scale == 255
    assert microscope.snap().saturated_fraction == 1


def test_of_planes_at_one_z_the_first_is_kept(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", planes([1, 2, 3, 4]), [0.0, 5.0, 5.0, 9.0])

    stack = read_stack(path)

    assert stack.z_um.tolist() == [0, 5, 9]
    assert stack.pixels[:, 0, 0].tolist() == [1, 2, 4]


def test_units_and_pixel_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "ZYX",
        "Plane": {"PositionZ": [0.0, 500.0], "PositionZUnit": ["nm", "nm"]},
        "PhysicalSizeX": 286.0,
        "PhysicalSizeXUnit": "nm",
    }
    tifffile.imwrite(path, planes([1, 2]), ome=True, metadata=metadata)

    stack = read_stack(path)

    assert stack.z_um.tolist() == [0, 0.5]
    assert stack.pixel_um == pytest.approx(0.286)


def test_physical_size_z_stands_in_for_positions(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, planes([1, 2, 3]), ome=True, metadata={"axes": "ZYX", "PhysicalSizeZ": 2.5})

    assert read_stack(path).z_um.tolist() == [0, 2.5, 5]


def test_plain_tiff_needs_a_z_step(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, planes([0, 10, 20]), photometric="minisblack")

    with pytest.raises(StackError, match=r"plain\.tif: does not say the z .* give z_step_um"):
        open_microscope(rig(path))

    assert value_at(open_microscope(rig(path, z_step_um=2.0)), 3.0) == 15


def test_z_outside_the_stack_is_refused(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([1, 2]), [-3.0, 5.0])
    microscope = open_microscope(rig(stack))

    with pytest.raises(
        TravelLimitError, match=r"outside the recorded stack, which spans -3\.000 … 5\.000 µm"
    ):
        microscope.move_to(5.1)
    with pytest.raises(TravelLimitError):
        microscope.move_to(float("nan"))
    assert microscope.position_um() == 1.0


def test_starts_in_the_middle_or_where_it_is_told(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([1, 2]), [-3.0, 5.0])

    assert open_microscope(rig(stack)).position_um() == 1.0
    assert open_microscope(rig(stack, start_z_um=-2.5)).position_um() == -2.5
    with pytest.raises(StackError, match="start_z_um 6 lies outside the stack"):
        open_microscope(rig(stack, start_z_um=6.0))


def test_bit_depth_below_the_type_s_sets_the_full_scale(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([1, 2]), [0.0, 1.0])
    assert open_microscope(rig(stack, {"bit_depth": 12})).snap().full_scale == 4095

    narrow = write_ome(tmp_path / "b.ome.tif", planes([1, 2], "uint8"), [0.0, 1.0])
    with pytest.raises(ConfigError, match=r"camera\.bit_depth is 12"):
        open_microscope(rig(narrow, {"bit_depth": 12}))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (planes([1]), "axes YX"),
        (np.zeros((3, 5, 7), np.float32), "float32 pixels"),
        (np.zeros((3, 5, 7), np.int16), "int16 pixels"),
        (np.zeros((4, 5, 7, 3), np.uint8), "axes .*one grey channel"),
    ],
)
def test_what_is_no_grey_stack_is_refused(tmp_path: Path, pixels: NDArray[Any], message: str) -> None:
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, pixels.squeeze(), photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")

    with pytest.raises(StackError, match=message):
        read_stack(path, z_step_um=1.0)


def test_one_z_for_all_planes_is_refused(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", planes([1, 2]), [7.0, 7.0])

    with pytest.raises(StackError, match="all its planes are at one z"):
        read_stack(path)


@pytest.mark.parametrize("content", [b"", b"no TIFF at all", b"II*\0" + bytes(40)])
def test_what_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.tif"
    path.write_bytes(content)

    with pytest.raises(StackError, match=r"bad\.tif: cannot be read"):
        read_stack(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", planes([1, 2, 3]), [0.0, 1.0, 2.0])
    path.write_bytes(path.read_bytes()[:-300])

    with pytest.raises(StackError, match=r"a\.ome\.tif"):
        read_stack(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"absent\.tif: cannot be read"):
        read_stack(tmp_path / "absent.tif")


def test_the_guard_stands_before_a_recorded_stack_too(tmp_path: Path) -> None:
    stack = write_ome(tmp_path / "a.ome.tif", planes([1, 2]), [-200.0, 200.0])
    config = rig(stack)
    guarded = GuardedStage(open_microscope(config), config.stage)

    with pytest.raises(TravelLimitError, match=r"stage\.max_um"):
        guarded.move_to(150)
    assert guarded.move_to(-100) == -100


@pytest.mark.skipif(not STACKS.is_dir(), reason="needs ../shared/data/stacks, real stacks")
def test_real_stacks_are_read_as_they_are_described() -> None:
    for described in json.loads((STACKS / "stacks.json").read_text(encoding="utf-8")):
        stack = read_stack(STACKS / described["file"])
        z_um = described["z_um"] or np.arange(described["planes"])

        np.testing.assert_allclose(stack.z_um, np.unique(z_um), atol=1e-4)
        assert stack.pixels.shape == (len(stack.z_um), *described["shape"])
        assert stack.pixels.dtype == described["dtype"]
        assert stack.pixels.any(axis=(1, 2)).all()


@pytest.mark.skipif(not STACKS.is_dir(), reason="needs ../shared/data/stacks, real stacks")
def test_real_stack_is_sharpest_at_its_focus() -> None:
    microscope = open_microscope(rig(STACKS / "wafer-pattern.ome.tif"))
    assert isinstance(microscope, RecordedMicroscope)

    def gradient(z_um: float) -> float:
        microscope.move_to(z_um)
        return float(np.abs(np.diff(microscope.snap().pixels.astype(np.float32))).mean())

    assert max((-30.0, -10.0, 0.0, 12.0, 40.0), key=gradient) == 0.0
