"""The comparison of spectra: it finds the focus by the ratio of frames, whatever the object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from focusd.focus.likelihood import compare, distances, explain
from focusd.focus.measurement import Spectrum, common_noise
from focusd.focus.transfer import DIMMING, Transfer
from focusd.optics.bands import band_of, band_spread
from tests.focus.exposures import BLOCK_PX, FREQUENCIES, MODES, SPREAD, transfer

PLANES_UM = np.arange(-100, 101, 2.0)
AXIAL_UNIT_UM = 6.0
SPACING_UM = 0.5
CANDIDATES_UM = np.arange(-80, 80.5, SPACING_UM)


def spectrum(defocus_um: float, objects: np.ndarray, noise: float = 1.0) -> Spectrum:
    return Spectrum(objects * transfer(np.array(defocus_um)) + noise, noise, MODES, SPREAD)


def a_transfer() -> Transfer:
    objects = 1e5 / (1 + (FREQUENCIES / 0.1) ** 2)
    return Transfer.of_stack(PLANES_UM, [spectrum(z, objects) for z in PLANES_UM], AXIAL_UNIT_UM)


@settings(max_examples=25, deadline=None)
@given(st.floats(-60, 60), st.floats(5, 40), st.floats(-2, 0), st.floats(3, 6))
def test_two_planes_of_any_object_give_the_focus(
    focus_um: float, apart_um: float, slope: float, strength: float
) -> None:
    objects = 10**strength * (FREQUENCIES / FREQUENCIES[0]) ** slope
    frames_um = np.array([0.0, apart_um])
    spectra = [spectrum(z - focus_um, objects) for z in frames_um]

    calibrated = np.abs(np.subtract.outer(frames_um, CANDIDATES_UM)).max(0) <= PLANES_UM.max()
    candidates_um = CANDIDATES_UM[calibrated]  # of others nobody knows what they would look like
    found = compare(frames_um, spectra, a_transfer(), candidates_um, SPACING_UM)

    if found.bands.mean() >= 5:  # else the object is lost in the noise
        assert candidates_um[found.chi2.argmin()] == pytest.approx(focus_um, abs=1.5)


def test_one_plane_tells_nothing() -> None:
    found = compare(np.zeros(1), [spectrum(20.0, np.full(len(MODES), 1e4))], a_transfer(), CANDIDATES_UM)
    assert found.chi2.max() < 1


def test_the_object_is_what_stands_behind_the_frames() -> None:
    objects = 1e5 * np.exp(-FREQUENCIES / 0.2)
    found = compare(
        np.array([0.0, 10.0]), [spectrum(z, objects) for z in (0.0, 10.0)], a_transfer(), np.zeros(1)
    )
    shape = found.log_object[0] - np.log(objects)
    known = 1e5 / (1 + (FREQUENCIES / 0.1) ** 2)  # the calibrated one is known up to a factor a band
    assert shape == pytest.approx(np.zeros(len(MODES)), abs=0.05), known


def test_noise_alone_tells_nothing() -> None:
    frames_um = np.array([0.0, 20.0])
    found = compare(
        frames_um, [spectrum(z, np.full(len(MODES), 1e-6)) for z in frames_um], a_transfer(), CANDIDATES_UM
    )
    assert np.ptp(found.chi2) < 1
    assert found.bands.max() == 0


def test_a_probe_tells_hypotheses_apart_that_differ_in_it() -> None:
    objects = np.log(np.full((2, len(MODES)), 1e5))
    hypotheses = np.array([-20.0, 20.0])
    probes = np.array([0.0, 20.0])
    told = distances(objects, spectrum(0.0, objects[0]), a_transfer(), np.subtract.outer(probes, hypotheses))
    assert told.shape == (2, 2, 2)
    assert told[0] == pytest.approx(np.zeros((2, 2)), abs=1e-6), "the same blur on both sides"
    assert told[1, 0, 1] == told[1, 1, 0] > 100
    assert told[1, 0, 0] == told[1, 1, 1] == 0


def test_a_band_is_trusted_less_the_wider_it_is_and_the_steeper_the_transfer_across_it() -> None:
    wide = np.ones(len(MODES))
    objects = 1e9 / (1 + (FREQUENCIES / 0.1) ** 2)
    spectra = [spectrum(z, objects) for z in PLANES_UM]
    error = Transfer.of_stack(PLANES_UM, [replace(s, spread=wide) for s in spectra], AXIAL_UNIT_UM).error
    narrow = Transfer.of_stack(PLANES_UM, spectra, AXIAL_UNIT_UM).error

    assert (error >= narrow).all()
    assert error[50] == pytest.approx(narrow[50]), "in focus all bands pass alike"
    slopes = np.abs(np.diff(np.log(transfer(PLANES_UM)), axis=-1))
    assert (error[40, 1:] >= 0.2 * slopes[40] - 1e-3).all()
    assert (error[45, 10:] > 5 * narrow[45, 10:]).all()


@pytest.mark.parametrize(("apart_um", "within", "worst"), [(2.0, 0.03, 6.0), (4.0, 0.3, 9.0)])
def test_between_close_planes_the_transfer_is_known_through_its_zeros(
    apart_um: float, within: float, worst: float
) -> None:
    """A zero between two planes was once taken to be as deep as any (8 and 25 σ off): a search on lattices, which hold
    much of one frequency, then ended 2 µm off, or not at all."""

    def passing(z_um: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.cos(np.multiply.outer(z_um, 0.6 * FREQUENCIES)) ** 2 + 1e-3)

    z_um = np.arange(-40.0, 40.1, apart_um) + 0.7
    stack = [Spectrum(1e9 * passing(np.array(z)), 1e-3, MODES, SPREAD) for z in z_um]
    known = Transfer.of_stack(z_um, stack, AXIAL_UNIT_UM)

    between_um = z_um[5:-5] + apart_um / 2
    log_t, sigma = known.at(between_um)
    error = np.abs(log_t + known.log_object - np.log(1e9 * passing(between_um)))
    assert np.median(error) < within
    assert np.median(error[..., 5:] / sigma[..., 5:]) < 1, "and says how well"
    assert np.percentile(error / sigma, 99) < worst


def test_planes_far_apart_say_that_they_do_not_know_what_lies_between() -> None:
    objects = 1e9 / (1 + (FREQUENCIES / 0.1) ** 2)
    close, wide = (
        Transfer.of_stack(z_um, [spectrum(z, objects) for z in z_um], AXIAL_UNIT_UM).at(np.array([5.0]))[1][0]
        for z_um in (PLANES_UM, np.arange(-100.0, 101.0, 10.0))
    )
    assert (wide[10:] > 5 * close[10:]).all()


def test_frames_lit_alike_share_their_noise_and_a_brighter_one_keeps_its_own() -> None:
    noise = np.array([100.0, 104.0, 96.0, 130.0])
    assert common_noise(noise) == pytest.approx([100.0, 100.0, 100.0, 130.0])
    assert common_noise(np.stack([noise, noise], axis=1)).shape == (4, 2)


def test_frames_that_are_brighter_as_a_whole_tell_the_same_focus() -> None:
    frames_um, objects = np.array([0.0, 10.0, 20.0]), 1e6 / (1 + (FREQUENCIES / 0.1) ** 2)
    spectra = [spectrum(z - 13.0, objects) for z in frames_um]
    brighter = [
        replace(s, power=(s.power - s.noise) * f + s.noise)
        for s, f in zip(spectra, (1.0, 0.9, 1.2), strict=True)
    ]

    same, other = (compare(frames_um, each, a_transfer(), CANDIDATES_UM) for each in (spectra, brighter))

    assert (
        CANDIDATES_UM[other.chi2.argmin()]
        == CANDIDATES_UM[same.chi2.argmin()]
        == pytest.approx(13.0, abs=0.5)
    )
    at = other.chi2.argmin()
    assert np.ptp(other.nuisances[:, at]) * DIMMING == pytest.approx(np.log(1.2 / 0.9), rel=0.1)


def test_beyond_the_stack_the_transfer_is_not_known() -> None:
    known, error = a_transfer().at(np.array([100.0, 101.0, 120.0]))
    assert (known[1] == known[0]).all()
    assert (known[2] == known[0]).all()
    strong = slice(0, 10)
    assert (error[2, strong] > error[1, strong]).all()
    assert (error[1, strong] > error[0, strong]).all()


def test_a_candidate_that_stands_for_its_surroundings_is_not_refuted_by_what_lies_between() -> None:
    objects = 1e9 / (1 + (FREQUENCIES / 0.1) ** 2)
    frames_um = np.array([0.0, 10.0])
    spectra = [spectrum(z - 1.0, objects) for z in frames_um]
    exact, coarse = (
        compare(frames_um, spectra, a_transfer(), np.zeros(1), spacing) for spacing in (0.0, 2.0)
    )
    assert coarse.chi2[0] < 2 * len(MODES) < exact.chi2[0]


@pytest.mark.parametrize(("object_slope", "transfer_slope"), [(-3.0, -6.0), (2.0, -4.0), (-1.0, 3.0)])
def test_slopes_within_a_band_add_to_its_mean_power(object_slope: float, transfer_slope: float) -> None:
    no_brighter = np.full((1, len(MODES)), 1e-6)  # a power law adds the same to all bands
    spread = band_spread(BLOCK_PX)
    members = [(band_of(BLOCK_PX) == band).ravel() for band in range(len(spread))]
    fy, fx = np.fft.fftfreq(BLOCK_PX)[:, None], np.fft.rfftfreq(BLOCK_PX)[None, :]
    frequency = np.hypot(fy, fx).ravel().clip(1 / BLOCK_PX)

    def banded(slope: float) -> NDArray[np.float64]:
        return np.log([(frequency**slope)[member].mean() for member in members])

    excess = banded(object_slope + transfer_slope) - banded(object_slope) - banded(transfer_slope)
    objects = 1e9 * np.exp(banded(object_slope))
    passed = banded(transfer_slope)[None, None, :]
    power = objects * np.exp(passed + excess)

    def misfit(of_bands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of a frame that shows the object as it is beside one that shows it through the transfer."""
        both = np.stack([np.broadcast_to(objects, power.shape[1:]), power[0]])
        log_t = np.concatenate([np.zeros_like(passed), passed])
        certain, flat = np.zeros_like(log_t), np.zeros(1)
        found = explain(both, np.array(1e-9), MODES, of_bands, log_t, certain, flat, no_brighter)
        return np.asarray(np.abs(found.residuals).max((0, 1)))

    wide = slice(25, -1)  # where the window counts for nothing
    assert (misfit(spread)[wide] < 0.35 * misfit(SPREAD)[wide]).all()


