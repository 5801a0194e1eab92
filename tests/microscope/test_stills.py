"""Flat and dark frames that a user gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from focusd.errors import RequestError
from focusd.microscope.stills import Still, still


@pytest.mark.parametrize(
    ("shape", "frames"), [((20, 30), (1, 20, 30)), ((5, 20, 30), (5, 20, 30)), ((20, 30, 3), (1, 20, 30, 3))]
)
def test_one_image_or_several(tmp_path: Path, shape: tuple[int, ...], frames: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 200, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "flat.tif", pixels, photometric="rgb" if shape[-1] == 3 else "minisblack")
    for given in (pixels, tmp_path / "flat.tif", str(tmp_path / "flat.tif")):
        read = still(given, "flat")
        assert read is not None
        assert read.shape == frames
    assert still(None, "flat") is None


def test_what_is_no_camera_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no image")
    refused: dict[str, Still] = {
        "no file": tmp_path / "missing.tif",
        "cannot be read": tmp_path / "text.tif",
        "float64 pixels": np.ones((20, 30)),
        "the shape": np.ones(20, np.uint8),
    }
    for message, given in refused.items():
        with pytest.raises(RequestError, match=message):
            still(given, "flat")
