"""What a camera shows at every z - dust, fixed pattern, hot pixels - learnt from the frames of a calibration.

Far from the focus next to nothing of the object passes at all but low frequencies. What groups of such frames, on
either side, still have in common there is the sensor's own. How far the groups differ says what their mean may be off
by, whatever the camera's noise is like; where the mean does not stand clearly above that, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter
from scipy.signal.windows import tukey

from focusd.focus.measurement import Measurement
from focusd.focus.planes import MIN_PLANES
from focusd.focus.sensor import Plane
from focusd.focus.stack import B_PER_AXIAL_UNIT
from focusd.optics.bands import banded_transfer, ring_radii
from focusd.optics.instrument import Instrument
from focusd.scoring.specks import specks_of

Array = NDArray[np.float64]
Image = NDArray[np.float32]
Frames = Callable[[int], NDArray[np.generic]]
"""The grey (y, x) of a plane of the stack, by its number."""

QUANTUM = 1 / 256
"""Of the pattern as it is kept. A pattern of less than half of it is none: it changes no focus."""
FAR_SHARE = 0.5
"""Of the stack's reach: what lies further out counts as far."""
LEAST_PX = 64
"""Of either side of a frame: a smaller one has too few frequencies to tell."""
GROUPS, LEAST_IN_GROUP = 3, 2
"""On each side of the focus, at most; and frames in each."""
MOST_PASSES = 0.01
"""Of the power of the object: frequencies at which more passes, at some far plane, are left alone."""
STANDS_OUT = 2.0
PER_PASSING = 400.0
"""Power of the pattern over that by which the mean may be off, from which a frequency counts; and so much more for the
share of the object's power that passes, which groups hold in common."""
SHARE_OF_NOISE = 0.1
"""And over the noise of a single frame: a pattern below does no harm."""
MOST_FADING = 1.3
"""Power of what the nearest of the far planes show over that of the furthest, beyond which it is the object."""
_RINGS = 96
_RADII = np.linspace(0, np.sqrt(0.5), _RINGS)
"""Of rings of spatial frequency, cycles/pixel."""
_TAPER = 0.25
_MARGIN_PX = 64
_LEVEL_PX = 33
"""The light around a pixel, to which it is compared."""
_STRUCTURE_FROM = 4
_CANONICAL = Instrument(magnification=10.0, na=0.3)
"""Optics in whose units the network's score is blur, whatever the optics that were not stated."""


def learn_pattern(
    frames: Frames, measurements: Sequence[Measurement], instrument: Instrument | None
) -> Plane | None:
    """By how much of the light each pixel shows more than it should, (y, x); None: nothing stands out.

    Args:
        frames: of the planes, as they were measured.
        measurements: of the planes, in any order.
        instrument: None: its optics are not known; the scores tell how blurred the far planes are.
    """
    if len(measurements) < MIN_PLANES or min(frames(0).shape) < LEAST_PX:
        return None
    far, units = _far_planes(measurements, instrument)
    groups = [part for side in far for part in _parts(side)]
    if len(groups) < 3:
        return None
    size = min(measurements[0].blocks.size_px, 256)
    passing = _passing(units, instrument or _CANONICAL, size)
    pattern = _common(frames, groups, passing)
    if pattern is None or np.abs(pattern).max() < QUANTUM / 2:
        return None
    return Plane.of(pattern, QUANTUM)


def _far_planes(
    measurements: Sequence[Measurement], instrument: Instrument | None
) -> tuple[list[list[int]], Array]:
    """Numbers of the far planes below and above the focus, by z, and the defocus of all of them, axial units."""
    z = np.array([m.z_um for m in measurements])
    away = z - _sharpest_um(z, measurements)
    is_far = np.abs(away) >= FAR_SHARE * np.abs(away).max()
    order = np.argsort(z)
    sides = [[int(k) for k in order if is_far[k] and np.sign(away[k]) == sign] for sign in (-1, 1)]
    if instrument is not None:
        units = np.abs(away) / instrument.axial_unit_um
    else:
        units = np.array([float(np.nanmedian(m.b)) for m in measurements]) / B_PER_AXIAL_UNIT
    return sides, units[is_far]


def _sharpest_um(z: Array, measurements: Sequence[Measurement]) -> float:
    """Where the power is highest over that of most planes, which what stays sharp at every z does not move."""
    blocks = [m.blocks for m in measurements]
    power = np.array([b.power.mean((0, 1))[_STRUCTURE_FROM:] for b in blocks])
    rise = (power / np.median(power, axis=0) - 1).clip(0)
    weight = rise**0.5 @ blocks[0].modes[_STRUCTURE_FROM:]
    return float(z[int(np.argmax(weight))])


