"""Real textures: sources kept apart, softness measured, soft images shrunk or left out, objects periodic."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from focusd.training.textures import (
    SHARPNESS_FLOOR,
    Role,
    fine_share,
    periodic,
    read_textures,
    role_of,
    sharpened,
)

Image = NDArray[np.float32]


def noise(height: int, width: int, softness_px: float = 0.0) -> Image:
    """White noise in 0…1, blurred by a Gaussian."""
    image = ndimage.gaussian_filter(
        np.random.default_rng(1).random((height, width)), softness_px, mode="wrap"
    )
    return np.asarray((image - image.min()) / np.ptp(image), np.float32)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("dsb2018/fluo_256x256_0a7d30.png", "train"),
        ("dsb2018/fluo_360x360_0bf4b1.png", "tune"),
        ("bccd/BloodImage_00007.jpg", "train"),
        ("skimage016/camera.png", "report"),
        ("cellprofiler_examples/AS_09125_050116030001_D03f00d0.png", "report"),
        ("cellprofiler_examples/0_1_N_G.png", "train"),
        ("mine/BIAS_7.png", "train"),
    ],
)
def test_a_source_serves_one_role(name: str, role: Role) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("xy_16bit__autophagosomes.png", "xy_16bit__autophagosomes_crop.png"),
        ("xy_16bit__nuclei_high_dynamic_range.png", "xy_8bit__nuclei_high_dynamic_range.png"),
        ("xy_8bit__mitocheck_incenp_t1.png", "xy_8bit__mitocheck_incenp_t70.png"),
        ("xyc_8bit__membranes_nuclei.tif", "xyc_16bit__membranes_nuclei_hot_pixel.tif"),
    ],
)
def test_variants_of_one_image_serve_the_same_role(one: str, two: str) -> None:
    assert role_of(f"neubias_xy/{one}") == role_of(f"neubias_xy/{two}")


@pytest.mark.parametrize(
    ("trained", "relative"),
    [
        ("xy_8bit__large_noisy_nuclei.png", "xy_8bit__nuclei_noisy_large.png"),
        ("xy_8bit__nup.png", "xy_8bit__nup_bgsubtracted.tif"),
    ],
)
def test_relatives_of_trained_images_serve_no_figures(trained: str, relative: str) -> None:
    assert role_of(f"neubias_xy/{trained}") == "train"
    assert role_of(f"neubias_xy/{relative}") == "tune"


def test_the_mixed_source_is_split_in_two() -> None:
    roles = [role_of(f"neubias_xy/xy_8bit__image{k:03d}.png") for k in range(60)]
    assert set(roles) == {"train", "report"}
    assert 15 < roles.count("report") < 45


@pytest.mark.parametrize(("frequency", "share"), [(0.1, 0.0), (0.2, 0.0), (0.3, 1.0), (0.45, 1.0)])
def test_fine_share_counts_what_lies_above_a_quarter_of_the_sampling(frequency: float, share: float) -> None:
    wave = np.cos(2 * np.pi * frequency * np.arange(200))
    for image in (np.tile(wave, (150, 1)), np.tile(wave[:, None], (1, 150))):
        assert fine_share(image.astype(np.float32)) == pytest.approx(share, abs=0.01)


def test_fine_share_of_a_constant_image_is_zero() -> None:
    assert fine_share(np.full((100, 100), 0.3, np.float32)) < SHARPNESS_FLOOR


def test_a_sharp_image_is_halved() -> None:
    image = noise(301, 400)
    small = sharpened(image)
    assert small is not None
    assert small == pytest.approx(image[:300].reshape(150, 2, 200, 2).mean((1, 3)), abs=1e-6)


@pytest.mark.parametrize(("softness_px", "factor"), [(1.0, 2), (3.4, 3), (4.8, 4)])
def test_a_soft_image_is_shrunk_until_it_is_sharp(softness_px: float, factor: int) -> None:
    small = sharpened(noise(480, 600, softness_px))
    assert small is not None
    assert small.shape == (480 // factor, 600 // factor)
    assert fine_share(small) >= SHARPNESS_FLOOR


def test_a_blurred_image_is_refused() -> None:
    assert sharpened(noise(480, 600, 8.0)) is None


@pytest.mark.parametrize(("shape", "softness_px"), [((159, 400), 0.0), ((239, 400), 3.4)])
def test_an_image_too_small_to_be_shrunk_is_refused(shape: tuple[int, int], softness_px: float) -> None:
    assert sharpened(noise(*shape, softness_px)) is None


@pytest.mark.parametrize("shape", [(700, 900), (256, 256), (90, 300), (80, 85)])
def test_an_object_has_the_asked_size_and_no_seam(shape: tuple[int, int]) -> None:
    """A texture of small steps gives an object of small steps, also across its edges."""
    y, x = np.indices(shape) / 1000
    for seed in range(4):
        made = periodic((y + x).astype(np.float32), 512, np.random.default_rng(seed))
        assert made.shape == (512, 512)
        assert made.dtype == np.float32
        for axis in (0, 1):
            assert np.abs(made - np.roll(made, 1, axis)).max() < 0.0011


def test_an_object_is_made_of_the_textures_own_pixels() -> None:
    image = noise(300, 200)
    assert np.isin(periodic(image, 512, np.random.default_rng(0)), image).all()


def test_an_object_follows_from_the_generator() -> None:
    image = noise(400, 400)
    first, again, other = (periodic(image, 256, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def save(folder: Path, name: str, pixels: Image) -> None:
    """An 8-bit image file."""
    (folder / name).parent.mkdir(exist_ok=True)
    PIL.Image.fromarray((pixels * 200 + 20).astype(np.uint8)).save(folder / name)


def test_a_folder_gives_its_sharp_textures_by_name_with_their_roles(tmp_path: Path) -> None:
    save(tmp_path, "skimage016/zebra.png", noise(300, 320))
    save(tmp_path, "bccd/colour.PNG", np.stack([noise(300, 320)] * 3, axis=-1))
    save(tmp_path, "bccd/soft.png", noise(300, 320, 8.0))
    save(tmp_path, "bccd/tiny.png", noise(100, 320))
    (tmp_path / "licences.json").write_text("{}", encoding="utf-8")

    textures = read_textures(tmp_path)

    assert [(t.name, t.role) for t in textures] == [
        ("bccd/colour.PNG", "train"),
        ("skimage016/zebra.png", "report"),
    ]
    for texture in textures:
        assert texture.image.shape == (150, 160)
        assert texture.image.dtype == np.float32
        assert 0 <= texture.image.min() < texture.image.max() <= 1


def test_a_file_that_is_no_image_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken.png", "broken.tif"):
        (tmp_path / name).write_bytes(b"no image")
    PIL.Image.fromarray((noise(400, 400) * 255).astype(np.uint8)).save(tmp_path / "sharp.png")

    assert [texture.name for texture in read_textures(tmp_path)] == ["sharp.png"]

    told = capsys.readouterr().out
    assert "broken.png" in told
    assert "broken.tif" in told
