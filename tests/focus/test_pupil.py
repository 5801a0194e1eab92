"""The origin of a stack is the pupil's, not the sharpest plane, where optics are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from focusd.focus import pupil
from focusd.focus.measurement import Spectrum
from focusd.focus.pupil import find_origin, fit_pupil
from focusd.optics.bands import band_modes, banded_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.zernike import ASTIGMATISM_VERTICAL, COMA_X, SPHERICAL

INSTRUMENT = Instrument(magnification=10, na=0.3)
BLOCK_PX = 128
MODES = band_modes(BLOCK_PX)
SPREAD = np.zeros(len(MODES))


def stack(z_um: np.ndarray, focus_um: float, aberrations: dict[int, float]) -> list[Spectrum]:
    """Spectra of a stack of an object that is not white."""
    objects = 1e6 / np.arange(1, len(MODES) + 1) ** 2
    u = (z_um - focus_um) / INSTRUMENT.axial_unit_um
    return [
        Spectrum(objects * t + 1.0, 1.0, MODES, SPREAD)
        for t in banded_transfer(u, INSTRUMENT, aberrations, BLOCK_PX)
    ]


@pytest.mark.parametrize("spherical", [-0.04, 0.0, 0.04])
def test_spherical_aberration_does_not_move_the_origin(spherical: float) -> None:
    z_um = np.arange(-40, 41, 2.0)
    spectra = stack(z_um, 1.3, {SPHERICAL: spherical, ASTIGMATISM_VERTICAL: 0.03})

    origin = find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT)

    assert origin.method == "pupil"
    assert origin.z_um == pytest.approx(1.3, abs=0.1)


def test_a_fit_that_ends_in_a_wrong_place_is_begun_again_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    z_um = np.arange(-40, 41, 2.0)
    monkeypatch.setattr(pupil, "_START", (3.0, 0.9, 0.9, 0.9, 1.0))

    origin = find_origin(z_um, stack(z_um, 1.3, {SPHERICAL: 0.04}), BLOCK_PX, INSTRUMENT)

    assert origin.method == "pupil"
    assert origin.z_um == pytest.approx(1.3, abs=0.1)


def test_the_sharpest_plane_is_another_one() -> None:
    z_um = np.arange(-40, 41, 2.0)
    origin = find_origin(z_um, stack(z_um, 1.3, {SPHERICAL: 0.1}), BLOCK_PX, None)
    assert origin.method == "sharpest"
    assert abs(origin.z_um - 1.3) > 0.2


def test_a_stack_that_no_pupil_explains_falls_back_to_the_sharpest_plane() -> None:
    z_um = np.arange(-40, 41, 2.0)
    objects = np.full(len(MODES), 1e6)
    sharpness = np.exp(-np.abs(z_um - 4.0) / 5.0)
    spectra = [Spectrum(objects * s + 1.0, 1.0, MODES, SPREAD) for s in sharpness]

    origin = find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT)

    assert origin.method == "sharpest"
    assert origin.z_um == pytest.approx(4.0, abs=0.5)


@pytest.mark.parametrize("focus_um", [-3.0, 0.0, 2.0, 4.0])
def test_the_sharpest_plane_is_found_between_planes_far_apart(focus_um: float) -> None:
    """A parabola through the three highest planes lies up to 2.7 µm beside the focus here."""
    z_um = np.arange(-60, 61, 12.0)

    origin = find_origin(z_um, stack(z_um, focus_um, {}), BLOCK_PX, None)

    assert origin.z_um == pytest.approx(focus_um, abs=0.08 * INSTRUMENT.axial_unit_um)


def test_differences_as_small_as_rounding_do_not_move_the_origin() -> None:
    """Slopes over steps that drown in rounding let the fit end up to 0.1 µm from where it ends otherwise."""
    z_um = np.arange(-40, 41, 2.0)
    spectra = stack(z_um, 1.3, {SPHERICAL: 0.03, ASTIGMATISM_VERTICAL: 0.03, COMA_X: 0.02})
    rng = np.random.default_rng(1)

    origins = [
        find_origin(
            z_um,
            [replace(s, power=s.power * (1 + 1e-6 * rng.normal(size=len(MODES)))) for s in spectra],
            BLOCK_PX,
            INSTRUMENT,
        ).z_um
        for _ in range(8)
    ]

    assert np.ptp(origins) < 0.005


def test_a_fit_to_the_planes_near_the_focus_is_that_of_the_whole_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z_um = np.arange(-80, 81, 2.0)
    spectra = stack(z_um, 1.3, {SPHERICAL: 0.04, COMA_X: 0.02})
    known = fit_pupil(z_um[:62], spectra[:62], BLOCK_PX, INSTRUMENT)
    anew = find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT)
    monkeypatch.setattr(pupil, "_fit_pupil", lambda *_: pytest.fail("it has been fitted"))
    assert find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT, known).z_um == pytest.approx(anew.z_um, abs=0.005)


def test_a_fit_to_other_planes_does_not_count() -> None:
    z_um = np.arange(-80, 81, 2.0)
    spectra = stack(z_um, 1.3, {SPHERICAL: 0.04})
    anew = find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT)
    ended_early = fit_pupil(z_um[:45], spectra[:45], BLOCK_PX, INSTRUMENT)
    elsewhere = fit_pupil(z_um, stack(z_um, 3.0, {SPHERICAL: 0.04}), BLOCK_PX, INSTRUMENT)
    for wrong in (ended_early, elsewhere):
        wrong = replace(wrong, origin_um=50.0)
        assert find_origin(z_um, spectra, BLOCK_PX, INSTRUMENT, wrong) == anew