def _parts(side: list[int]) -> list[list[int]]:
    """Neighbouring planes together, which an object that still passes makes alike."""
    count = min(GROUPS, len(side) // LEAST_IN_GROUP)
    return [part.tolist() for part in np.array_split(np.array(side), count)] if count else []


def _passing(units: Array, instrument: Instrument, size: int) -> Array:
    """Share of the object's power that passes at these defocuses, on each ring."""
    chosen = np.linspace(units.min(), units.max(), 9)
    with torch.inference_mode():
        passing = banded_transfer(chosen, instrument, {}, size).mean(0)
    return np.asarray(np.interp(_RADII, ring_radii(size), passing, left=1.0))


def _mean(frames: Frames, group: Sequence[int]) -> Image:
    """What the frames of a group show relative to the light around each pixel, on average."""
    total = _relative(frames(group[0]))
    for number in group[1:]:
        total += _relative(frames(number))
    return np.asarray(total / np.float32(len(group)))


def _relative(image: NDArray[np.generic]) -> Image:
    image = image.astype(np.float32)
    around = uniform_filter(uniform_filter(image, _LEVEL_PX, mode="reflect"), _LEVEL_PX, mode="reflect")
    return np.asarray(image / np.maximum(around, np.float32(1e-6)) - 1)


def _common(frames: Frames, groups: Sequence[Sequence[int]], passing: Array) -> Image | None:
    """What stands out in all groups, (y, x); None: nothing does.

    Args:
        passing: share of the object's power in these frames, on each ring.
    """
    count, powers = sum(map(len, groups)), []
    together = np.zeros(frames(groups[0][0]).shape, np.float32)
    for group in groups:
        image = _mean(frames, group)
        together += np.float32(len(group) / count) * image
        powers.append(_power(image))
    scattered = np.average(powers, axis=0, weights=[len(group) for group in groups])
    error = (scattered - _power(together)) / (len(groups) - 1)
    stands_out = np.maximum(STANDS_OUT + PER_PASSING * passing, SHARE_OF_NOISE * count)
    least = np.where(passing > MOST_PASSES, np.inf, stands_out * error)
    gain = _gain(_power(together), error, least)
    if not gain.any() or _fades(powers, gain > 0):
        return None
    specks = specks_of(_filtered(together, gain), lambda image: _filtered(image, (gain > 0).astype(float)))
    rest = together - specks
    return specks + _filtered(rest, _gain(_power(rest), error, least))


def _fades(powers: Sequence[Array], rings: NDArray[np.bool_]) -> bool:
    """Whether what the groups show is weaker further from the focus, as the object's is and the sensor's is not.

    Args:
        powers: of the groups by z, the first and the last being the furthest out.
        rings: that count.
    """
    middle = len(powers) // 2
    near, far = ([powers[k][rings].sum() for k in pair] for pair in ((middle - 1, middle), (0, -1)))
    # One group alone may hold some of the object beside the pattern.
    return bool(min(near) > MOST_FADING * np.mean(far))


def _gain(power: Array, error: Array, least: Array) -> Array:
    """By how much each ring is believed: the share of its power that is no error; 0 where that is too little."""
    signal = power - error
    return np.where(signal > least, signal / np.maximum(power, 1e-30), 0.0)


def _filtered(image: Image, gain: Array) -> Image:
    """The image, each ring of its frequencies multiplied by a gain. It goes on beyond its edges as in a mirror."""
    margins = [(min(_MARGIN_PX, extent - 1),) * 2 for extent in image.shape]
    wide = np.pad(image, margins, mode="reflect")
    spectrum = fft.rfft2(wide) * gain[_rings(wide.shape)].astype(np.float32)
    inner = tuple(slice(first, -last) for first, last in margins)
    return np.asarray(fft.irfft2(spectrum, s=wide.shape)[inner], np.float32)


def _tapered(image: Image) -> Image:
    """The image, fading towards its edges: a jump there would have power at all frequencies, the same in all groups."""
    for axis, extent in enumerate(image.shape):
        window = tukey(extent, _TAPER).astype(np.float32)
        image = image * np.expand_dims(window, 1 - axis)
    return image


def _rings(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The ring of each frequency of an rfft2 of an image (y, x)."""
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.asarray(np.rint(radius / _RADII[1]), np.intp)


def _power(image: Image) -> Array:
    """Mean power of an image on each ring, its edges left out."""
    spectrum = fft.rfft2(_tapered(image))
    power, flat = (spectrum.real**2 + spectrum.imag**2).ravel(), _rings(image.shape).ravel()
    return np.asarray(np.bincount(flat, power, _RINGS) / np.bincount(flat, minlength=_RINGS).clip(1))
