"""focusd's own grey of colour images and of raw colour mosaics, and how a mosaic is told from a grey camera."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from focusd.focus.grey import components, grey
from focusd.focus.mosaic import is_mosaic
from tests.colour import NEUTRAL_GAINS, bilinear, malvar, mosaic


def exposed(light: NDArray[np.float64], electrons: float, seed: int = 1) -> NDArray[np.uint16]:
    """A camera with an offset of 100 counts, one count an electron."""
    noise = np.random.default_rng(seed).standard_normal(light.shape)
    signal = light * electrons
    return (signal + noise * np.sqrt(signal + 4) + 100).clip(0, 65535).astype(np.uint16)


def picture(name: str) -> NDArray[np.float64]:
    image: NDArray[np.float64] = getattr(data, name)()[:512, :512] / 255
    return image


def stained() -> NDArray[np.float64]:
    return picture("immunohistochemistry")


def textures() -> list[NDArray[np.float64]]:
    return [picture(name) for name in ("brick", "grass", "camera")]


def test_a_grey_image_stays_as_it_is() -> None:
    image = np.ones((4, 4), np.uint8)
    assert grey(image) is image


@pytest.mark.parametrize(("dtype", "sums"), [("u1", "u2"), ("u2", "f4")])
def test_colours_are_added_without_an_overflow(dtype: str, sums: str) -> None:
    full: NDArray[np.unsignedinteger] = np.full((2, 2, 3), np.iinfo(np.dtype(dtype)).max, dtype)
    assert grey(full).dtype == sums
    assert (grey(full) == 4 * int(full[0, 0, 0])).all()
    red, green, blue = np.moveaxis(np.eye(3).astype(dtype)[None], -1, 0)
    assert grey(np.stack([red, green, blue], axis=-1)).tolist() == [[1, 2, 1]]


def test_the_component_without_light_is_dropped() -> None:
    image = np.arange(4, dtype=np.uint8) * np.ones((5, 6, 1), np.uint8)
    assert components(image).shape == (5, 6, 3)
    assert components(image[..., :1]).shape == (5, 6)
    assert components(image[..., :2]).shape == (5, 6, 2), "which a frame refuses"


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_nothing_is_left_of_an_even_mosaic(dtype: str) -> None:
    even: NDArray[np.unsignedinteger] = mosaic(np.ones((32, 33, 3)) * (50, 200, 90)).astype(dtype)
    assert (grey(even, is_mosaic=True) == 50 + 2 * 200 + 90).all()


@pytest.mark.parametrize("electrons", [50.0, 1000.0, 30_000.0])
def test_a_mosaic_is_recognised_by_its_pixels(electrons: float) -> None:
    for texture in textures():
        neutral = np.repeat(texture[..., None], 3, axis=-1) + 0.05
        assert is_mosaic(exposed(mosaic(neutral * NEUTRAL_GAINS), electrons))
        assert not is_mosaic(exposed(texture + 0.05, electrons)), "of a grey camera"


def test_a_coloured_sample_makes_no_mosaic_of_another_camera() -> None:
    balanced = mosaic(stained())
    assert is_mosaic(exposed(balanced, 8000.0)), "even when the camera has balanced its colours"
    for seen in (stained() @ (0.3, 0.6, 0.1), bilinear(balanced)[..., 1], malvar(balanced)[..., 0].clip(0)):
        assert not is_mosaic(exposed(seen, 8000.0))
    assert not is_mosaic(exposed(stained(), 8000.0)), "which has its colours already"


def test_noise_hot_pixels_and_uneven_columns_make_no_mosaic() -> None:
    even = np.ones((512, 512))
    assert not any(is_mosaic(exposed(even[:48, :64], 50.0, seed)) for seed in range(50))
    columns, hot = even.copy(), even.copy()
    columns[:, ::2] *= 1.05
    hot[tuple(np.random.default_rng(1).integers(0, 512, (2, 2000)))] = 8.0
    assert not is_mosaic(exposed(columns, 8000.0))
    assert not is_mosaic(exposed(hot, 1000.0))
    assert not is_mosaic(np.zeros((16, 16), np.uint16))
