"""Scoring with the shipped network: where the tiles lie, and which frames are taken."""

import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.errors import RequestError
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region
from focusd.scoring.views import CANONICAL_SAMPLING
from focusd.scoring.weights import Model
from tests.scoring.scenes import noise, parts


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((512, 512), 4, 4), ((128, 128), 1, 1), ((129, 640), 2, 5), ((400, 130), 4, 2), ((40, 300), 1, 3)],
)
def test_a_frame_of_any_size_is_covered_with_tiles(
    scorer: Scorer, shape: tuple[int, int], rows: int, columns: int
) -> None:
    for part in parts(scorer.score(noise(shape))):
        assert part.shape == (rows, columns)
        assert part.dtype == np.float64
        assert np.isfinite(part).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2), (60, 127)])
def test_a_frame_smaller_than_a_tile_is_one_tile_at_its_centre(
    scorer: Scorer, shape: tuple[int, int]
) -> None:
    measure = scorer.score(noise(shape))
    assert np.isfinite(measure.b).all()
    assert measure.y_px == pytest.approx(np.full(measure.b.shape, shape[0] / 2), abs=0.5)
    assert measure.x_px.mean() == pytest.approx(shape[1] / 2, abs=0.5)


def test_tile_centres_are_in_pixels_of_the_frame(scorer: Scorer) -> None:
    measure = scorer.score(noise((256, 448)))
    assert measure.y_px[:, 0].tolist() == [64, 192]
    assert measure.x_px[0].tolist() == [64, 171, 277, 384]
    assert (measure.y_px == measure.y_px[:, :1]).all()
    assert (measure.x_px == measure.x_px[:1]).all()


@pytest.mark.parametrize(("ratio", "rows", "columns"), [(2.0, [32, 96, 160], [32, 96]), (0.5, [96], [64])])
def test_tile_centres_are_in_pixels_of_the_frame_also_when_it_is_resampled(
    model: Model, ratio: float, rows: list[int], columns: list[int]
) -> None:
    measure = Scorer(model, ratio * CANONICAL_SAMPLING).score(noise((192, 128)))
    assert measure.y_px[:, 0].tolist() == rows
    assert measure.x_px[0].tolist() == columns


def test_resampling_undoes_the_cameras_magnification(model: Model, defocused: NDArray[np.uint16]) -> None:
    """Each pixel repeated twice both ways is a camera of half the pitch."""
    field = defocused[:256, :256]
    finer = Scorer(model, CANONICAL_SAMPLING / 2).score(field.repeat(2, 0).repeat(2, 1))
    plain = Scorer(model, CANONICAL_SAMPLING).score(field)
    assert np.median(finer.b) == pytest.approx(np.median(plain.b), abs=0.05)
    assert finer.y_px / 2 == pytest.approx(plain.y_px)


def test_a_region_restricts_the_tiles_but_not_what_surrounds_them(
    scorer: Scorer, defocused: NDArray[np.uint16]
) -> None:
    whole, part = scorer.score(defocused), scorer.score(defocused, (128, 256, 128, 256))
    assert part.b.shape == (1, 2)
    assert part.y_px.tolist() == [[192, 192]]
    assert part.x_px.tolist() == [[320, 448]]
    assert part.b == pytest.approx(whole.b[1:2, 2:], abs=1e-4)
    assert part.sigma == pytest.approx(whole.sigma[1:2, 2:], abs=1e-4)


def test_a_region_of_a_resampled_frame_is_given_in_the_frames_own_pixels(model: Model) -> None:
    measure = Scorer(model, 2 * CANONICAL_SAMPLING).score(noise((256, 256)), (64, 128, 64, 128))
    assert measure.y_px[:, 0].tolist() == [96]
    assert measure.x_px[0].tolist() == [160, 224]


@pytest.mark.parametrize("region", [(0, 0, 512, 512), (511, 511, 1, 1), (200, 100, 30, 300)])
def test_any_region_inside_of_the_frame_is_scored(
    scorer: Scorer, defocused: NDArray[np.uint16], region: Region
) -> None:
    measure = scorer.score(defocused, region)
    y, x, height, width = region
    assert np.isfinite(measure.b).all()
    assert ((measure.y_px >= y) & (measure.y_px <= y + height)).all()
    assert ((measure.x_px >= x) & (measure.x_px <= x + width)).all()


@pytest.mark.parametrize(
    "region",
    [
        *[(-1, 0, 128, 128), (0, -1, 128, 128), (0, 0, 0, 128), (0, 0, 128, 0), (0, 0, -5, 10)],
        *[(385, 0, 128, 128), (0, 385, 128, 128), (0, 0, 513, 512), (600, 600, 10, 10)],
    ],
)
def test_a_region_outside_of_the_frame_is_refused(scorer: Scorer, region: Region) -> None:
    with pytest.raises(RequestError, match="region"):
        scorer.score(np.zeros((512, 512), np.uint16), region)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, ">u2", np.float16, np.float32, np.float64])
def test_all_kinds_of_unsigned_and_real_pixels_are_the_same_frame(
    scorer: Scorer, defocused: NDArray[np.uint16], dtype: str | type
) -> None:
    small = (defocused[:256, :256] >> 8).astype(np.uint8)
    expected, measure = scorer.score(small.astype(np.float32)), scorer.score(small.astype(dtype))
    np.testing.assert_array_equal(measure.b, expected.b)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, bool, complex])
def test_signed_and_other_pixels_are_refused(scorer: Scorer, dtype: type) -> None:
    with pytest.raises(RequestError, match="unsigned"):
        scorer.score(np.ones((200, 200), dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_not_finite_are_refused(scorer: Scorer, value: float, dtype: type) -> None:
    pixels: NDArray[np.generic] = np.ones((200, 200)).astype(dtype)
    pixels[150, 7] = value
    with pytest.raises(RequestError, match="NaN"):
        scorer.score(pixels)


def test_pixels_beyond_single_precision_are_refused(scorer: Scorer) -> None:
    pixels = np.ones((200, 200))
    pixels[150, 7] = 1e39
    with np.errstate(over="ignore"), pytest.raises(RequestError):
        scorer.score(pixels)


@pytest.mark.parametrize("shape", [(0, 0), (0, 200), (200, 0), (200,), (1, 200, 200), (200, 200, 3), ()])
def test_what_is_no_image_is_refused(scorer: Scorer, shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="two axes"):
        scorer.score(np.zeros(shape, np.uint16))


def test_a_view_of_another_array_is_scored_like_its_copy(
    scorer: Scorer, defocused: NDArray[np.uint16]
) -> None:
    turned = defocused[::-1, ::2].T
    np.testing.assert_array_equal(scorer.score(turned).b, scorer.score(np.ascontiguousarray(turned)).b)


def test_scoring_leaves_the_frame_as_it_was(scorer: Scorer) -> None:
    pixels = noise((200, 200)).astype(np.float32)
    before = pixels.copy()
    scorer.score(pixels)
    np.testing.assert_array_equal(pixels, before)
