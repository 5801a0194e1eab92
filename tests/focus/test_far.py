"""The far search: coarse planes inside the limits, the way that the frames show, and the usual search at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.errors import AmbiguousError, FocusdError, NoSampleError, OutOfRangeError
from focusd.focus.far import (
    FAR_EXPOSURES,
    STEP_REACHES,
    TRIAL_EXPOSURES,
    FarSearch,
    low_power,
    peak_of,
    planes_outwards,
)
from focusd.focus.focus import Search
from focusd.focus.frame import Frame
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.posterior import Evidence
from focusd.focus.published import PublishedSearch
from focusd.focus.refocus import RefocusRun
from focusd.optics.bands import BlockSpectra
from tests.focus.exposures import exposure
from tests.focus.test_run import DOF_UM, PIXELS, Asked, Script, Shown, calibration, driven

LIMITS_UM = (-400.0, 400.0)
ASKED = Asked(limits_um=LIMITS_UM, far=True)
UNSURE = 0.3
"""σ of the score of a plane beyond the calibrated range."""


class Sample(Script):
    """A sample at one z. The network is unsure of what lies beyond the calibrated range.

    Args:
        strength: of its power over the noise.
        sigma: of all scores.
        lies_at_um: there the network takes any blur for a sharp image, and is sure of it.
    """

    def __init__(
        self, focus_um: float, strength: float = 1e4, *, sigma: float = 0.01, lies_at_um: float | None = None
    ) -> None:
        super().__init__([])
        self._focus_um = focus_um
        self._strength = strength
        self._sigma = sigma
        self._lies_at_um = lies_at_um

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        self.measured += 1
        seen = exposure(frame.z_um, self._focus_um, self._strength)
        same = np.ones(seen.b.shape)
        if abs(frame.z_um - self._focus_um) <= calibration().reach_um:
            sigma, b = self._sigma, seen.b
        else:
            lies = frame.z_um == self._lies_at_um
            sigma, b = (0.01, 0.2 * same) if lies else (UNSURE, 0.7 * same)
        return replace(seen, b=b, sigma=sigma * same).scored_on(only)


class Refused(PublishedSearch):
    """Refuses whatever it is shown."""

    def next_z_um(self) -> float | None:
        raise AmbiguousError("not from here", why="it is a test")


class Endless(PublishedSearch):
    """Is never satisfied, and looks a µm further each time; after so many exposures it is."""

    most = 7

    def next_z_um(self) -> float | None:
        done = len(self.measurements)
        return None if done >= self.most else self.measurements[0].z_um + done


def refusing() -> Search:
    return Refused(calibration(), LIMITS_UM, away_is_low=True, threshold=0.5)


def far_search(begin: Callable[[], Search]) -> FarSearch:
    return FarSearch(calibration(), LIMITS_UM, away_is_low=True, threshold=0.5, begin=begin)


def shown_to(search: FarSearch, sample: Sample) -> list[float]:
    """Show a search from 0 what it asks for, until it is satisfied; where that was."""
    z_um: float | None = search.opening_um(0.0)[0]
    while z_um is not None:
        search.add(sample.measure(Frame(PIXELS, z_um)))
        z_um = search.next_z_um()
    return [o.z_um for o in search.measurements]


def ended(asked: Asked, measure: Script) -> RefocusRun:
    run = asked.run(measure)
    for _ in driven(run, []):
        pass
    return run


def z_of(run: RefocusRun) -> list[float]:
    return [o.z_um for o in run.measurements]


@pytest.mark.parametrize("focus_um", [-390.0, -300.0, -160.0, -110.0, 20.0, 110.0, 240.0, 300.0, 390.0])
def test_a_focus_anywhere_inside_the_limits_is_found(focus_um: float) -> None:
    run = ended(ASKED, Sample(focus_um))
    assert run.result.focus_um == pytest.approx(focus_um, abs=0.1 * DOF_UM)
    assert run.result.exposures == len(run.measurements) <= 9
    assert run.result.dose_ms == run.result.exposures


def test_without_being_asked_nothing_is_looked_at_beyond_the_calibrated_range() -> None:
    run = Asked(limits_um=LIMITS_UM).run(Sample(300.0))
    for _ in driven(run, []):
        pass
    with pytest.raises(FocusdError):
        run.result  # noqa: B018
    assert max(z_of(run)) <= calibration().transfer.z_um[-1]


def test_the_side_away_from_the_sample_is_looked_at_first_and_left_when_less_shows_there() -> None:
    step_um = STEP_REACHES * calibration().reach_um
    z_um = z_of(ended(ASKED, Sample(300.0)))
    assert z_um[:3] == pytest.approx([0.0, -step_um, step_um])
    assert min(z_um) == pytest.approx(-step_um)


def test_a_focus_within_the_calibrated_range_takes_no_exposure_more() -> None:
    far, usual = (ended(asked, Sample(30.0)) for asked in (ASKED, Asked(limits_um=LIMITS_UM)))
    assert z_of(far) == z_of(usual)
    assert far.result == usual.result


@pytest.mark.parametrize("focus_um", [-240.0, 60.0, 200.0])
def test_a_sample_whose_scores_tell_nothing_is_found_by_its_power(focus_um: float) -> None:
    run = ended(ASKED, Sample(focus_um, sigma=0.1))
    assert run.result.focus_um == pytest.approx(focus_um, abs=0.25 * DOF_UM)


def test_a_plane_that_the_usual_search_refuses_is_left_and_others_are_looked_at() -> None:
    begun: list[Search] = []

    def begin() -> Search:
        begun.append(ASKED.search() if begun else refusing())
        return begun[-1]

    search = far_search(begin)
    shown_to(search, Sample(240.0, lies_at_um=0.0))
    assert len(begun) == 2
    assert search.decide().z_um == pytest.approx(240.0, abs=0.1 * DOF_UM)


def test_where_every_plane_is_refused_the_refusal_is_told() -> None:
    search = far_search(refusing)
    z_um = search.opening_um(0.0)[0]
    for _ in range(6):
        search.add(Sample(0.0).measure(Frame(PIXELS, z_um)))
        z_um = search.next_z_um() or z_um
    search.add(Sample(0.0).measure(Frame(PIXELS, z_um)))
    with pytest.raises(AmbiguousError, match="not from here; 7 exposures from") as refused:
        search.next_z_um()
    assert refused.value.data == {"why": "it is a test"}


def test_an_empty_field_is_no_sample_after_all_planes_have_been_looked_at() -> None:
    run = ended(ASKED, Script([Shown(strength=0.0, structure=0.0)]))
    with pytest.raises(
        NoSampleError, match=r"no plane shows anything.*7 exposures from -400\.0 to 400\.0 µm"
    ):
        run.result  # noqa: B018


def test_a_sample_beyond_the_limits_is_out_of_range_and_what_was_looked_at_is_said() -> None:
    run = ended(ASKED, Sample(900.0))
    with pytest.raises(OutOfRangeError, match=r"start there.*exposures from -\d+\.\d to 400\.0 µm"):
        run.result  # noqa: B018


def test_limits_wider_than_the_budget_holds_end_in_an_error_that_says_so() -> None:
    run = ended(replace(ASKED, limits_um=(-1e5, 1e5)), Sample(9e4))
    with pytest.raises(OutOfRangeError, match="move the stage and ask again"):
        run.result  # noqa: B018
    assert len(run.measurements) == FAR_EXPOSURES


def test_the_exposures_of_the_far_part_are_none_of_those_allowed_but_are_counted_as_dose() -> None:
    assert ended(replace(ASKED, exposures=3), Sample(300.0)).result.exposures > 3
    run = ended(replace(ASKED, dose_ms=3.0), Sample(300.0))
    with pytest.raises(FocusdError, match=r"dose of 3 ms.*none of 3 exposures from"):
        run.result  # noqa: B018


def test_a_usual_search_that_does_not_end_rests_while_other_planes_are_looked_at() -> None:
    begun: list[Search] = []

    def begin() -> Search:
        endless = Endless(calibration(), LIMITS_UM, away_is_low=True, threshold=0.5)
        begun.append(ASKED.search() if begun else endless)
        return begun[-1]

    z_um = shown_to(far_search(begin), Sample(240.0, lies_at_um=0.0))
    assert z_um[:TRIAL_EXPOSURES] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(begun) == 2
    assert z_um[-1] == pytest.approx(240.0, abs=0.1 * DOF_UM)


def test_a_usual_search_that_rests_goes_on_where_less_shows_on_both_sides() -> None:
    begun: list[Search] = []

    def begin() -> Search:
        begun.append(Endless(calibration(), LIMITS_UM, away_is_low=True, threshold=0.5))
        return begun[-1]

    step_um = STEP_REACHES * calibration().reach_um
    z_um = shown_to(far_search(begin), Sample(0.0))
    assert z_um == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, -step_um, step_um, 5.0, 6.0])
    assert len(begun) == 1


@given(
    start_um=st.floats(-1000, 1000),
    low_um=st.floats(-1000, 999),
    width_um=st.floats(1, 1000),
    step_um=st.floats(10, 300),
    share=st.floats(0, 1),
)
@settings(deadline=None)
def test_planes_lie_inside_the_limits_and_every_z_within_half_a_step_of_one(
    start_um: float, low_um: float, width_um: float, step_um: float, share: float
) -> None:
    limits_um = low_um, low_um + width_um
    start_um = min(max(start_um, limits_um[0]), limits_um[1])
    planes_um = planes_outwards(start_um, limits_um, step_um)
    assert all(limits_um[0] <= z_um <= limits_um[1] for z_um in planes_um)
    assert planes_um == sorted(planes_um, key=lambda z_um: abs(z_um - start_um))
    z_um = low_um + share * width_um
    assert min(abs(z_um - plane_um) for plane_um in [start_um, *planes_um]) <= step_um / 2 + 1e-6


def shown(z_um: float, focus_um: float, strength: float = 1e4) -> Evidence:
    seen = exposure(z_um, focus_um, strength)
    return Evidence(z_um, None, 1.0, seen.spectrum(np.ones(seen.structure.shape, bool)))


def test_power_grows_towards_the_focus_and_that_of_an_empty_field_is_what_noise_shows() -> None:
    power = [low_power(shown(z_um, 300.0).spectrum) for z_um in (-150.0, 0.0, 150.0, 300.0)]
    assert (np.diff(power) > 0).all()
    assert low_power(shown(0.0, 0.0, strength=0.0).spectrum) == low_power(shown(99.0, 0.0, 0.0).spectrum) > 0


def test_the_peak_is_told_only_where_less_shows_on_both_sides() -> None:
    planes_um = (-150.0, 0.0, 150.0)
    assert peak_of([shown(z_um, 0.0) for z_um in planes_um]) == pytest.approx(0.0, abs=1.0)
    assert peak_of([shown(z_um, 40.0) for z_um in planes_um]) == pytest.approx(40.0, abs=25.0)
    assert peak_of([shown(z_um, 300.0) for z_um in planes_um]) is None
    assert peak_of([shown(z_um, 0.0, strength=0.0) for z_um in planes_um]) is None


def test_a_maximum_of_planes_at_one_z_is_there() -> None:
    """Frames taken 0.1 nm apart showed clearly different power: a lamp had flashed."""
    dark, bright = shown(150.0, 0.0), shown(0.0, 0.0)
    seen = [replace(dark, z_um=7.0), replace(bright, z_um=7.0 + 1e-7), replace(dark, z_um=9.0)]
    assert peak_of(seen) == pytest.approx(7.0, abs=1e-3)
