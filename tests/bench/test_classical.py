"""The classical focus measures on through-focus series, and what must not change them."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from bench.classical import MEASURES
from focusd.optics.imaging import Camera, blur
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf

Z_UM = np.array([-24.0, -16.0, -8.0, -4.0, 0.0, 4.0, 8.0, 16.0, 24.0])
Measure = Callable[[np.ndarray], float]
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())


def discs() -> np.ndarray:
    """Cells: discs of random size and brightness."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:192, :256]
    scene = np.full(y.shape, 0.1)
    for _ in range(40):
        row, column, radius = rng.uniform(0, 192), rng.uniform(0, 256), rng.uniform(3, 12)
        scene[(y - row) ** 2 + (x - column) ** 2 < radius**2] += rng.uniform(0.2, 0.8)
    return np.asarray(scene / scene.max())


def fractal() -> np.ndarray:
    """A 1/f texture."""
    noise = np.fft.rfft2(np.random.default_rng(6).standard_normal((192, 256)))
    f = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.rfftfreq(256)[None, :])
    f[0, 0] = 1
    texture = np.fft.irfft2(noise / f, s=(192, 256))
    return np.asarray(np.clip(0.5 + 0.15 * (texture - texture.mean()) / texture.std(), 0, 1))


@cache
def series(scene_name: str) -> np.ndarray:
    """What a 10×/0.3 objective and a noisy 16-bit camera see of a scene at each z, (z, y, x)."""
    scene = torch.from_numpy({"discs": discs, "fractal": fractal}[scene_name]() * 8000 + 200)
    psfs = torch.stack([camera_psf(Instrument(10, 0.3), float(z), 64) for z in Z_UM])
    electrons = blur(scene.expand(len(Z_UM), -1, -1), torch.fft.ifftshift(psfs, dim=(-2, -1)))
    return np.asarray(Camera().expose(electrons, torch.Generator().manual_seed(1))).astype(np.uint16)


@every_measure
@pytest.mark.parametrize("scene_name", ["discs", "fractal"])
def test_is_largest_in_focus_and_falls_on_both_sides(measure: Measure, scene_name: str) -> None:
    values = np.array([measure(frame) for frame in series(scene_name)])
    assert np.all(np.diff(values[1:5]) > 0)
    assert np.all(np.diff(values[4:8]) < 0)
    assert values[[0, -1]].max() < values[3:6].min()


@every_measure
def test_gain_and_pixel_type_do_not_change_the_value(measure: Measure) -> None:
    frame = (series("discs")[4] >> 8).astype(np.uint8)
    value = measure(frame)
    assert value > 0
    assert measure(frame.astype(np.uint16) * 257) == pytest.approx(value, rel=1e-9)
    assert measure(frame.astype(np.float32) * 0.013) == pytest.approx(value, rel=1e-4)


@every_measure
def test_unsigned_counts_do_not_wrap(measure: Measure) -> None:
    dark_after_bright = np.zeros((64, 64), np.uint8)
    dark_after_bright[:, :32] = 255
    assert measure(dark_after_bright) == measure(dark_after_bright.astype(np.float64))


@every_measure
def test_both_axes_count_alike(measure: Measure) -> None:
    frame = series("fractal")[4]
    assert measure(frame.T) == pytest.approx(measure(frame), rel=1e-9)


@every_measure
@pytest.mark.parametrize("constant", [0, 1, 37, 65535])
def test_a_constant_image_gives_zero(measure: Measure, constant: float) -> None:
    assert measure(np.full((50, 70), constant, np.uint16)) == 0


@every_measure
def test_an_image_without_light_gives_zero(measure: Measure) -> None:
    assert measure(np.array([[-1.0, 1.0], [2.0, -2.0]])) == 0


@every_measure
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 130), (129, 65)])
def test_any_size_gives_a_finite_value(measure: Measure, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).integers(1, 4096, shape).astype(np.uint16)
    assert np.isfinite(measure(image))
    assert (measure(image) > 0) == (image.size > 1)


@every_measure
@pytest.mark.parametrize(
    "image",
    [
        np.array([[1.0, np.nan], [2.0, 3.0]]),
        np.array([[1.0, np.inf], [2.0, 3.0]]),
        np.zeros((0, 4), np.uint8),
        np.ones((2, 3, 4)),
    ],
    ids=["nan", "infinity", "empty", "stack"],
)
def test_what_is_no_image_is_refused(measure: Measure, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image"):
        measure(image)


GAUSSIAN = np.exp(-(np.arange(-6, 7) ** 2) / 8)
GAUSSIAN /= GAUSSIAN.sum()


@pytest.mark.parametrize(
    ("name", "energy"),
    [
        ("hpf", (1 - 2 * GAUSSIAN[6] ** 2 + (GAUSSIAN @ GAUSSIAN) ** 2) / 4096),  # (δ − G)²
        ("lapv", 20 / 4096),  # (−4)² + 4·1²
        ("sml", 8 / 4096),  # two axes of 1 + 2 + 1
        ("tenengrad", 24 / 4096),  # two Sobel kernels of 12
        ("ewc", 0.75 / 7),  # three details of ½ in one of the 7 edge blocks
    ],
)
def test_the_response_to_a_point_is_that_of_the_formula(name: str, energy: float) -> None:
    image = np.ones((64, 64))
    image[20, 37] = 2.0
    mean = 1 + 1 / 4096
    power = 1 if name == "sml" else 2
    assert MEASURES[name](image) == pytest.approx(energy / mean**power, rel=1e-4)
