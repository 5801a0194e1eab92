"""The samples: deterministic, sharp down to the pixel, and shipped with what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from focusd.microscope.samples import SAMPLES
from focusd.training.textures import SHARPNESS_FLOOR, fine_share

TEXTURED = sorted(set(SAMPLES) - {"empty"})


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.parametrize("shape", [(96, 131), (700, 900)], ids=["small", "larger than most images"])
def test_a_sample_is_a_radiance_of_the_wanted_shape(name: str, shape: tuple[int, int]) -> None:
    image = SAMPLES[name](shape, 3)
    assert image.shape == shape
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("name", TEXTURED)
def test_the_seed_decides(name: str) -> None:
    shape = (160, 160)
    np.testing.assert_array_equal(SAMPLES[name](shape, 5), SAMPLES[name](shape, 5))
    assert any((SAMPLES[name](shape, 5) != SAMPLES[name](shape, seed)).any() for seed in (6, 7, 8))


@pytest.mark.parametrize("name", TEXTURED)
def test_detail_reaches_the_pixel(name: str) -> None:
    """A soft sample could not be told from a defocused one: the same floor as for the training textures."""
    assert fine_share(SAMPLES[name]((384, 512), 1)) >= SHARPNESS_FLOOR


def test_the_empty_sample_holds_nothing() -> None:
    assert np.ptp(SAMPLES["empty"]((64, 64), 0)) == 0


def test_no_sample_needs_a_download(tmp_path: Path) -> None:
    """In a fresh process with an empty cache and no way out."""
    program = (
        "from focusd.microscope.samples import SAMPLES\nfor draw in SAMPLES.values():\n    draw((64, 64), 0)"
    )
    nowhere = "http://127.0.0.1:9"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SKIMAGE"))
    }
    environment |= {"SKIMAGE_DATADIR": str(tmp_path), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