class Physics:
    """A model of optics that knows all but a smooth factor, and counts what it is asked."""

    asked = 0

    def log_power(self, defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
        self.asked = max(self.asked, len(defocus_um))
        return np.asarray(np.log(transfer(defocus_um)) + 0.002 * defocus_um[:, None] * FREQUENCIES)


def test_between_planes_that_lie_far_apart_a_model_of_the_optics_tells_what_passes() -> None:
    planes_um = np.array([-60.0, -48.0, -36.0, -24.0, -12.0, -10.0, -2.0, 2.0, 12.0, 24.0, 36.0, 48.0, 60.0])
    objects = 1e9 / (1 + (FREQUENCIES / 0.1) ** 2)
    spectra = [spectrum(z, objects) for z in planes_um]
    by_model = Transfer.of_stack(planes_um, spectra, AXIAL_UNIT_UM, model=Physics())
    interpolated = Transfer.of_stack(planes_um, spectra, AXIAL_UNIT_UM)
    between_um = np.array([-30.0, -7.0, 0.5, 7.0, 18.0])

    def apart(found: Transfer) -> NDArray[np.float64]:
        """Of what passes from what passes in the plane at 2 µm."""
        told = found.at(between_um)[0] - found.at(np.array([2.0]))[0]
        return np.asarray(np.abs(told - np.log(transfer(between_um) / transfer(np.array([2.0])))).max(-1))

    assert (apart(by_model) < 0.05).all()
    assert (apart(by_model) < 0.2 * apart(interpolated)).all()
    known, of_stack = (found.at(planes_um)[0] for found in (by_model, interpolated))
    assert known == pytest.approx(of_stack, abs=1e-6), "on its own planes the stack decides"


def test_one_wide_gap_among_a_thousand_planes_asks_for_few_more() -> None:
    planes_um = np.concatenate([np.linspace(-96, 0, 900), np.linspace(12, 96, 100)])
    model = Physics()
    Transfer.of_stack(
        planes_um, [spectrum(z, np.full(len(MODES), 1e5)) for z in planes_um], AXIAL_UNIT_UM, model=model
    )
    assert model.asked < 1010
