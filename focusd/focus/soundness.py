"""What a calibration stack must not say: each refusal tells what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from focusd.errors import CalibrationError
from focusd.focus.measurement import Mask, Measurement, Spectrum, strength_of
from focusd.focus.moffat import Moffat, r_squared
from focusd.focus.planes import stack_um
from focusd.focus.pupil import Origin, fading_of
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

LEAST_FADING = float(np.log(2))
"""Of the image on each side of the focus, as `fading_of` tells it: half of its power. One axial unit from the focus
simulated images have lost 0.67 to 1.0, two units from it 1.07 to 1.3, by whatever objective, of whatever sample."""
MIN_R2 = 0.8
"""A curve that the profile explains worse than this is no calibration."""
EDGE = 0.1
"""Of the stack's extent: a focus so near to its end is not enclosed by it."""
FLAT = 0.1
"""Scores that differ by less over a whole stack do not change."""
VANISHED = 0.3
"""Of the power beside it, and of the stack's most: a plane that shows less shows next to nothing."""
APART = 0.1
"""Of the curve's full width: minimum of the scores and origin of the spectra lie no further apart (0.02 at most in
simulated stacks, 0.05 in recorded ones)."""
SCALES = (0.6, 1.6)
"""Of z, by the model of the pupil: an NA that is stated 20 % too high or too low lies within."""
_UNSTAINED = (
    "planes within the stack show hardly anything: in bright field an unstained sample shows nothing at its focus, "
    "use phase contrast"
)
WIDTH_UNITS = (1.5, 40.0)
"""Of the curve's full width at half maximum, in λ·n/NA²: 2.6 to 23 in simulated stacks of ±4 to ±16 units."""


def refuse_unseen_focus(
    z_um: Array, spectra: Sequence[Spectrum], instrument: Instrument | None, planes: list[Measurement]
) -> None:
    """Refuse a stack whose images do not grow sharp and blurred again, once.

    Args:
        z_um: (planes,) ascending.
        spectra: one a plane.
        planes: all of the stack, ascending.

    Raises:
        CalibrationError: on one side of the sharpest plane, or on both, the image keeps its power or regains it.
    """
    fading = fading_of(spectra)
    focus = int(np.argmin(fading))
    lost = fading - fading[focus]
    below, above = lost[: focus + 1].max(), lost[focus:].max()
    if max(below, above) < LEAST_FADING:
        raise CalibrationError(
            f"the images hardly change from z = {z_um[0]:g} to {z_um[-1]:g} µm: check that the stage moves the "
            f"focus and that the camera shows the sample, and take {_advice(instrument)}"
        )
    if min(below, above) < LEAST_FADING:
        raise CalibrationError(
            f"the focus, near z = {z_um[focus]:.4g} µm or further {'down' if below < above else 'up'}, lies at the "
            "edge of the stack; focus by eye first, so that the stack is centred on it"
        )
    again = np.concatenate([_regained(lost[focus::-1])[:0:-1], _regained(lost[focus:])])
    if again.any():
        raise CalibrationError(
            f"the images are sharp near z = {z_um[focus]:.4g} µm, blurred further on, and sharp again near z = "
            f"{z_um[again][0]:.4g} µm: {f'{_UNSTAINED}, or ' if _vanishes(planes) else ''}check that the stage moves "
            "evenly, and take a flat, textured, well exposed field of a single layer"
        )


def _regained(lost: Array) -> Mask:
    """The planes, from the focus outwards, that have lost less again than those before them."""
    return np.asarray((np.maximum.accumulate(lost) >= LEAST_FADING) & (lost < LEAST_FADING / 2))


def refuse_no_curve(
    fit: Moffat, z_um: Array, b: Array, instrument: Instrument | None, planes: list[Measurement]
) -> None:
    """Refuse a profile that explains the scores badly, or has its minimum at the edge of the stack.

    Args:
        z_um, b: (n,) of the planes that the profile was fitted to.
        planes: all of the stack, ascending.
    """
    r2 = r_squared(b, fit(z_um))
    curve = {"z_um": z_um.tolist(), "b": b.tolist()}
    if r2 < MIN_R2:
        raise CalibrationError(
            f"the scores do not form a calibration curve (R² {r2:.2f}, at least {MIN_R2} is needed); "
            + _cause(b, planes)
            + f"a flat, textured, well exposed field, focused by eye first, and {_advice(instrument)}",
            **curve,
        )
    margin_um = EDGE * float(np.ptp(z_um))
    if not z_um[0] + margin_um < fit.centre_um < z_um[-1] - margin_um:
        raise CalibrationError(
            f"the focus, near z = {fit.centre_um:.1f} µm, lies at the edge of the stack; "
            + (f"{_UNSTAINED}, or " if _vanishes(planes) else "")
            + "focus by eye first, so that the stack is centred on it",
            **curve,
        )


def _cause(b: Array, planes: list[Measurement]) -> str:
    if _vanishes(planes):
        return f"{_UNSTAINED}, or take "
    if np.ptp(b) < FLAT:
        return f"they differ by {np.ptp(b):.2g} only, so that no focus is seen in this stack: take "
    return "take "


def _vanishes(planes: list[Measurement]) -> bool:
    """Whether some planes show far less than others on both sides of them, as those near the focus of a phase do."""
    strength = np.array([strength_of(o.blocks).sum() for o in planes])
    beside = np.minimum(np.maximum.accumulate(strength), np.maximum.accumulate(strength[::-1])[::-1])
    return bool((strength < VANISHED * beside)[beside >= VANISHED * strength.max()].any())


def refuse_contradiction(fit: Moffat, origin: Origin) -> None:
    """Refuse scores that put the focus elsewhere than the spectra do.

    Raises:
        CalibrationError: one of the two sees something else than the sample.
    """
    if not abs(fit.centre_um - origin.z_um) <= APART * fit.fwhm_um:
        raise CalibrationError(
            f"the scores are lowest at z = {fit.centre_um:.4g} µm and the image is sharpest at z = "
            f"{origin.z_um:.4g} µm: one of them sees something else than the sample, as dust, another layer or a "
            "pattern of the camera; clean the optics, or take a flat field of more contrast",
            scores_um=fit.centre_um,
            spectra_um=origin.z_um,
        )


def refuse_other_optics(fit: Moffat, origin: Origin, instrument: Instrument) -> None:
    """Refuse a curve that is far wider or narrower than this objective's.

    Raises:
        CalibrationError: the stage does not move as it says, or the optics are not those of the configuration.
    """
    causes = (
        "check that the stage moves as far as it says, and objective.na, magnification and camera.pixel_um"
    )
    if not SCALES[0] <= origin.scale <= SCALES[1]:
        raise CalibrationError(
            f"the images blur as if the focus had moved {origin.scale:.2g} µm for each µm of z: {causes}",
            scale=origin.scale,
        )
    width, (least, most) = fit.fwhm_um / instrument.axial_unit_um, WIDTH_UNITS
    if not least <= width <= most:
        raise CalibrationError(
            f"the curve is {fit.fwhm_um:.3g} µm wide, which is {width:.2g} λ·n/NA² ({least:g} to {most:g} are "
            f"possible): {causes}",
            fwhm_um=fit.fwhm_um,
        )


def _advice(instrument: Instrument | None) -> str:
    if instrument is None:
        return "a range of some ten depths of field to each side (16 λ·n/NA²)"
    return f"a range of about ±{stack_um(instrument)[0]:g} µm, as this objective asks for"
