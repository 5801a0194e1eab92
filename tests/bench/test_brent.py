"""Brent's exposures are counted, and its answer after each is the sharpest so far."""

import numpy as np

from bench.brent import brent

FOCUS_UM = 7.3


class Camera:
    """A smooth sharpness, and every z at which it was asked for."""

    def __init__(self, width_um: float = 20.0) -> None:
        self.asked: list[float] = []
        self.width_um = width_um

    def __call__(self, z_um: float) -> float:
        self.asked.append(z_um)
        return float(1 / (1 + ((z_um - FOCUS_UM) / self.width_um) ** 2))


def test_each_answer_is_the_sharpest_plane_so_far() -> None:
    camera = Camera()
    answers = brent(camera, (-60, 60), 10)
    assert len(answers) == len(camera.asked) == 10
    for n, answer in enumerate(answers, 1):
        assert answer == min(camera.asked[:n], key=lambda z: abs(z - FOCUS_UM))
    assert abs(answers[-1] - FOCUS_UM) < 0.5


def test_the_first_exposure_is_the_golden_section_of_the_range() -> None:
    assert np.isclose(brent(Camera(), (-60, 60), 2)[0], -60 + 120 * 0.381966)


def test_it_spends_no_more_than_it_may_and_stays_inside() -> None:
    for exposures in (2, 3, 5):
        camera = Camera()
        assert len(brent(camera, (-60, 60), exposures)) == exposures
        assert len(camera.asked) == exposures
        assert min(camera.asked) > -60
        assert max(camera.asked) < 60


def test_a_search_that_ends_early_keeps_its_answer() -> None:
    camera = Camera()
    answers = brent(camera, (7.2995, 7.3005), 12)
    assert len(camera.asked) < 12
    assert len(answers) == 12
    assert set(answers[len(camera.asked) :]) == {answers[len(camera.asked) - 1]}
